"""Every guidance method of motionexp/methods/, with the settings of its file in conf/method/; a sampling."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from motionexp.config.compose import load
from motionexp.config.options import option_file, options
from motionexp.config.schema import is_guidance
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.methods.guidance import GuidanceMethod, Guiding, make_guidance

GUIDANCE = [name for name in options("method") if is_guidance(option_file("method", name))]
SAMPLER = SamplerSettings(steps=4, guidance_scale=2.0)
EVERYWHERE = Window(0)
CAPTIONS = ("a dog runs", "b")


@cache
def configured(name: str) -> dict[str, Any]:
    """The class and its arguments, as conf/method/NAME.yaml has them; two steps of an optimizer."""
    settings = load([f"method={name}", "tau=500", "model.guided_block=null"]).method
    return settings | ({"optimization_steps": 2} if "optimization_steps" in settings else {})


def guidance(name: str, backbone: Backbone, window: Window = EVERYWHERE, **settings: Any) -> GuidanceMethod:
    """A method that watches a reference of random latents, whose frames move to the right."""
    method = make_guidance(configured(name) | settings, backbone, window)
    method.watch(reference(backbone))
    return method


def reference(backbone: Backbone) -> Guiding:
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    first = torch.randn(shape[0], 1, *shape[2:], generator=torch.Generator().manual_seed(4))
    frames = [torch.roll(first, number, dims=-1) for number in range(shape[1])]
    captions = [backbone.embed([caption]) for caption in ("a cat runs", "", "")]
    return Guiding(torch.cat(frames, dim=1)[None], *captions)


def noise_of(backbone: Backbone, videos: int) -> Tensor:
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    return torch.randn(videos, *shape, generator=torch.Generator().manual_seed(7))


def sampled(
    backbone: Backbone,
    method: GuidanceMethod | None,
    rows: tuple[int, ...] = (0,),
    settings: SamplerSettings = SAMPLER,
    **more: Any,
) -> Tensor:
    """Latents of videos that start from the noise of these rows, one caption each."""
    gate = None if method is None else method.set_active
    return sample_latents(
        backbone,
        backbone.embed([CAPTIONS[row] for row in rows]),
        backbone.embed([""]),
        noise_of(backbone, len(CAPTIONS))[list(rows)],
        settings,
        gate=gate,
        guidance=method,
        **more,
    )
