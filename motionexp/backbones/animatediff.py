"""AnimateDiff (Guo et al. 2023, arXiv 2307.04725): a motion adapter within an image model.

The image model is a Stable Diffusion 1 of any appearance, the adapter its temporal transformers. They are
checkpoints of their own in diffusers' layout, so that a path names two, `IMAGE_MODEL+ADAPTER`, and a revision
likewise. The text is laid out as `diffusers.AnimateDiffPipeline` does it: like ModelScope's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from diffusers.utils import logging
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel

from motionexp.backbones import original_names
from motionexp.backbones.blocks import levels
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.text import lower_case, refuse_mask
from motionexp.backbones.unet3d import Attentions, denoise, find_attentions, unet_bytes
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.errors import InputError

ATTENTIONS: dict[ProjectionKind, Attentions] = {
    "motion": (AnimateDiffTransformer3D, ("attn1", "attn2")),
    "spatial": (Transformer2DModel, ("attn1",)),
    "cross": (Transformer2DModel, ("attn2",)),
}
# What the adapters were trained with, where the image model's own scheduler says otherwise (diffusers'
# documentation of AnimateDiff).
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "linspace",
}


def attention_projections(network: nn.Module, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections` and `AnimateDiffBackbone`. The network may be on `meta`."""
    return find_attentions(network, ATTENTIONS[kind])


class AnimateDiffBackbone(PipelineBackbone):
    """Stable Diffusion 1 with a motion adapter, for 1 to 32 frames (the adapter's `motion_max_seq_length`).

    `motion` attention is all attention of the motion modules, two self-attentions along time (`attn1`,
    `attn2`) in each: 40 in 20 modules with the v1-5-3 adapter. On a single frame they run as they are.
    """

    any_size = True
    pipeline = "AnimateDiffPipeline"
    classes: ClassVar = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "motion_adapter": MotionAdapter,
    }
    recomputed: ClassVar = (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D)
    find_projections = staticmethod(attention_projections)
    find_originals = staticmethod(original_names.animatediff)
    find_blocks = staticmethod(levels)
    motion_layout = "time"
    caption_form = staticmethod(lower_case)
    scheduler = SCHEDULER

    def _trained_video(self) -> tuple[int, int, int]:
        side = self.config.sample_size * self.pixels_per_latent
        return 16, side, side

    @classmethod
    def _assemble(cls, folder: Path, parts: Mapping[str, Any]) -> Any:
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # it warns of layers that should stay in fp32, and names none
        try:
            return UNetMotionModel.from_unet2d(parts["unet"], parts["motion_adapter"])
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"the motion adapter does not belong to this image model ({reason})") from error
        finally:
            logging.set_verbosity(verbosity)

    def _latent_frames(self, frames: int) -> int:
        """As many frames as the adapter has positions, at most."""
        positions = self.config.motion_max_seq_length
        if frames > positions:
            raise InputError(f"frames={frames}: the motion adapter of {self.name} takes {positions} at most")
        return super()._latent_frames(frames)

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        refuse_mask(conditioning)
        # (B, L, D) to (B F, L, D): the image model takes a caption for each frame.
        return denoise(self, x_t, t, conditioning.embeds.repeat_interleave(x_t.shape[2], dim=0))

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate."""
        widths = self.config.block_out_channels
        # The factor is the measured peak of the last block on the way up, beside its motion module.
        return unet_bytes(
            self, shape, held=28 * widths[0], heads=[self.config.num_attention_heads] * len(widths)
        )
