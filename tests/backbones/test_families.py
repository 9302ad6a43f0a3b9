"""What the families of backbones have in common."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLLTXVideo, DiffusionPipeline, ModelMixin
from torch import Tensor, nn

from motionexp.backbones import hunyuan, image_vae, load_backbone
from motionexp.config import metrics
from motionexp.data.base import Edit, Reference
from motionexp.diffusion.backbone import Backbone, Conditioning, ProjectionKind
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.evaluation import SampleSettings, sample
from motionexp.jobs.job import encode
from motionexp.jobs.run import run
from motionexp.methods.base import OptimizerSettings, TrainingSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from tests.support.peaks import measured_peak
from tests.support.squares import SQUARE_METRICS
from tests.support.tiny_families import NEGATIVE, Family, noise
from tests.support.tiny_jobs import job_settings

CAPTIONS = ["a cat", "A Red Ball ", ""]
LAYERS = {"q": "to_q", "k": ("to_k", "add_k_proj"), "v": ("to_v", "add_v_proj"), "o": "to_out.0"}


@pytest.fixture(autouse=True)
def _guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that bf16 has: it rounds 6000, which random weights do not forgive."""
    monkeypatch.setattr(hunyuan.HunyuanBackbone, "embedded_guidance", 6.144)


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> Backbone:
    loaded = family.kind.from_pretrained(folder, name="tiny", fps=6)
    if loaded.any_size:
        loaded.frames, loaded.height, loaded.width = family.video
    return loaded


@pytest.fixture(scope="module")
def pipeline(family: Family, folder: Path) -> DiffusionPipeline:
    if family.pipeline is None:
        pytest.skip("diffusers has no pipeline for it, and it has no VAE")
    return family.load_pipeline(folder)


def test_load_backbone_finds_the_family(family: Family, backbone: Backbone, folder: Path) -> None:
    assert (backbone.name, backbone.source, backbone.revision) == ("tiny", str(folder), None)
    assert backbone.max_caption_tokens == family.captions[1]
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    again = load_backbone(folder, device="cpu", precision="bf16", fps=6)
    assert type(again) is family.kind
    assert (again.name, again.fps, again.dtype) == ("tiny", backbone.fps, torch.bfloat16)
    assert (again.frames, again.height, again.width) == family.trained
    assert again.weights_hash == backbone.weights_hash


def test_latent_shapes(family: Family, backbone: Backbone) -> None:
    assert backbone.latent_shape(*family.video) == family.latents
    frames, height, width = family.video
    assert backbone.latent_shape(1, height, width)[1] == 1
    uneven = {frames - 1, frames + 1} if frames != family.latents[1] else set()
    for wrong in {0, *uneven}:
        with pytest.raises(InputError, match=f"frames={wrong}: tiny"):
            backbone.latent_shape(wrong, height, width)
    for size in ((height + 1, width), (height, 0)):
        with pytest.raises(InputError, match=f"{size[0]} x {size[1]}"):
            backbone.latent_shape(frames, *size)
    with pytest.raises(InputError, match=f"{height + 1} x {width}"):
        backbone.encode(torch.zeros(1, frames, height + 1, width, 3, dtype=torch.uint8))


def test_a_caption_is_as_long_as_its_tokens(family: Family, backbone: Backbone, folder: Path) -> None:
    most = family.captions[1]
    longest = "a" * (most + 1 - len(backbone.tokenizer("a").input_ids))
    assert backbone.check_captions([longest, "", "b"]) == []
    assert backbone.embed([longest]).trimmed().embeds.shape[1] == most
    (problem,) = backbone.check_captions(["fine", longest + "a"])
    assert re.search(rf"\b{most + 1}\b.*\b{most}\b", problem)
    with pytest.raises(InputError, match=rf"\b{most + 1}\b"):
        backbone.embed([longest + "a"])
    assert family.kind.caption_problems(folder, [longest + "a"]) == [problem]


