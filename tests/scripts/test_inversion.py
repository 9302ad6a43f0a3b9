"""The inversion script, on a tiny random model and a clip."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.config.compose import load
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from motionexp.jobs import probe_figures
from motionexp.results.rows import read_rows
from motionexp.scripts import inversion, programs
from tests.scripts.conftest import CAPTION, VIDEO
from tests.support.tiny_models import FRAMES, SIZE, save_tiny_pipeline


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "STEPS", (2, 10))


def by_hand(weights: Path, prompt: str, steps: int) -> tuple[float, float]:
    """PSNR to the video and to the VAE's, computed without the script."""
    backbone, frames = LatteBackbone.from_pretrained(weights), torch.from_numpy(VIDEO)[None]
    latents, caption = backbone.encode(frames), backbone.embed([CAPTION])
    if prompt == "empty":
        caption, _ = backbone.guidance_pair(caption, backbone.embed([""]))
    settings = SamplerSettings(steps, guidance_scale=1.0)
    start = invert(backbone, latents, caption, None, settings)[1000 - 1000 // steps]
    back = backbone.decode(sample_latents(backbone, caption, None, start, settings))
    errors = [
        (back - target.float()).square().mean((0, 2, 3, 4)) for target in (frames, backbone.decode(latents))
    ]
    return tuple((20 * torch.log10(255 / error.sqrt())).mean().item() for error in errors)


def test_rows_hold_the_psnr_of_both_prompts_and_all_steps_and_are_not_measured_again(
    overrides: list[str],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert inversion.main(overrides) == 0
    folder = tmp_path / "out" / "inversion"
    rows = read_rows(folder / "rows.jsonl")
    values = {(row.metric, row.strata["prompt"], row.steps): row.value for row in rows}
    assert len(values) == len(rows) == 8
    for prompt in ("empty", "caption"):
        for steps in (2, 10):
            measured = [values[name, prompt, steps] for name in inversion.METRICS]
            assert measured == pytest.approx(by_hand(weights, prompt, steps), abs=0.05)
    row = rows[0]
    assert (row.suite, row.method, row.tau, row.precision) == ("clip", "inversion", 1000, "fp32")
    assert (row.settings["steps"], row.settings["guidance_scale"]) == (row.steps, 1)
    assert (folder / f"tiny_latte-{row.reference}-strip.png").stat().st_size > 1000
    assert "caption" in capsys.readouterr().out
    again = Mock(return_value=[])
    monkeypatch.setattr(inversion, "measure", again)
    assert inversion.run(inversion.settings_of(overrides)) == rows
    again.assert_not_called()
    second = save_tiny_pipeline(tmp_path / "second", seed=1)
    assert inversion.run(inversion.settings_of([*overrides, f"model.path={second}"])) == []
    again.assert_called_once()


def test_the_strip_shows_latents_and_what_the_model_makes_of_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = LatteBackbone.from_pretrained(weights)
    empty = backbone.embed([""])
    shape = backbone.latent_shape(FRAMES, SIZE, SIZE)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    inverted = invert(backbone, latents, empty, None, SamplerSettings(10, guidance_scale=1.0))
    drawn = Mock(return_value=[VIDEO[0]])
    monkeypatch.setattr(probe_figures, "side_by_side", drawn)
    probe_figures.strip(backbone, inverted, empty, "the empty prompt")
    rows, labels = drawn.call_args.args
    assert [label.split(",")[0] for label in labels] == [f"t = {t}" for t in range(0, 1000, 100)]
    places = [(frame, predicted) for frame in (FRAMES // 4, 3 * FRAMES // 4) for predicted in (False, True)]
    for (frame, predicted), (heading, tiles) in zip(places, rows, strict=True):
        assert heading.startswith(f"frame {frame + 1} of {FRAMES}: {'x_0' if predicted else 'latents x_t'}")
        for t, tile in zip(range(0, 1000, 100), tiles, strict=True):
            alpha_bar = backbone.schedule.alphas_cumprod[t]
            v = backbone.predict(inverted[t], t, empty)
            x0 = alpha_bar.sqrt() * inverted[t] - (1 - alpha_bar).sqrt() * v
            video = backbone.decode(x0 if predicted else inverted[t])[0].numpy()
            assert np.abs(tile[0].astype(int) - video[frame]).max() <= 1


def test_references_are_of_the_benchmark_unless_the_overrides_say_otherwise() -> None:
    cfg = inversion.settings_of([])
    assert cfg.data["split"] == "benchmark"
    assert [name.startswith("poster") for name in cfg.references] == [False] * 5 + [True] * 3
    assert inversion.settings_of(["references=2", "precision=bf16"]).references == 2
    assert inversion.settings_of(["data.split=benchmark"]).references is None
    with pytest.raises(InputError, match="nobody"):
        inversion.run(inversion.settings_of(["references=[nobody]"]))


def test_without_a_model_all_bundled_ones_that_are_there_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny_latte").mkdir()
    (tmp_path / "tiny_latte" / "model_index.json").touch()
    (tmp_path / "tiny_unet3d" / "vae").mkdir(parents=True)
    monkeypatch.setattr(programs, "BUNDLED", tmp_path)
    measured: list[str] = []
    monkeypatch.setattr(inversion, "run", lambda cfg: measured.append(cfg.model.name))
    monkeypatch.setattr(inversion, "print_rows", lambda rows: None)
    assert inversion.main([]) == 0
    assert measured == ["tiny_latte"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["model=tiny_cogvideox", "model=tiny_unet3d"]


def test_models_that_are_named_are_taken_in_turn_and_all_looked_at_first() -> None:
    named = programs.jobs_of(["steps=7", "model=latte,tiny_unet3d"], load)
    assert [(cfg.model.name, cfg.steps) for cfg in named] == [("latte", 7), ("tiny_unet3d", 7)]
    with pytest.raises(InputError, match="tiny_lattte"):
        programs.jobs_of(["model=tiny_latte,tiny_lattte"], load)
