"""AnimateDiff (Guo et al. 2023, arXiv 2307.04725): a motion adapter within an image model.

The image model is a Stable Diffusion 1 of any looks, the adapter its temporal transformers. They are
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
from torch import Tensor
from transformers import CLIPTextModel

from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.unet3d import Attentions, UNet3DBackbone, attention_projections
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.schedule import NoiseSchedule
from motionexp.errors import InputError

ATTENTIONS: Attentions = {
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


class AnimateDiffBackbone(UNet3DBackbone):
    """Stable Diffusion 1 with a motion adapter, for 1 to 32 frames (the adapter's `motion_max_seq_length`).

    `motion` attention is all attention of the motion modules, two self-attentions along time (`attn1`,
    `attn2`) in each: 40 in 20 modules with the v1-5-3 adapter. On a single frame they run as they are.
    """

    pipeline = "AnimateDiffPipeline"
    classes: ClassVar = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "motion_adapter": MotionAdapter,
    }
    recomputed: ClassVar = (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D)

    @classmethod
    def _assemble(cls, folder: Path, parts: Mapping[str, Any]) -> Any:
        shown = logging.get_verbosity()
        logging.set_verbosity_error()  # it warns of layers that should stay in fp32, and names none
        try:
            return UNetMotionModel.from_unet2d(parts["unet"], parts["motion_adapter"])
        except (ValueError, RuntimeError) as error:
            said = str(error).strip().splitlines()[0]
            raise InputError(f"the motion adapter does not belong to this image model ({said})") from error
        finally:
            logging.set_verbosity(shown)

    @classmethod
    def schedule_of(cls, folder: Path) -> NoiseSchedule:
        """The image model's betas, in the adapter's schedule; see `SCHEDULER`."""
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        return NoiseSchedule.from_config({**config, **SCHEDULER})

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections`."""
        return attention_projections(self.network, kind, ATTENTIONS)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: as many frames as the adapter has positions."""
        most = self._config.motion_max_seq_length
        if frames > most:
            raise InputError(f"frames={frames}: the motion adapter of {self.name} takes {most} at most")
        return super().latent_shape(frames, height, width)

    def _captions(self, conditioning: Conditioning, frames: int) -> Tensor:
        return conditioning.embeds.repeat_interleave(frames, dim=0)

    def _held_widths(self) -> int:
        # Measured: of the last block on the way up, beside its motion module.
        return 28 * self._config.block_out_channels[0]

    def _heads(self, level: int) -> int:
        heads: int = self._config.num_attention_heads
        return heads
