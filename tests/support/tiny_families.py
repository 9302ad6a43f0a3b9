"""Every family of backbones as a tiny model, and what diffusers' pipeline of the family makes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    CogVideoXPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    HunyuanVideoPipeline,
    LattePipeline,
    LTXPipeline,
    MochiPipeline,
    MotionAdapter,
    TextToVideoSDPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
)
from safetensors.torch import load_file
from torch import Tensor

from motionexp.backbones.animatediff import AnimateDiffBackbone
from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.hunyuan import HunyuanBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.ltx import LTXBackbone
from motionexp.backbones.mochi import MochiBackbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.show1 import Show1Backbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.backbones.wan import WanBackbone, WanExpertsBackbone
from motionexp.diffusion.sampling import SamplerSettings
from tests.support.tiny_animatediff import save_tiny_animatediff
from tests.support.tiny_cogvideox import TEXT_TOKENS, save_tiny_cogvideox
from tests.support.tiny_flow import (
    first_order,
    save_tiny_hunyuan,
    save_tiny_ltx,
    save_tiny_mochi,
    save_tiny_wan,
)
from tests.support.tiny_models import CLIP_TOKENS, save_tiny_pipeline, save_tiny_unet3d
from tests.support.tiny_show1 import save_tiny_show1

Latents = tuple[int, int, int, int]
NEGATIVE = "dull"
# Like the real one it ends in a token of its own: an empty caption has one. The tiny tokenizer would not make
# of the real one as many tokens as are cut off.
BARE_TEMPLATE = {"template": "{} e", "crop_start": 0}


@dataclass(frozen=True)
class Family:
    """A tiny model: how it is made, its classes, and what it takes.

    Attributes:
        video: frames, height, width. latents: of such a video.
        captions: columns of a short caption and of the longest.
        trained: frames, height and width that the network counts as its training videos'.
        attentions: by kind the number of attentions, and the lengths of the sequences that their keys are
            made of, for the caption "a" and a video of the last of `sampled`.
        pipeline: None where diffusers has none.
        arguments: of the pipeline's call, beside those of `stock`.
        sampled: latents of the videos whose samples are compared with the pipeline's.
        loads_lora: whether the pipeline loads adapter files.
        caption: what the samples show.
    """

    save: Callable[[Path], Path | str]
    kind: type[PipelineBackbone]
    pipeline: type[DiffusionPipeline] | None
    video: tuple[int, int, int]
    latents: Latents
    captions: tuple[int, int]
    trained: tuple[int, int, int]
    attentions: dict[str, tuple[int, set[int]]]
    sampled: tuple[Latents, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    loads_lora: bool = True
    caption: str = "A Cat "

    @property
    def frames(self) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randint(0, 256, (2, *self.video, 3), dtype=torch.uint8, generator=generator)

    def noisy(self, videos: int) -> Tensor:
        return noise((videos, *self.latents))

    def video_of(self, latents: Tensor) -> tuple[int, int, int]:
        """Frames, height and width of a video with these latents."""
        frames, height, width = latents.shape[2:]
        per_latent = (self.video[0] - 1) // max(1, self.latents[1] - 1)
        side = self.video[1] // self.latents[2]
        return (frames - 1) * per_latent + 1, height * side, width * side

    def load_pipeline(self, folder: Path | str) -> DiffusionPipeline:
        """diffusers' pipeline of a saved model, with steps of first order."""
        assert self.pipeline is not None
        if self.kind is AnimateDiffBackbone:
            image, adapter = str(folder).split("+")
            # The scheduler of diffusers' documentation of AnimateDiff.
            scheduler = DDIMScheduler.from_pretrained(
                image,
                subfolder="scheduler",
                clip_sample=False,
                timestep_spacing="linspace",
                beta_schedule="linear",
                steps_offset=1,
            )
            motion = MotionAdapter.from_pretrained(adapter)
            pipeline = AnimateDiffPipeline.from_pretrained(image, motion_adapter=motion, scheduler=scheduler)
        else:
            pipeline = self.pipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def stock(
        self,
        folder: Path | str,
        start: Tensor,
        settings: SamplerSettings,
        *,
        caption: str | None = None,
        output: str = "latent",
        adapter: Path | None = None,
        load: Callable[[Any, Path], None] | None = None,
        run: Callable[[Any, Mapping[str, Any]], Any] | None = None,
        scheduler: Callable[[Any], Any] | None = None,
        **more: Any,
    ) -> Tensor:
        """What the pipeline makes of the noise `start`: latents (1, C, F, h, w), or `np` frames in [0, 1].

        `run`: calls the pipeline with arguments, in place of the call here.
        """
        pipeline = self.load_pipeline(folder)
        if scheduler is not None:
            pipeline.scheduler = scheduler(pipeline.scheduler)
        elif isinstance(pipeline.scheduler, UniPCMultistepScheduler):
            pipeline.scheduler = first_order(settings.steps)
        if adapter is not None:
            (load or self._load_adapter)(pipeline, adapter)
        frames, height, width = self.video_of(start)
        length = "video_length" if self.pipeline is LattePipeline else "num_frames"
        scale = "true_cfg_scale" if self.pipeline is HunyuanVideoPipeline else "guidance_scale"
        latents = start.clone()
        if self.pipeline is LTXPipeline:
            latents = start.flatten(2).transpose(1, 2)  # (1, F h w, C)
        elif self.pipeline is CogVideoXPipeline:
            latents = start.transpose(1, 2).clone()  # (1, F, C, h, w)
        arguments = {
            "prompt": self.caption if caption is None else caption,
            "negative_prompt": NEGATIVE,
            "height": height,
            "width": width,
            "num_inference_steps": settings.steps,
            "latents": latents,
            "output_type": output,
            length: frames,
            scale: settings.guidance_scale,
        }
        arguments |= {**self.arguments, **more}
        sampled = (run(pipeline, arguments) if run else pipeline(**arguments)).frames
        if output != "latent":
            return torch.from_numpy(sampled)
        if self.pipeline is LTXPipeline:
            return sampled.transpose(1, 2).unflatten(2, start.shape[2:])
        return sampled.transpose(1, 2) if self.pipeline is CogVideoXPipeline else sampled

    def _load_adapter(self, pipeline: DiffusionPipeline, folder: Path) -> None:
        if self.kind is not WanExpertsBackbone:
            pipeline.load_lora_weights(str(folder), weight_name="adapter.safetensors")
            return
        tensors = load_file(folder / "adapter.safetensors")
        for component, second in (("transformer.", False), ("transformer_2.", True)):
            part = {
                "transformer." + name.removeprefix(component): tensor
                for name, tensor in tensors.items()
                if name.startswith(component)
            }
            if part:
                pipeline.load_lora_weights(part, load_into_transformer_2=second)