@torch.no_grad()
def test_rows_of_a_batch_do_not_touch_each_other(family: Family, backbone: Backbone) -> None:
    x_t, together, times = family.noisy(3), backbone.embed(CAPTIONS), (900.0, 400.0, 20.0)
    batch = backbone.predict(x_t, torch.tensor(times), together)
    for row, t in enumerate(times):
        for caption in (together[row], backbone.embed([CAPTIONS[row]])):
            alone = backbone.predict(x_t[row : row + 1], t, caption)
            torch.testing.assert_close(batch[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    exchanged = backbone.predict(x_t, torch.tensor(times), together[[1, 0, 2]])
    assert (exchanged - batch)[:2].abs().max() > 1e-3
    negatives = [
        backbone.guidance_pair(together, backbone.embed(rows))[0] for rows in ([NEGATIVE], [NEGATIVE] * 3)
    ]
    assert len(negatives[0]) == 3
    assert torch.equal(negatives[0].embeds, negatives[1].embeds)
    if together.mask is None:
        masked = Conditioning(together.embeds, torch.ones(together.embeds.shape[:2], dtype=torch.bool))
        with pytest.raises(ValueError, match="mask"):
            backbone.predict(x_t, 500, masked)


def test_projections_are_along_what_they_are_called_after(family: Family, folder: Path) -> None:
    backbone, heard = family.kind.from_pretrained(folder), defaultdict(set)
    for kind in get_args(ProjectionKind):
        if kind not in family.attentions:
            with pytest.raises(InputError, match=kind):
                backbone.projections(kind)
            continue
        names = backbone.projections(kind)
        assert list(names) == list(LAYERS)
        assert all(name.endswith(LAYERS[letter]) for letter in LAYERS for name in names[letter])
        layers = {name: backbone.network.get_submodule(name) for group in names.values() for name in group}
        assert all(isinstance(layer, nn.Linear) for layer in layers.values())
        assert len(set(names["k"])) == len(set(names["v"])) == family.attentions[kind][0]
        for name in names["k"]:
            layers[name].register_forward_hook(
                lambda _, args, __, kind=kind: heard[kind].add(args[0].shape[1])
            )
    with torch.no_grad():
        backbone.predict(noise((1, *family.sampled[-1])), 500, backbone.embed(["a"]))
    assert heard == {kind: lengths for kind, (_, lengths) in family.attentions.items()}


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(InputError, match=r"FluxPipeline.* LattePipeline, TextToVideo"):
        load_backbone(tmp_path)


def test_encode_takes_the_posteriors_mode(
    family: Family, backbone: Backbone, pipeline: DiffusionPipeline
) -> None:
    latents = backbone.encode(family.frames)
    assert latents.shape == (2, *family.latents)
    vae = pipeline.vae
    for video, pixels in enumerate(family.frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1):
        # A 3D VAE takes a video, one of images a batch of frames.
        batch = pixels.transpose(0, 1) if isinstance(vae, AutoencoderKL) else pixels[None]
        with torch.no_grad():
            mode = vae.encode(batch).latent_dist.mean
        mean, std = latents_scale(vae)
        expected = (mode[0] - mean) / std if len(mode) == 1 else mode.transpose(0, 1) / std
        torch.testing.assert_close(latents[video], expected, rtol=1e-4, atol=1e-5)


def latents_scale(vae: ModelMixin) -> tuple[Tensor | float, Tensor | float]:
    """What is taken from raw latents, and what they are divided by: numbers, or (C, 1, 1, 1)."""
    scale = vae.config.get("scaling_factor", 1.0)
    if isinstance(vae, AutoencoderKLLTXVideo):
        return vae.latents_mean[:, None, None, None], vae.latents_std[:, None, None, None] / scale
    if vae.config.get("latents_mean") is None:
        return 0.0, 1 / scale
    mean, std = (torch.tensor(vae.config[f"latents_{name}"])[:, None, None, None] for name in ("mean", "std"))
    return mean, std / scale


def test_decode_does_not_depend_on_the_batch(
    family: Family, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = family.noisy(2) * 3
    frames = backbone.decode(latents)
    assert frames.shape == (2, *family.video, 3)
    assert frames.float().std() > 10
    assert (backbone.decode(latents[1:]).int() - frames[1:].int()).abs().max() <= 1
    monkeypatch.setattr(image_vae, "PIXELS_PER_CALL", 1)
    assert (backbone.decode(latents).int() - frames.int()).abs().max() <= 1
    assert backbone.encode(frames).shape == latents.shape


def test_an_adapter_acts_in_its_window(family: Family, folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder, device="cpu", precision="fp32")
    backbone.frames, backbone.height, backbone.width = family.video
    edits = (Edit("object", "a blue star"), Edit("object", "a green star"))
    reference = Reference("ball", "made", family.frames[0].numpy(), 8, "a red star", edits)
    example = encode(backbone, reference)
    settings = SampleSettings(SamplerSettings(5, 2.0))
    base = list(sample(backbone, None, edits, settings))

    # Flow matching's steps crowd at the noisy end.
    low = backbone.schedule.timesteps(5)[2]
    method = LoRA(backbone, Window(low), rank=2)
    training = TrainingSettings(steps=3, optimizer=OptimizerSettings(learning_rate=0.1))
    fit(backbone, method, [example], training, tmp_path, progress=False)
    windowed = list(sample(backbone, method, edits, settings))
    method.window = Window(0)
    everywhere = list(sample(backbone, method, edits, settings))
    assert [video.adapter_steps for video in windowed] == [3, 3]
    for first, second in ((base, windowed), (windowed, everywhere)):
        assert first[0].frames.shape == (*family.video, 3)
        assert not np.array_equal(first[0].frames, second[0].frames)


def test_gradients_reach_what_is_trained(family: Family, backbone: Backbone) -> None:
    x_t = family.noisy(1).requires_grad_()
    backbone.predict(x_t, 500, backbone.embed(CAPTIONS[:1])).sum().backward()
    assert x_t.grad is not None
    assert x_t.grad.abs().max() > 0


def test_half_precision_stays_inside(family: Family, folder: Path, backbone: Backbone) -> None:
    half = family.kind.from_pretrained(folder, dtype=torch.bfloat16, fps=6)
    assert half.vae is None or half.vae.dtype == torch.float32
    x_t = family.noisy(2)
    with torch.no_grad():
        output = half.predict(x_t, 500, half.embed(CAPTIONS[:2]))
        exact = backbone.predict(x_t, 500, backbone.embed(CAPTIONS[:2]))
    assert output.dtype == torch.float32
    assert (output - exact).norm() < 0.05 * exact.norm()
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
    if backbone.vae is not None:
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
    assert backbone.network.dtype == dtype  # its weights are there before anything is counted
    x_t = family.noisy(8)
    columns = torch.zeros(8, family.captions[0 if short else 1], 16)
    conditioning = Conditioning(columns, pooled=torch.zeros(8, 16))
    estimate = 8 * backbone.predict_bytes(family.latents)
    with torch.no_grad():
        peak = measured_peak(lambda: backbone.predict(x_t, 500, conditioning))
    assert peak < 1.1 * estimate
    # The estimate is for the longest caption, beside which a small video is little.
    assert peak > estimate * (0.005 if short else 0.4)


def test_from_tuning_to_scores_and_back_to_noise(
    family: Family,
    folder: Path,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | SQUARE_METRICS)
    target = f"{family.kind.__module__}.{family.kind.__qualname__}"
    frame_range = [1, family.video[0]] if family.kind.any_size else None
    cfg = job_settings(target, folder, family.video, output=str(tmp_path), model={"frame_range": frame_range})
    rows = run(cfg)
    assert {(row.edit_caption, row.metric) for row in rows} >= {("one red", "brightness")}
    assert (Path(tmp_path) / "squares" / "tiny").exists()
    assert len(list(tmp_path.rglob("adapter.safetensors"))) == 1

    settings, caption = SamplerSettings(5, 1.0), backbone.embed(CAPTIONS[:1])
    inverted = invert(backbone, family.noisy(1), caption, None, settings)
    assert sorted(inverted, reverse=True) == backbone.schedule.timesteps(5)
    assert all(x_t.shape == (1, *family.latents) and x_t.isfinite().all() for x_t in inverted.values())
    back = sample_latents(backbone, caption, None, inverted[max(inverted)], settings)
    assert back.isfinite().all()
