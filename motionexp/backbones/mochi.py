"""Mochi 1 (Genmo 2024, github.com/genmoai/mochi) in diffusers' layout: flow matching, one attention over all.

The text is laid out as `diffusers.MochiPipeline` does it: padded to 256 tokens for T5, with a mask.
Mochi counts time from noise to data: its network is told 1000 - t and answers with data less noise.
"""

from pathlib import Path
from typing import ClassVar

from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from jaxtyping import Float
from torch import Tensor
from transformers import BatchEncoding, T5EncoderModel

from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.flow import FlowBackbone, projections_of
from motionexp.backbones.precision import attention_kernels
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError


def attention_projections(network: MochiTransformer3DModel) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Mochi 1 each list has 48 names. The network may be on `meta`.

    Those of the video's tokens alone: the caption's have projections of their own (`add_q_proj`, ...).
    """
    return projections_of([f"transformer_blocks.{i}" for i in range(network.config.num_layers)], "attn1")


class MochiBackbone(FlowBackbone):
    """Mochi 1: `motion` attention is the one full 3D attention of every block.

    Its VAE puts a first frame alone and then every six frames into one latent frame.
    """

    attentions = ("motion",)
    pipeline = "MochiPipeline"
    classes: ClassVar = {
        "transformer": MochiTransformer3DModel,
        "vae": AutoencoderKLMochi,
        "text_encoder": T5EncoderModel,
    }
    video = (19, 480, 848)
    caption_tokens = 256
    activations = caption_activations = (8, 8)

    @classmethod
    def _check(cls, folder: Path) -> None:
        super()._check(folder)
        index = folder / "model_index.json"
        if read_json(index).get("force_zeros_for_empty_prompt"):
            raise InputError(f"{index}: force_zeros_for_empty_prompt=true is not supported; set it to false")

    @classmethod
    def schedule_of(cls, folder: Path) -> FlowSchedule:
        """See `PipelineBackbone.schedule_of`."""
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        return FlowSchedule.from_config(config, spacing="linear_quadratic")

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """All columns are kept; the mask tells the caption's own."""
        mask = tokens.attention_mask.bool()
        ids = tokens.input_ids.to(self.device)
        embeds = self.text_encoder(ids, attention_mask=mask.to(self.device)).last_hidden_state
        return Conditioning(embeds, mask)

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        since_noise = TIMESTEPS - self.schedule.label(t)
        tokens = self._longest_sequence(self._tokens(x_t.shape[1:]), conditioning.embeds.shape[1])
        with attention_kernels(self.device, self.dtype, tokens):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                timestep=since_noise.to(self.device).expand(len(x_t)),
                encoder_attention_mask=conditioning.attended().to(self.device),
                return_dict=False,
            )[0]
        return -output.to(x_t.dtype)

    def _projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        return attention_projections(self.network) if kind == "motion" else {}
