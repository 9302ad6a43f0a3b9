"""LTX-Video (HaCohen et al. 2025, arXiv 2501.00103) in diffusers' layout: flow matching, one 3D attention.

The text is laid out as `diffusers.LTXPipeline` does it: padded to 128 tokens for T5, which hears the padding;
the network hears the caption's own columns alone.
"""

import math
from pathlib import Path
from typing import ClassVar

from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from jaxtyping import Float
from torch import Tensor
from transformers import BatchEncoding, T5EncoderModel

from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.flow import FlowBackbone, projections_of
from motionexp.backbones.precision import attention_kernels
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.errors import InputError

ATTENTIONS: dict[ProjectionKind, str] = {"motion": "attn1", "cross": "attn2"}


def attention_projections(network: LTXVideoTransformer3DModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections`; for LTX-Video 2B each list has 28 names. The network may be on `meta`."""
    if kind not in ATTENTIONS:
        return {}
    blocks = [f"transformer_blocks.{block}" for block in range(network.config.num_layers)]
    return projections_of(blocks, ATTENTIONS[kind])


class LTXBackbone(FlowBackbone):
    """LTX-Video 0.9: `motion` attention is the self-attention over all frames of every block.

    Its VAE puts a first frame alone and then every eight frames into one latent frame, and 32 x 32 pixels
    into one latent. `schedule` is that of videos of the backbone's own `frames`, `height` and `width`: the
    shift grows with a video's size. The network is told `fps`, as the stock pipeline's `frame_rate`.
    """

    attentions = ("motion", "cross")
    pipeline = "LTXPipeline"
    classes: ClassVar = {
        "transformer": LTXVideoTransformer3DModel,
        "vae": AutoencoderKLLTXVideo,
        "text_encoder": T5EncoderModel,
    }
    video = (161, 512, 704)
    caption_tokens = 128
    activations = (4, 10)
    caption_activations = (4.5, 0)

    @classmethod
    def _check(cls, folder: Path) -> None:
        super()._check(folder)
        vae = folder / "vae" / "config.json"
        if read_json(vae).get("timestep_conditioning"):
            raise InputError(
                f"{vae}: timestep_conditioning is set, as from LTX-Video 0.9.1 on, which cannot be used; take"
                " 0.9.0"
            )
        config = folder / cls.component / "config.json"
        about = read_json(config)
        if (about.get("patch_size", 1), about.get("patch_size_t", 1)) != (1, 1):
            raise InputError(f"{config}: patch_size and patch_size_t must be 1")

    @classmethod
    def schedule_of(cls, folder: Path) -> FlowSchedule:
        """See `PipelineBackbone.schedule_of`."""
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        return FlowSchedule.from_config(config, spacing="even")

    @property
    def schedule(self) -> FlowSchedule:
        """For the backbone's own size of videos."""
        _, *sides = self.latent_shape(self.frames, self.height, self.width)
        return self._schedule.for_tokens(math.prod(sides))

    @schedule.setter
    def schedule(self, value: FlowSchedule) -> None:
        self._schedule = value

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """All columns are kept; the mask tells the caption's own."""
        embeds = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        return Conditioning(embeds, tokens.attention_mask.bool())

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        videos, _, frames, height, width = x_t.shape
        with attention_kernels(self.device, self.dtype, self._tokens(x_t.shape[1:])):
            output = self.network(
                hidden_states=x_t.flatten(2).transpose(1, 2).to(self.device, self.dtype),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                timestep=self._schedule.label(t).to(self.device).expand(videos),
                encoder_attention_mask=conditioning.attended().to(self.device),
                num_frames=frames,
                height=height,
                width=width,
                rope_interpolation_scale=self._pixels_a_latent(),
                return_dict=False,
            )[0]
        return output.transpose(1, 2).unflatten(2, (frames, height, width)).to(x_t.dtype)

    def _pixels_a_latent(self) -> tuple[float, float, float]:
        """Seconds, and pixels down and across, from one latent to the next."""
        side = float(self._vae_factor)
        return self._frames_per_latent() / self.fps, side, side

    def _projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        return attention_projections(self.network, kind)
