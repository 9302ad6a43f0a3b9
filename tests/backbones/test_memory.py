"""What parts need of memory: loaded when used, given back, computed again, waiting elsewhere, rehearsed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.schedule import Window
from motionexp.jobs.memory_plan import MemoryTracker
from motionexp.methods.lora import LoRA
from tests.support.peaks import measured_peak
from tests.support.tiny_families import FAMILIES, Family
from tests.support.tiny_models import save_tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "latte")


def training_pass(family: Family, backbone: Backbone, videos: int) -> Callable[[], None]:
    """A forward and a backward pass, with a LoRA attached to the backbone."""
    LoRA(backbone, Window(0), rank=2).switch(True)
    columns = torch.ones(videos, family.captions[1], 16, device=backbone.device)
    conditioning = Conditioning(columns, pooled=torch.ones(videos, 16, device=backbone.device))
    noisy = family.noisy(videos).to(backbone.device)

    def work() -> None:
        backbone.predict(noisy, 900, conditioning).square().mean().backward()

    return work


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_rehearsal_tells_what_a_training_pass_takes(
    family: Family, folder: Path, checkpointing: bool
) -> None:
    backbones = [
        family.kind.from_pretrained(folder, device=device, checkpointing=checkpointing)
        for device in ("cpu", "meta")
    ]
    real, shapes = (training_pass(family, backbone, 16) for backbone in backbones)
    with MemoryTracker(CPU) as live:
        shapes()
    assert live.peak == pytest.approx(measured_peak(real), rel=0.15)


def gradients(family: Family, folder: Path | str, **settings: Any) -> list[Tensor]:
    """Those of a LoRA after a training pass of two videos."""
    backbone = family.kind.from_pretrained(folder, **settings)
    training_pass(family, backbone, 2)()
    return [value.grad for value in backbone.network.parameters() if value.grad is not None]


def assert_equal(plain: list[Tensor], recomputed: list[Tensor]) -> None:
    assert plain
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_checkpointing_keeps_less_and_changes_no_gradient(family: Family, folder: Path) -> None:
    held = []
    for checkpointing in (False, True):
        backbone = family.kind.from_pretrained(folder, device="meta", checkpointing=checkpointing)
        conditioning = Conditioning(torch.ones(1, family.captions[1], 16), pooled=torch.ones(1, 16))
        LoRA(backbone, Window(0)).switch(True)
        with MemoryTracker(CPU) as live:
            output = backbone.predict(family.noisy(1).to("meta"), 900, conditioning)
            held.append(live.now)
        assert output.requires_grad
    assert held[1] < 0.7 * held[0]
    assert_equal(*(gradients(family, folder, checkpointing=flag) for flag in (False, True)))


@pytest.mark.parametrize("name", ["latte", "unet3d"])  # as diffusers does it, and by our list of modules
def test_what_is_computed_again_takes_the_same_attention_kernel(name: str, tmp_path: Path) -> None:
    """In bf16 on a CPU that is not torch's own choice, see `plain_attention`."""
    folder = FAMILIES[name].save(tmp_path / "tiny")
    settings = {"dtype": torch.bfloat16}
    assert_equal(
        *(gradients(FAMILIES[name], folder, checkpointing=flag, **settings) for flag in (False, True))
    )


def test_a_rehearsal_encodes_embeds_and_decodes(family: Family, folder: Path) -> None:
    backbone = family.kind.from_pretrained(folder, device="meta")
    frames = torch.empty(1, *family.video, 3, dtype=torch.uint8, device="meta")
    assert backbone.text_encoder is not backbone.vae is not backbone.network  # they are there before
    with MemoryTracker(CPU) as live:
        conditioning = backbone.embed(["a cat"])
        latents = backbone.encode(frames)
        decoded = backbone.decode(latents)
        predicted = backbone.predict(latents, 900, conditioning)
    assert (latents.shape[1:], decoded.shape) == (family.latents, frames.shape)
    assert predicted.shape == latents.shape
    assert live.peak >= decoded.nbytes
    del conditioning, latents, decoded, predicted
    assert live.now < 1000


