"""The bundled models' own weights through our sampler and through their stock pipelines."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from motionexp.backbones import load_backbone
from motionexp.config.compose import load
from motionexp.config.schema import BUNDLED
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from tests.support.tiny_families import FAMILIES

RESULTS = Path(__file__).parents[2] / "results" / "shapes"
BLOCK = "appearance against motion"
CAPTION = "a red striped star is moving on sand"
SETTINGS = SamplerSettings(steps=4, guidance_scale=2.0)
MODELS = ("tiny_latte", "tiny_unet3d", "tiny_cogvideox")


@pytest.mark.parametrize("name", MODELS)
def test_samples_equal_the_stock_pipelines(name: str) -> None:
    backbone = load_backbone(f"bundled:{name}", device="cpu", precision="fp32")
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    start = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    ours = sample_latents(backbone, backbone.embed([CAPTION]), backbone.embed([""]), start, SETTINGS)
    length = {"max_sequence_length": 24} if name == "tiny_cogvideox" else {}
    video = (backbone.frames, backbone.height, backbone.width)
    family = replace(FAMILIES[name.removeprefix("tiny_")], video=video, latents=shape)
    stock = family.stock(BUNDLED / name, start, SETTINGS, caption=CAPTION, negative_prompt="", **length)
    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*MODELS, "tiny_wan"])
def test_a_stored_boundary_is_the_published_one_of_these_weights(name: str) -> None:
    # Of flow matching the shift of the probe is part of the name.
    folder, shown = ("shift", f"{name}, shift 3") if name == "tiny_wan" else (".", name)
    model = load([f"model={name}"]).model
    backbone = load_backbone(model.path, device="cpu", precision="fp32")
    assert backbone.weights_hash[:12] == model.boundary_weights
    assert model.boundary_shift == (3.0 if name == "tiny_wan" else None)
    with (RESULTS / folder / "boundary.csv").open(newline="") as file:
        (boundary,) = (
            row
            for row in csv.reader(file)
            if row[1:4] == [BLOCK, f"{shown}, motion-dominant, found", "boundary, t"]
        )
    assert model.boundary == round(float(boundary[5]))


def test_samples_of_tiny_wan_equal_the_stock_pipelines_latents() -> None:
    backbone = load_backbone("bundled:tiny_wan", device="cpu", precision="fp32")
    # In fp32 rounding alone moves UniPC's latents by 3e-4.
    backbone.network.double()
    backbone.dtype = torch.float64
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    start = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    settings = replace(SETTINGS, sampler="unipc")
    ours = sample_latents(backbone, backbone.embed([CAPTION]), backbone.embed([""]), start, settings)
    # diffusers' class takes no VAE of single frames; the rest of the folder is its own.
    pipeline = WanPipeline.from_pretrained(BUNDLED / "tiny_wan", vae=None, dtype=torch.float32)
    pipeline.transformer.double()
    call = {"num_frames": 61, "height": 128, "width": 128, "num_inference_steps": 4, "guidance_scale": 2.0}
    stock = pipeline(CAPTION, "", latents=start, output_type="latent", max_sequence_length=24, **call).frames
    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-4)


def test_all_bundled_files_together_stay_under_40_mb() -> None:
    files = [file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()]
    assert sum(files) < 40_000_000
    assert max(files) < 15_000_000
