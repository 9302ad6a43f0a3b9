"""LTX-Video (HaCohen et al. 2025, arXiv 2501.00103) in diffusers' layout: flow matching, one 3D attention.

The text is laid out as `diffusers.LTXPipeline` does it: padded to 128 tokens for T5, which attends to the
padding; the network attends to the caption's own columns alone.
"""

import math
from typing import ClassVar

from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from jaxtyping import Float
from torch import Tensor
from transformers import T5EncoderModel

from motionexp.backbones import video_vae
from motionexp.backbones.checkpoint import Unsupported
from motionexp.backbones.flow import block_bytes, projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule

ATTENTIONS: dict[ProjectionKind, str] = {"motion": "attn1", "cross": "attn2"}


def attention_projections(network: LTXVideoTransformer3DModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections`; for LTX-Video 2B each list has 28 names. The network may be on `meta`."""
    blocks = range(network.config.num_layers)
    return projections_of([f"transformer_blocks.{block}.{ATTENTIONS[kind]}" for block in blocks])


class LTXBackbone(PipelineBackbone):
    """LTX-Video 0.9: `motion` attention is the self-attention over all frames of every block.

    Its VAE puts a first frame alone and then every eight frames into one latent frame, and 32 x 32 pixels
    into one latent. `schedule` is that of videos of the backbone's own `frames`, `height` and `width`: the
    shift grows with a video's size. The network is told `fps`, as the stock pipeline's `frame_rate`.
    """

    any_size = True
    flow_matching = True
    attentions = ("motion", "cross")
    pipeline = "LTXPipeline"
    classes: ClassVar = {
        "transformer": LTXVideoTransformer3DModel,
        "vae": AutoencoderKLLTXVideo,
        "text_encoder": T5EncoderModel,
    }
    unsupported: ClassVar = (
        Unsupported(
            "vae/config.json",
            "timestep_conditioning",
            (None, False),
            "LTX-Video 0.9.1 and later have it; take 0.9.0",
        ),
        Unsupported("transformer/config.json", "patch_size", (None, 1), "it must be 1"),
        Unsupported("transformer/config.json", "patch_size_t", (None, 1), "it must be 1"),
    )
    codec: ClassVar = video_vae
    find_projections = staticmethod(attention_projections)
    caption_tokens = 128
    network_masks_padding = True
    spacing = "even"

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`."""
        return ("rope",)

    def _trained_video(self) -> tuple[int, int, int]:
        return 161, 512, 704

    @property
    def schedule(self) -> FlowSchedule:
        """For the backbone's own size of videos."""
        # Tokens of a video are F h w, as patches are single latents.
        _, *sides = self.latent_shape(self.frames, self.height, self.width)
        return self._schedule.for_tokens(math.prod(sides))

    @schedule.setter
    def schedule(self, value: FlowSchedule) -> None:
        self._schedule = value

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        videos, _, frames, height, width = x_t.shape
        # Positions count in seconds and pixels: a latent frame lasts frames_per_latent / fps seconds.
        side = float(self.pixels_per_latent)
        with attention_kernels(self.device, self.dtype, self.video_tokens(x_t.shape[1:])):
            output = self.network(
                # (B, C, F, h, w) to (B, F h w, C): patches are single latents.
                hidden_states=x_t.flatten(2).transpose(1, 2).to(self.device, self.dtype),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                timestep=self._schedule.label(t).to(self.device).expand(videos),
                encoder_attention_mask=conditioning.attended().to(self.device),
                num_frames=frames,
                height=height,
                width=width,
                rope_interpolation_scale=(self.frames_per_latent / self.fps, side, side),
                return_dict=False,
            )[0]
        return output.transpose(1, 2).unflatten(2, (frames, height, width)).to(x_t.dtype)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        return block_bytes(self, shape, video=(4, 10), caption=(4.5, 0))