@pytest.mark.parametrize("name", ["cogvideox", "wan", "ltx", "hunyuan", "mochi"])
def test_a_vae_of_videos_works_in_tiles_with_less_at_a_time(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder, peaks = family.save(tmp_path / "tiny"), []
    frames, _, _ = family.video
    side = 768 if name == "ltx" else 384  # larger than a tile
    for tiling in (False, True):
        backbone = family.kind.from_pretrained(folder, device="meta", tiling=tiling)
        if tiling and name == "cogvideox":  # whose tiles are by its VAE's size, which is too small for any
            backbone.vae.enable_tiling(240, 360)
        video = torch.empty(1, frames, side, side, 3, dtype=torch.uint8, device="meta")
        with MemoryTracker(CPU) as live:
            decoded = backbone.decode(backbone.encode(video))
        assert decoded.shape == video.shape
        peaks.append(live.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_frames_of_a_vae_in_tiles_are_near_those_of_the_whole(tmp_path: Path) -> None:
    folder, decoded = FAMILIES["wan"].save(tmp_path / "tiny"), []
    latents = torch.randn(1, 4, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    for tiling in (False, True):
        backbone = FAMILIES["wan"].kind.from_pretrained(folder, tiling=tiling)
        if tiling:  # four tiles of 64 pixels, which overlap by 16
            backbone.vae.enable_tiling(64, 64, 48, 48)
        decoded.append(backbone.decode(latents).float())
    whole, tiled = decoded
    assert 0 < (whole - tiled).abs().mean() < 2  # of 255
    assert (whole - tiled).abs().mean() < 0.05 * whole.std()


def test_attention_counts_as_the_kernel_that_the_device_takes() -> None:
    def peak(device: torch.device, dtype: torch.dtype) -> int:
        query = torch.empty(1, 2, 256, 8, dtype=dtype, device="meta", requires_grad=True)
        with MemoryTracker(device) as live:
            torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
        return live.peak

    scores = 2 * 256 * 256 * 2
    assert peak(CPU, torch.bfloat16) > scores
    assert peak(torch.device("cuda"), torch.bfloat16) < scores / 4


def test_each_part_is_loaded_when_it_is_used(latte: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = LatteBackbone.from_pretrained(latte)
    loaded: list[str] = []
    load = backbone._load

    def listen(part: str) -> Any:
        loaded.append(part)
        return load(part)

    monkeypatch.setattr(backbone, "_load", listen)
    conditioning = backbone.embed(["a cat"])
    backbone.release_text_encoder()
    assert loaded == ["text_encoder"]
    latents = backbone.encode(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8))
    backbone.release_vae_encoder()
    assert loaded == ["text_encoder", "vae"]
    backbone.predict(latents, 5, conditioning)
    backbone.decode(latents)
    assert loaded == ["text_encoder", "vae", "transformer"]


def test_an_encoder_that_was_given_back_before_it_was_needed_is_never_read(latte: Path) -> None:
    (whole := LatteBackbone.from_pretrained(latte)).release_vae_encoder()
    assert whole.vae.encoder is None
    assert whole.decode(torch.zeros(1, 4, 4, 4, 4)).shape == (1, 4, 16, 16, 3)
    with pytest.raises(RuntimeError, match="release_vae_encoder"):
        whole.encode(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8))


def test_network_and_vae_send_each_other_to_main_memory(latte: Path) -> None:
    """Where they go shows on a GPU alone: here, that accelerate's hooks are there, and change no result."""
    backbone, plain = (LatteBackbone.from_pretrained(latte, offload=offload) for offload in ("model", "none"))
    conditioning = plain.embed(["a cat"])
    latents = backbone.encode(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8))
    predicted = backbone.predict(latents, 5, conditioning)
    assert torch.equal(backbone.decode(latents), plain.decode(latents))
    assert torch.equal(predicted, plain.predict(latents, 5, conditioning))
    network, vae = backbone.network._hf_hook, backbone.vae._hf_hook
    assert network.prev_module_hook.model is backbone.vae
    assert vae.prev_module_hook.model is backbone.network


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_does_not_compute_waits_in_main_memory(latte: Path) -> None:
    backbone = LatteBackbone.from_pretrained(latte, device="cuda", offload="model")
    conditioning = backbone.embed(["a cat"])
    latents = backbone.encode(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8))
    LoRA(backbone, Window(0)).switch(True)
    backbone.predict(latents, 5, conditioning).sum().backward()
    assert {weight.device.type for weight in backbone.network.parameters()} == {"cuda"}
    assert {weight.device.type for weight in backbone.vae.parameters()} == {"cpu"}
    backbone.decode(latents)
    assert {weight.device.type for weight in backbone.network.parameters()} == {"cpu"}
    assert {weight.device.type for weight in backbone.vae.parameters()} == {"cuda"}
