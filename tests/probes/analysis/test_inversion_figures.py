"""Published reconstructions: rows and pictures by the command, tables and the figure of rows."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from motionexp.data.videos import write_png
from motionexp.probes.analysis import inversion_figures
from motionexp.results import publish, tables
from motionexp.results.figures.style import SETTINGS
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows

ROOT = Path(__file__).parents[3]
LAYOUT = inversion_figures.EXPERIMENT
STEPS = (50, 200)
REFERENCES = read_layout(ROOT / LAYOUT).references.split(", ")
MODELS = ("tiny_cogvideox", "tiny_latte", "tiny_unet3d")


def psnr(model: str, prompt: str, steps: int, number: int) -> float:
    return 20 + 5 * MODELS.index(model) + 2 * (steps == 200) - 3 * (prompt == "caption") + number


def made_rows(models=MODELS) -> list[Row]:
    return [
        Row(
            metric=metric, metric_version=1, value=psnr(model, prompt, steps, number) + 4 * place,
            suite="shapes", reference=name, model=model, method="inversion", tau=1000.0, steps=steps,
            precision="fp32", weights_hash=model,
            settings={"guidance_scale": 1.0, "model": {"guidance_scale": 2.0}},  # none
            strata={"split": "benchmark", "prompt": prompt,
                    "contrast": "appearance-dominant" if name.startswith("poster") else "motion-dominant"},
        )
        for model in models
        for prompt in ("empty", "caption")
        for steps in STEPS
        for number, name in enumerate(REFERENCES)
        for place, metric in enumerate(inversion_figures.METRICS)
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Rows of all models, and the strips of two, below outputs/; the real layout."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / LAYOUT).write_text((ROOT / LAYOUT).read_text())
    append_rows(tmp_path / "outputs" / "rows.jsonl", made_rows())
    for name in read_layout(ROOT / LAYOUT).pictures[:2]:
        write_png(tmp_path / "outputs" / name, np.zeros((4, 9, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_and_pictures_are_published_and_made_into_a_table_and_a_figure(root, capsys):
    assert publish.main([str(LAYOUT), "outputs"]) == 0
    printed = capsys.readouterr()
    strips = [Path(name).name for name in read_layout(LAYOUT).pictures]
    (line,) = printed.err.splitlines()
    assert f"outputs/{read_layout(LAYOUT).pictures[2]}" in line
    assert tables.main([]) == inversion_figures.main([]) == 0
    folder = root / "results" / "shapes"
    names = {*strips[:2], "psnr.svg", "psnr.pdf", "psnr.png", "README.md"}
    assert {path.name for path in (folder / "inversion").iterdir()} == names
    original = root / "outputs" / read_layout(LAYOUT).pictures[0]
    assert (folder / "inversion" / strips[0]).read_bytes() == original.read_bytes()
    captions = (folder / "inversion" / "README.md").read_text()
    assert "motion-dominant, 5; appearance-dominant, 3" in captions
    assert all((f"]({name})" in captions) == (name in strips[:2]) for name in strips)
    motion_dominant = (folder / "inversion.md").read_text().split("### ")[1]
    lines = [line for line in motion_dominant.splitlines() if line.startswith("| tiny_unet3d | empty | 200")]
    # 20 + 10 + 2, and references 0 to 4.
    assert [line.split("|")[4].split()[0] for line in lines] == ["34.0"]
    assert motion_dominant.count("\n| tiny_") == 12


@pytest.mark.parametrize("models", [MODELS, MODELS[:1]])
def test_the_figure_shows_every_mean_and_is_readable_in_print(models):
    rows = made_rows(models)
    with matplotlib.rc_context(SETTINGS):
        drawn = inversion_figures.figure(rows)
    assert min(text.get_fontsize() for text in drawn.findobj(Text) if text.get_text().strip()) >= 8
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    prompts = ("empty prompt", "caption")
    assert legend == [f"{prompt}, {steps} steps" for prompt in prompts for steps in (50, 200)]
    axis = drawn.axes[0]
    shown = [line.get_ydata() for line in axis.lines if line.get_marker() in ("o", "s")]
    expected = [
        [np.mean([psnr(model, prompt, steps, number) for number in range(5)]) for model in models]
        for prompt in ("empty", "caption")
        for steps in STEPS
    ]
    assert np.allclose(shown, expected)
