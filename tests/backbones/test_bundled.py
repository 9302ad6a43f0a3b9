"""The bundled models' own weights through our sampler and through their stock pipelines."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXPipeline, DiffusionPipeline, LattePipeline, TextToVideoSDPipeline
from torch import Tensor

from motionexp.backbones import load_backbone
from motionexp.config.compose import load
from motionexp.config.schema import BUNDLED
from motionexp.diffusion.sampling import SamplerSettings, sample_latents

PUBLISHED = Path(__file__).parents[2] / "results" / "shapes" / "boundary.csv"
BLOCK = "appearance against motion"
CAPTION = "a red striped star is moving on sand"
SETTINGS = SamplerSettings(steps=4, guidance_scale=2.0)
LATTE = {"video_length": 16, "clean_caption": False}
UNET = {"num_frames": 16, "height": 64, "width": 64}
COGVIDEOX = {"num_frames": 17, "height": 64, "width": 64, "max_sequence_length": 24}


def as_is(latents: Tensor) -> Tensor:
    return latents


def frames_first(latents: Tensor) -> Tensor:
    return latents.transpose(1, 2)


@pytest.mark.parametrize(
    ("name", "pipeline", "own", "laid_out"),
    [
        ("tiny_latte", LattePipeline, LATTE, as_is),
        ("tiny_unet3d", TextToVideoSDPipeline, UNET, as_is),
        ("tiny_cogvideox", CogVideoXPipeline, COGVIDEOX, frames_first),
    ],
)
def test_samples_equal_the_stock_pipelines(
    name: str, pipeline: type[DiffusionPipeline], own: dict[str, Any], laid_out: Callable[[Tensor], Tensor]
) -> None:
    backbone = load_backbone(f"bundled:{name}", device="cpu", precision="fp32")
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    ours = sample_latents(backbone, backbone.embed([CAPTION]), backbone.embed([""]), noise, SETTINGS)

    stock = pipeline.from_pretrained(BUNDLED / name, local_files_only=True, dtype=torch.float32)
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        CAPTION,
        negative_prompt="",
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance_scale,
        latents=laid_out(noise).clone(),
        output_type="latent",
        **own,
    ).frames
    torch.testing.assert_close(ours, laid_out(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny_latte", "tiny_unet3d", "tiny_cogvideox"])
def test_a_stored_boundary_is_the_published_one_of_these_weights(name: str) -> None:
    model = load([f"model={name}"]).model
    backbone = load_backbone(model.path, device="cpu", precision="fp32")
    assert backbone.weights_hash[:12] == model.boundary_weights
    with PUBLISHED.open(newline="") as file:
        (found,) = (
            row
            for row in csv.reader(file)
            if row[1:4] == [BLOCK, f"{name}, motion-dominant, found", "boundary, t"]
        )
    assert model.boundary == round(float(found[5]))


def test_all_bundled_files_together_stay_under_32_mb() -> None:
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) < 32_000_000
