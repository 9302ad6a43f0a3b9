"""The probe of DDIM inversion on a tiny random model: its rows, its strip, and what an interrupt leaves."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.jobs import probe_figures, probe_inversion, unfinished
from motionexp.jobs.probe_job import probe
from motionexp.probes.analysis.inversion_figures import METRICS
from motionexp.results.rows import read_rows
from tests.support.kept_results import cells, plain
from tests.support.squares import Squares
from tests.support.tiny_models import FRAMES, SIZE

PROBE = {"probe": "inversion", "probe_steps": 10, "references": 1}


def by_hand(weights: Path, prompt: str, steps: int) -> tuple[float, ...]:
    """PSNR to the video and to the VAE's, computed without the probe."""
    reference = Squares().read("one", FRAMES, SIZE, SIZE)
    backbone, frames = LatteBackbone.from_pretrained(weights), torch.from_numpy(reference.frames)[None]
    latents, caption = backbone.encode(frames), backbone.embed([reference.caption])
    if prompt == "empty":
        caption, _ = backbone.guidance_pair(caption, backbone.embed([""]))
    settings = SamplerSettings(steps, guidance_scale=1.0)
    start = invert(backbone, latents, caption, None, settings)[1000 - 1000 // steps]
    back = backbone.decode(sample_latents(backbone, caption, None, start, settings))
    errors = [
        (back - target.float()).square().mean((0, 2, 3, 4)) for target in (frames, backbone.decode(latents))
    ]
    return tuple((20 * torch.log10(255 / error.sqrt())).mean().item() for error in errors)


def test_rows_hold_the_psnr_of_both_prompts_and_an_interrupt_loses_neither(
    make, weights, monkeypatch, capsys
) -> None:
    # 1. Only the caption's rows, and then an interrupt while the empty prompt is sampled.
    cfg = make(**PROBE)
    assert len(probe(make(**PROBE, inversion_prompt="caption"))) == 2
    with monkeypatch.context() as patched:
        patched.setattr(probe_inversion, "sample_latents", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            probe(cfg)
    # 2. The inverted latents were kept, and the other prompt's rows are those of the same cell.
    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "invert", None)
        rows = probe(cfg)
    values = {(row.metric, row.strata["prompt"]): row.value for row in rows}
    assert len(values) == len(rows) == 4
    for prompt in ("empty", "caption"):
        measured = [values[name, prompt] for name in METRICS]
        assert measured == pytest.approx(by_hand(weights, prompt, 10), abs=0.05)
    row = rows[0]
    assert (row.suite, row.method, row.tau, row.precision) == ("squares", "inversion", 1000, "fp32")
    assert (row.settings["steps"], row.settings["guidance_scale"]) == (row.steps, 1) == (10, 1)
    # 3. What there is to see; nothing is left of the latents, and the same command measures nothing.
    (cell,) = cells(cfg)
    assert not (cell / "unfinished").exists()
    folder = cell.parent / "figures" / "inversion_10"
    assert {"tiny-one-strip.png", "psnr.svg", "README.md"} <= {path.name for path in folder.iterdir()}
    assert "caption" in capsys.readouterr().out
    monkeypatch.setattr(probe_inversion.InversionUnit, "run", None)
    assert plain(probe(cfg)) == plain(rows)
    assert len((cell / "rows.jsonl").read_text().splitlines()) == len(read_rows(cell)) == 4


def test_the_strip_shows_latents_and_what_the_model_makes_of_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = LatteBackbone.from_pretrained(weights)
    empty = backbone.embed([""])
    shape = backbone.latent_shape(FRAMES, SIZE, SIZE)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    inverted = invert(backbone, latents, empty, None, SamplerSettings(10, guidance_scale=1.0))
    drawn = Mock(return_value=[np.zeros((4, 4, 3), np.uint8)])
    monkeypatch.setattr(probe_figures, "side_by_side", drawn)
    probe_figures.strip(backbone, inverted, empty, "the empty prompt")
    rows, labels = drawn.call_args.args
    assert [label.split(",")[0] for label in labels] == [f"t = {t}" for t in range(900, -1, -100)]
    places = [(frame, predicted) for frame in (FRAMES // 4, 3 * FRAMES // 4) for predicted in (False, True)]
    for (frame, predicted), (heading, tiles) in zip(places, rows, strict=True):
        assert heading.startswith(f"frame {frame + 1} of {FRAMES}: {'x_0' if predicted else 'latents x_t'}")
        for t, tile in zip(range(900, -1, -100), tiles, strict=True):
            alpha_bar = backbone.schedule.alphas_cumprod[t]
            v = backbone.predict(inverted[t], t, empty)
            x0 = alpha_bar.sqrt() * inverted[t] - (1 - alpha_bar).sqrt() * v
            video = backbone.decode(x0 if predicted else inverted[t])[0].numpy()
            assert np.abs(tile[0].astype(int) - video[frame]).max() <= 1
