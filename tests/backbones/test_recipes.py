"""What recipes set, against diffusers' pipelines: solvers, shift, spacing, and every form of guidance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones import load_backbone
from motionexp.diffusion.flow_matching import respaced
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from tests.support.perturbed import perturbed_by_diffusers
from tests.support.tiny_families import FAMILIES, NEGATIVE, Family, noise

STEPS = 6


def sampled(family: Family, folder: Path | str, settings: SamplerSettings, **spacing: Any) -> Tensor:
    backbone = load_backbone(folder, device="cpu", precision="fp32", fps=24)
    start = noise((1, *family.sampled[0]))
    if backbone.any_size:
        backbone.frames, backbone.height, backbone.width = family.video_of(start)
    backbone.schedule = respaced(backbone.schedule, spacing.get("shift"), spacing.get("spacing"))
    captions = backbone.embed([family.caption]), backbone.embed([NEGATIVE])
    return sample_latents(backbone, *captions, start, settings)


def respacing(**settings: Any) -> Callable[[Any], Any]:
    return lambda scheduler: type(scheduler).from_config(scheduler.config, **settings)


def perturb(scale: float, stg_scale: float, block: int) -> Callable[[Any, Path], None]:
    """Spatio-temporal guidance in LTXPipeline, which then guides and rescales as without it.

    Its unconditional row takes what makes u + scale (c - u) the sum with stg_scale (c - perturbed).
    """

    def change(pipeline: Any, _: Path) -> None:
        def forward(**inputs: Any) -> tuple[Tensor]:
            negative, conditional = plain(**inputs)[0].chunk(2)
            rows = {name: of[1:] if isinstance(of, Tensor) else of for name, of in inputs.items()}
            with perturbed_by_diffusers(network, [f"transformer_blocks.{block}.attn1"]):
                perturbed = plain(**rows)[0]
            negative = negative + stg_scale / (1 - scale) * (conditional - perturbed)
            return (torch.cat([negative, conditional]),)

        network = pipeline.transformer
        plain, network.forward = network.forward, forward

    return change


CASES: dict[str, tuple[str, SamplerSettings, dict[str, Any], dict[str, Any]]] = {
    "Wan's own solver and shift": (
        "wan",
        SamplerSettings(STEPS, 5.0, sampler="unipc"),
        {"shift": 8.0},
        {"scheduler": respacing(flow_shift=8.0)},
    ),
    "a scale for each expert": (
        "wan-experts",
        SamplerSettings(STEPS, ((0.0, 3.0), (875.0, 4.0)), sampler="unipc"),
        {},
        {"scheduler": respacing(), "guidance_scale": 4.0, "guidance_scale_2": 3.0},
    ),
    "dynamic guidance": (
        "cogvideox",
        SamplerSettings(STEPS, 6.0, dynamic_guidance=True),
        {},
        {"use_dynamic_cfg": True},
    ),
    "another spacing": (
        "animatediff",
        SamplerSettings(STEPS, 8.0),
        {"spacing": "leading"},
        {"scheduler": respacing(timestep_spacing="leading")},
    ),
    "a rescaled output": (
        "ltx",
        SamplerSettings(STEPS, 5.0, guidance_rescale=0.7),
        {},
        {"guidance_rescale": 0.7},
    ),
    "LTX's owners, in a smaller network": (
        "ltx",
        SamplerSettings(STEPS, 3.0, stg_scale=1.0, stg_blocks=(1,), guidance_rescale=0.7),
        {},
        {"guidance_rescale": 0.7, "adapter": Path(), "load": perturb(3.0, 1.0, 1)},
    ),
    "DPM-Solver++": (
        "unet3d",
        SamplerSettings(STEPS, 9.0, sampler="dpmpp_2m"),
        {},
        {"scheduler": lambda old: DPMSolverMultistepScheduler.from_config(old.config)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_equal_the_pipelines(case: str, tmp_path: Path) -> None:
    name, settings, spacing, stock = CASES[case]
    family = FAMILIES[name]
    folder = family.save(tmp_path / name)
    plain = SamplerSettings(STEPS, 5.0)
    expected = family.stock(
        folder, noise((1, *family.sampled[0])), plain, **{"guidance_scale": scale_of(settings), **stock}
    )
    assert_close(sampled(family, folder, settings, **spacing), expected, rtol=1e-4, atol=1e-4)
    # The settings matter, else the comparison would show little.
    assert (sampled(family, folder, plain) - expected).abs().max() > 1e-3


def scale_of(settings: SamplerSettings) -> float:
    return settings.guidance_scale if isinstance(settings.guidance_scale, float) else 1.0