def noise(shape: tuple[int, ...]) -> Tensor:
    """Unit noise (B, C, F, h, w)."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


SMALL = (4, 16, 16), (4, 4, 4, 4)
COGVIDEOX = Family(
    partial(save_tiny_cogvideox, rotary=False),
    CogVideoXBackbone,
    CogVideoXPipeline,
    (9, 16, 24),
    (4, 3, 4, 6),
    captions=(TEXT_TOKENS, TEXT_TOKENS),
    trained=(9, 16, 24),
    attentions={"motion": (2, {TEXT_TOKENS + 3 * 2 * 3})},
    sampled=((4, 5, 8, 4), (4, 1, 4, 6), (4, 3, 4, 6)),
    arguments={"max_sequence_length": TEXT_TOKENS},
)
WAN = Family(
    save_tiny_wan,
    WanBackbone,
    WanPipeline,
    (5, 16, 32),
    (4, 2, 2, 4),
    captions=(512, 512),
    trained=(81, 480, 832),
    attentions={"motion": (2, {2 * 1 * 2}), "cross": (2, {512})},
    sampled=((4, 1, 2, 2), (4, 3, 4, 2), (4, 2, 2, 4)),
    caption="A Cat &amp; a  dog",
)
UNET3D = Family(
    save_tiny_unet3d,
    UNet3DBackbone,
    TextToVideoSDPipeline,
    *SMALL,
    captions=(3, CLIP_TOKENS),
    trained=(16, 16, 16),
    attentions={"motion": (10, {6}), "spatial": (4, {24, 6}), "cross": (4, {CLIP_TOKENS})},
    sampled=((4, 1, 6, 4), (4, 6, 6, 4)),
    loads_lora=False,
)
FAMILIES = {
    "latte": Family(
        save_tiny_pipeline,
        LatteBackbone,
        LattePipeline,
        *SMALL,
        captions=(3, 120),
        trained=(4, 16, 16),
        attentions={"motion": (2, {4}), "spatial": (2, {6}), "cross": (2, {2})},
        sampled=((4, 4, 6, 4),),
        arguments={"clean_caption": False},
        loads_lora=False,
    ),
    "unet3d": UNET3D,
    "animatediff": Family(
        save_tiny_animatediff,
        AnimateDiffBackbone,
        AnimateDiffPipeline,
        *SMALL,
        captions=(3, CLIP_TOKENS),
        trained=(16, 16, 16),
        attentions={"motion": (12, {5}), "spatial": (4, {24, 6}), "cross": (4, {CLIP_TOKENS})},
        sampled=((4, 1, 6, 4), (4, 8, 6, 4), (4, 5, 6, 4)),
    ),
    "show1": Family(
        save_tiny_show1,
        Show1Backbone,
        None,
        (4, 16, 16),
        (3, 4, 16, 16),
        captions=(77, 77),
        trained=(8, 10, 16),
        attentions={"motion": (8, {3}), "spatial": (4, {40}), "cross": (4, {77})},
        sampled=((3, 3, 10, 16),),
    ),
    "cogvideox": COGVIDEOX,
    "cogvideox-rotary": replace(COGVIDEOX, save=partial(save_tiny_cogvideox, rotary=True)),
    "wan": WAN,
    "wan-experts": replace(
        WAN,
        save=partial(save_tiny_wan, experts=True),
        kind=WanExpertsBackbone,
        attentions={"motion": (4, {2 * 1 * 2}), "cross": (4, {512})},
    ),
    "ltx": Family(
        save_tiny_ltx,
        LTXBackbone,
        LTXPipeline,
        (5, 16, 24),
        (8, 2, 4, 6),
        captions=(3, 128),
        trained=(161, 512, 704),
        attentions={"motion": (2, {2 * 8 * 16}), "cross": (2, {2})},
        sampled=((8, 2, 8, 16),),
        arguments={"frame_rate": 24},
    ),
    "mochi": Family(
        save_tiny_mochi,
        MochiBackbone,
        MochiPipeline,
        (7, 16, 32),
        (12, 2, 2, 4),
        captions=(3, 256),
        trained=(19, 480, 848),
        attentions={"motion": (2, {2 * 1 * 2})},
        sampled=((12, 2, 2, 4),),
    ),
    "hunyuan": Family(
        save_tiny_hunyuan,
        HunyuanBackbone,
        HunyuanVideoPipeline,
        (5, 16, 32),
        (4, 2, 2, 4),
        captions=(4, 256),
        trained=(129, 720, 1280),
        attentions={"motion": (2, {2 * 1 * 2, 2 * 1 * 2 + 4})},
        sampled=((4, 2, 2, 4),),
        arguments={"prompt_template": BARE_TEMPLATE},
    ),
}
"""Of Show-1 a transcription of the authors' pipeline is in test_show1.py."""
STOCK = {
    **{name: family for name, family in FAMILIES.items() if family.pipeline is not None},
    "unet3d-velocity": replace(UNET3D, save=partial(save_tiny_unet3d, prediction_type="v_prediction")),
    "wan-euler": replace(WAN, save=partial(save_tiny_wan, euler=True)),
}
"""The families that diffusers has a pipeline for, with their other schedulers."""
