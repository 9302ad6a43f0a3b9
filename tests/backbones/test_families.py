"""What the families of backbones have in common, against diffusers' parts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline, DiffusionPipeline, LattePipeline, TextToVideoSDPipeline
from torch import Tensor

from motionexp.backbones import image_vae, load_backbone
from motionexp.backbones.base import Backbone, Conditioning
from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config import InputError
from tests.tiny_cogvideox import TEXT_TOKENS, save_tiny_cogvideox
from tests.tiny_models import save_tiny_pipeline, save_tiny_unet3d

CAPTIONS = ["a cat", "A Red Ball"]


@dataclass(frozen=True)
class Family:
    """Of a tiny model: how it is made, its classes, and what it takes.

    Attributes:
        video: frames, height, width. latents: of such a video.
        captions: columns of a short caption and of the longest.
    """

    save: Callable[[Path], Path]
    kind: type[PipelineBackbone]
    pipeline: type[DiffusionPipeline]
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
FAMILIES = {
    "latte": Family(save_tiny_pipeline, LatteBackbone, LattePipeline, *SMALL, (3, 120)),
    "unet3d": Family(save_tiny_unet3d, UNet3DBackbone, TextToVideoSDPipeline, *SMALL, (3, 20)),
    "cogvideox": Family(partial(save_tiny_cogvideox, rotary=False), *COGVIDEOX),
    "cogvideox-rotary": Family(partial(save_tiny_cogvideox, rotary=True), *COGVIDEOX),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> Backbone:
    return family.kind.from_pretrained(folder, name="tiny")


@pytest.fixture(scope="module")
def pipeline(family: Family, folder: Path) -> DiffusionPipeline:
    return family.pipeline.from_pretrained(folder, local_files_only=True)


def test_load_backbone_finds_the_family(family: Family, backbone: Backbone, folder: Path) -> None:
    again = load_backbone(folder, device="cpu", precision="bf16", fps=6)
    assert type(again) is family.kind
    assert (again.name, again.fps, again.dtype) == ("tiny", 6, torch.bfloat16)
    assert again.weights_hash == backbone.weights_hash


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(
        InputError, match="a FluxPipeline cannot be used; what can: LattePipeline, TextToVideo"
    ):
        load_backbone(tmp_path)


def test_encode_takes_the_posteriors_mode(
    family: Family, backbone: Backbone, pipeline: DiffusionPipeline
) -> None:
    latents = backbone.encode(family.frames)
    assert latents.shape == (2, *family.latents)
    vae = pipeline.vae
    for video, pixels in enumerate(family.frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1):
        # A 3D VAE takes a video, one of images a batch of frames.
        batch = pixels[None] if vae.config.get("temporal_compression_ratio") else pixels.transpose(0, 1)
        with torch.no_grad():
            mode = vae.encode(batch).latent_dist.mean * vae.config.scaling_factor
        wanted = mode[0] if len(mode) == 1 else mode.transpose(0, 1)
        torch.testing.assert_close(latents[video], wanted, rtol=1e-4, atol=1e-5)


def test_decode_equals_the_pipelines(
    family: Family, backbone: Backbone, pipeline: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = family.noisy(2) * 3
    with torch.no_grad():
        length = {"video_length": family.video[0]} if isinstance(pipeline, LattePipeline) else {}
        given = latents.transpose(1, 2) if isinstance(pipeline, CogVideoXPipeline) else latents
        video = pipeline.decode_latents(given, **length)
        wanted = pipeline.video_processor.postprocess_video(video, output_type="np")
    frames = backbone.decode(latents)
    assert frames.shape == (2, *family.video, 3)
    # Half a level of rounding, and what a batch of another size adds to it.
    assert (frames / 255 - torch.from_numpy(wanted)).abs().max() < 0.51 / 255
    assert frames.float().std() > 10
    assert (backbone.decode(latents[1:]).int() - frames[1:].int()).abs().max() <= 1
    monkeypatch.setattr(image_vae, "PIXELS_PER_CALL", 1)
    assert (backbone.decode(latents).int() - frames.int()).abs().max() <= 1
    assert backbone.encode(frames).shape == latents.shape


def test_gradients_reach_what_is_trained(family: Family, backbone: Backbone) -> None:
    x_t = family.noisy(1).requires_grad_()
    backbone.predict(x_t, 500, backbone.embed(CAPTIONS[:1])).sum().backward()
    assert x_t.grad is not None
    assert x_t.grad.abs().max() > 0


def test_half_precision_stays_inside(family: Family, folder: Path, backbone: Backbone) -> None:
    half = family.kind.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.vae.dtype == torch.float32
    x_t = family.noisy(2)
    with torch.no_grad():
        output = half.predict(x_t, 500, half.embed(CAPTIONS))
        wanted = backbone.predict(x_t, 500, backbone.embed(CAPTIONS))
    assert output.dtype == torch.float32
    assert (output - wanted).norm() < 0.05 * wanted.norm()
    assert half.encode(torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)).dtype == torch.float32


def test_what_was_released_says_so(family: Family, folder: Path) -> None:
    backbone = family.kind.from_pretrained(folder)
    conditioning = backbone.embed(CAPTIONS[:1])
    frames = torch.zeros(1, *family.video, 3, dtype=torch.uint8)
    latents = backbone.encode(frames)
    backbone.release_text_encoder()
    backbone.release_vae_encoder()
    with pytest.raises(RuntimeError, match="release_text_encoder"):
        backbone.embed(CAPTIONS)
    with pytest.raises(RuntimeError, match="release_vae_encoder"):
        backbone.encode(frames)
    assert backbone.decode(latents).shape == frames.shape
    assert backbone.predict(latents, 5, conditioning).shape == latents.shape
    assert backbone.check_captions(CAPTIONS) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("short", [False, True])
def test_predict_bytes_bounds_what_a_prediction_takes(
    family: Family, folder: Path, dtype: torch.dtype, short: bool
) -> None:
    backbone = family.kind.from_pretrained(folder, dtype=dtype)
    x_t = family.noisy(8)
    conditioning = Conditioning(torch.zeros(8, family.captions[0 if short else 1], 16))
    estimate = 8 * backbone.predict_bytes(family.latents)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        backbone.predict(x_t, 500, conditioning)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert peak < 1.1 * estimate
    assert peak > estimate * (0.05 if short else 0.4)
