"""Mochi 1 (Genmo 2024, github.com/genmoai/mochi) in diffusers' layout: flow matching, one attention over all.

The text is laid out as `diffusers.MochiPipeline` does it: padded to 256 tokens for T5, with a mask.
Mochi counts time from noise to data: its network takes 1000 - t and predicts the data minus the noise.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from jaxtyping import Float
from torch import Tensor
from transformers import BatchEncoding, T5EncoderModel

from motionexp.backbones import original_names, video_vae
from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.flow import block_bytes, projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.errors import InputError


def attention_projections(
    network: MochiTransformer3DModel, kind: ProjectionKind = "motion"
) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Mochi 1 each list has 48 names. The network may be on `meta`.

    Those of the video's tokens alone: the caption's have projections of their own (`add_q_proj`, ...).
    """
    return projections_of([f"transformer_blocks.{i}.attn1" for i in range(network.config.num_layers)])


class MochiBackbone(PipelineBackbone):
    """Mochi 1: `motion` attention is the one full 3D attention of every block.

    Its VAE puts a first frame alone and then every six frames into one latent frame.

    In the owners' code (genmoai/mochi, pipelines.py, since 2024-10-25) an empty negative prompt has the ids
    0 and a mask that is False: `force_zeros_for_empty_prompt`, as in diffusers. It is what `model_index.json`
    says, until it is set.
    """

    any_size = True
    flow_matching = True
    attentions = ("motion",)
    pipeline = "MochiPipeline"
    classes: ClassVar = {
        "transformer": MochiTransformer3DModel,
        "vae": AutoencoderKLMochi,
        "text_encoder": T5EncoderModel,
    }
    codec: ClassVar = video_vae
    find_projections = staticmethod(attention_projections)
    find_originals = staticmethod(original_names.mochi)
    caption_tokens = 256
    encoder_masks_padding = network_masks_padding = True
    spacing = "linear_quadratic"
    zeroes_empty_prompt = True
    _forces_zeros: bool | None = None
    schedule: FlowSchedule

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`."""
        return ("rope",)

    @cached_property
    def _index_forces_zeros(self) -> bool:
        return bool(read_json(self._folder / "model_index.json").get("force_zeros_for_empty_prompt"))

    @property
    def force_zeros_for_empty_prompt(self) -> bool:
        """See `Backbone`. Raises InputError if it is set to False where `model_index.json` says true."""
        return self._index_forces_zeros if self._forces_zeros is None else self._forces_zeros

    @force_zeros_for_empty_prompt.setter
    def force_zeros_for_empty_prompt(self, value: bool) -> None:
        if self._index_forces_zeros and not value:
            raise InputError(
                f"force_zeros_for_empty_prompt=false: {self._folder / 'model_index.json'} says true; give"
                " force_zeros_for_empty_prompt=true"
            )
        self._forces_zeros = value

    def _tokens(self, captions: Sequence[str]) -> BatchEncoding:
        """See `PipelineBackbone._tokens`: an empty caption may be zeros, all of them masked."""
        tokens = super()._tokens(captions)
        if self.force_zeros_for_empty_prompt:
            empty = [not caption for caption in captions]
            tokens.input_ids[empty], tokens.attention_mask[empty] = 0, 0
        return tokens

    def _trained_video(self) -> tuple[int, int, int]:
        return 19, 480, 848

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        # Mochi's time runs from noise (0) to data (1000).
        since_noise = TIMESTEPS - self.schedule.label(t)
        tokens = self.video_tokens(x_t.shape[1:]) + conditioning.embeds.shape[1]
        with attention_kernels(self.device, self.dtype, tokens):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                timestep=since_noise.to(self.device).expand(len(x_t)),
                encoder_attention_mask=conditioning.attended().to(self.device),
                return_dict=False,
            )[0]
        # Its output is data minus noise: the negative of our velocity.
        return -output.to(x_t.dtype)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        return block_bytes(self, shape, video=(8, 8), caption=(8, 8), joint=True)
