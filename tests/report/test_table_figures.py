"""Figures of tables, drawn from made rows."""

import math

import numpy as np
import pytest
from PIL import Image

from motionexp.atlas.drawing import DPI, WIDTH
from motionexp.config import BUNDLED
from motionexp.layouts import read_layout
from motionexp.publish import to_published
from motionexp.report import table_figures
from motionexp.report.table_figures import interval_of, log_snr_of, main, write_figures
from motionexp.tables import Measured
from tests.test_comparisons import LAYOUT, rows

FIGURES = """
figures:
  - {file: results/shapes/figures/rank, title: Rank, x: rank, x_label: "rank = alpha", log: true,
     panels: mine, columns: [motion, nuisances], lines: {LoRA: [one, sixteen]}}
  - {file: results/shapes/figures/plane, title: Plane, x: nuisances, panels: mine, columns: [motion],
     lines: {"": [base, one, four, sixteen]}}
  - {file: results/shapes/figures/nothing, title: Nothing, x: tau, panels: mine,
     columns: [motion], lines: {a: []}}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experiments" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(LAYOUT + FIGURES, encoding="utf-8")
    published = tmp_path / "results" / "shapes" / "mine.jsonl"
    published.parent.mkdir(parents=True)
    published.write_text(to_published(rows()))
    return path


def test_rows_alone_give_the_same_files_again(path, tmp_path):
    assert main([str(path)]) == 0
    folder = tmp_path / "results" / "shapes" / "figures"
    names = {each.name for each in folder.iterdir()}
    assert names == {"rank.svg", "rank.png", "plane.svg", "plane.png"}
    kept = {name: (folder / name).read_bytes() for name in names}
    for name in ("rank.png", "plane.png"):
        pixels = np.asarray(Image.open(folder / name))
        assert pixels.shape[1] == round(WIDTH * DPI)
        assert 0.01 < (pixels[..., :3] < 200).mean() < 0.3, "neither empty nor full"
    assert main([str(path)]) == 0
    assert {name: (folder / name).read_bytes() for name in names} == kept


def test_curves_and_points_are_where_the_table_says(path, monkeypatch):
    layout = read_layout(path)
    measured, drawn = Measured(layout, rows()), {}
    monkeypatch.setattr(
        table_figures, "save", lambda figure, file: drawn.setdefault(file.name, figure) and []
    )
    list(write_figures(path.parents[1], layout, measured))
    group = layout.tables[0].groups[0]
    motion, ground = drawn["rank"].axes[:2]
    curve = motion.lines[0].get_xydata()
    expected = [
        [rank, interval_of(measured, "motion", name, group).mean]
        for rank, name in ((1, "one"), (16, "sixteen"))
    ]
    assert curve == pytest.approx(np.array(expected))
    assert motion.get_xscale() == "log"
    assert ground.get_xlabel() == "rank = alpha"
    points = [
        line.get_xydata()[0]
        for line in drawn["plane"].axes[0].lines
        if str(line.get_marker()).startswith("$")
    ]
    assert [y for _, y in points] == pytest.approx(
        [interval_of(measured, "motion", name, group).mean for name in ("base", "one", "four", "sixteen")]
    )
    key = [text.get_text() for text in drawn["plane"].legends[0].get_texts()]
    assert key == ["1  base", "2  1", "3  4", "4  16"]


def test_log_snr_is_that_of_the_bundled_models_own_schedule():
    table = log_snr_of("tiny_latte")
    assert (BUNDLED / "tiny_latte").is_dir()
    # A linear schedule from 1e-4 to 2e-2: alpha_bar at t = 0 is 1 - 1e-4.
    assert table[0] == pytest.approx(math.log((1 - 1e-4) / 1e-4), abs=1e-3)
    assert np.all(np.diff(table) < 0)
    assert log_snr_of("latte") is None
    assert log_snr_of("") is None
