"""Every family of backbones as a tiny model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    AnimateDiffPipeline,
    CogVideoXPipeline,
    DiffusionPipeline,
    HunyuanVideoPipeline,
    LattePipeline,
    LTXPipeline,
    MochiPipeline,
    TextToVideoSDPipeline,
    WanPipeline,
)
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
from tests.support.tiny_animatediff import save_tiny_animatediff
from tests.support.tiny_cogvideox import TEXT_TOKENS, save_tiny_cogvideox
from tests.support.tiny_flow import save_tiny_hunyuan, save_tiny_ltx, save_tiny_mochi, save_tiny_wan
from tests.support.tiny_models import save_tiny_pipeline, save_tiny_unet3d
from tests.support.tiny_show1 import save_tiny_show1


@dataclass(frozen=True)
class Family:
    """Of a tiny model: how it is made, its classes, and what it takes.

    Attributes:
        video: frames, height, width. latents: of such a video.
        captions: columns of a short caption and of the longest.
        pipeline: None where diffusers has none.
    """

    save: Callable[[Path], Path | str]
    kind: type[PipelineBackbone]
    pipeline: type[DiffusionPipeline] | None
    video: tuple[int, int, int]
    latents: tuple[int, int, int, int]
    captions: tuple[int, int]

    @property
    def frames(self) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randint(0, 256, (2, *self.video, 3), dtype=torch.uint8, generator=generator)

    def noisy(self, videos: int) -> Tensor:
        return torch.randn(videos, *self.latents, generator=torch.Generator().manual_seed(1))


SMALL = (4, 16, 16), (4, 4, 4, 4)
COGVIDEOX = (CogVideoXBackbone, CogVideoXPipeline, (9, 16, 24), (4, 3, 4, 6), (TEXT_TOKENS, TEXT_TOKENS))
WAN = (WanPipeline, (5, 16, 32), (4, 2, 2, 4), (512, 512))
HUNYUAN = (HunyuanBackbone, HunyuanVideoPipeline, (5, 16, 32), (4, 2, 2, 4), (4, 256))
FAMILIES = {
    "latte": Family(save_tiny_pipeline, LatteBackbone, LattePipeline, *SMALL, (3, 120)),
    "unet3d": Family(save_tiny_unet3d, UNet3DBackbone, TextToVideoSDPipeline, *SMALL, (3, 20)),
    "animatediff": Family(save_tiny_animatediff, AnimateDiffBackbone, AnimateDiffPipeline, *SMALL, (3, 20)),
    "show1": Family(save_tiny_show1, Show1Backbone, None, (4, 16, 16), (3, 4, 16, 16), (77, 77)),
    "cogvideox": Family(partial(save_tiny_cogvideox, rotary=False), *COGVIDEOX),
    "cogvideox-rotary": Family(partial(save_tiny_cogvideox, rotary=True), *COGVIDEOX),
    "wan": Family(save_tiny_wan, WanBackbone, *WAN),
    "wan-experts": Family(partial(save_tiny_wan, experts=True), WanExpertsBackbone, *WAN),
    "ltx": Family(save_tiny_ltx, LTXBackbone, LTXPipeline, (5, 16, 24), (8, 2, 4, 6), (3, 128)),
    "mochi": Family(save_tiny_mochi, MochiBackbone, MochiPipeline, (7, 16, 32), (12, 2, 2, 4), (3, 256)),
    "hunyuan": Family(save_tiny_hunyuan, *HUNYUAN),
}
