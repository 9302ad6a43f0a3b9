"""Figures of tables, drawn from made rows."""

import math
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from motionexp.config.schema import BUNDLED
from motionexp.results.comparisons import Comparison
from motionexp.results.figures import table_figures
from motionexp.results.figures.colours import MODELS
from motionexp.results.figures.drawing import FigureData, in_rows, log_snr_of
from motionexp.results.figures.style import DPI, WIDTH
from motionexp.results.figures.table_figures import CAPTIONS, main, write_figures
from motionexp.results.layout import Group
from motionexp.results.layout_file import read_layout
from tests.support.made_rows import RANK_LAYOUT, SUPPORT, rank_rows
from tests.support.published_lines import to_published


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experiments" / "mine.yaml"
    path.parent.mkdir()
    figures = (SUPPORT / "rank_figures.yaml").read_text(encoding="utf-8")
    path.write_text(RANK_LAYOUT + figures, encoding="utf-8")
    published = tmp_path / "results" / "shapes" / "mine.jsonl"
    published.parent.mkdir(parents=True)
    published.write_text(to_published(rank_rows()))
    return path


def test_rows_alone_give_the_same_files_again(path, tmp_path):
    assert main([str(path)]) == 0
    folder = tmp_path / "results" / "shapes" / "figures"
    names = {file.name for file in folder.iterdir()}
    assert names == {f"{name}{suffix}" for name in ("rank", "plane") for suffix in (".svg", ".pdf", ".png")}
    first = {name: (folder / name).read_bytes() for name in names}
    for name in ("rank.png", "plane.png"):
        pixels = np.asarray(Image.open(folder / name))
        assert pixels.shape[1] == round(WIDTH * DPI)
        assert 0.01 < (pixels[..., :3] < 200).mean() < 0.3, "neither empty nor full"
    assert main([str(path)]) == 0
    assert {name: (folder / name).read_bytes() for name in names} == first


@pytest.fixture
def layout(path):
    return read_layout(path)


@pytest.fixture
def draw(layout, tmp_path, monkeypatch):
    """Draws the layout's figures from rows; returns {file's name: Figure}, before they are saved."""

    def drawn(rows):
        figures = {}
        monkeypatch.setattr(
            table_figures, "save", lambda figure, file: figures.setdefault(file.name, figure) and []
        )
        list(write_figures(tmp_path, layout, Comparison(layout, rows)))
        return figures

    return drawn


def shown(figure):
    """The panels, without the second axes above them."""
    return [axis for axis in figure.axes if axis.get_visible()]


def test_curves_and_points_are_where_the_table_says(layout, draw):
    drawn = draw(rank_rows())
    data = FigureData(Comparison(layout, rank_rows()), layout.figures[0])
    group = layout.tables[0].groups[0]
    motion, background = drawn["rank"].axes[:2]
    expected = [
        [rank, data.interval("motion", name, group).mean] for rank, name in ((1, "one"), (16, "sixteen"))
    ]
    assert motion.lines[0].get_xydata() == pytest.approx(np.array(expected))
    assert motion.get_xscale() == "log"
    assert [text.get_text() for text in motion.get_xticklabels()] == ["1", "16"], "the points' own values"
    assert not motion.get_xticks(minor=True).size
    labels = tuple(layout.columns[key].label for key in ("motion", "nuisances"))
    assert (motion.get_ylabel(), background.get_ylabel()) == labels
    assert background.get_xlabel() == "rank = alpha"
    assert drawn["rank"].get_suptitle() == "Rank, motion-dominant, 6 references"
    plane = drawn["plane"].axes[0]
    assert plane.get_title() == "motion-dominant\n6 references"
    points = [line.get_xydata()[0] for line in plane.lines if len(line.get_xydata()) == 1]
    assert [tuple(point) for point in points] == [
        pytest.approx([data.interval(key, name, group).mean for key in ("nuisances", "motion")])
        for name in ("base", "one", "four", "sixteen")
    ]
    assert [text.get_text() for text in plane.texts] == ["base model", "rank 1", "rank 4", "rank 16"]


def test_with_scales_a_setting_is_a_curve_over_the_scales_that_were_run(layout, draw):
    half = [
        replace(row, adapter_scale=0.5, value=row.value / 2, settings={**row.settings, "adapter_scale": 0.5})
        for row in rank_rows()
        if row.method != "base"
    ]
    layout.figures[1].scales = [0.5, 1]
    data = FigureData(Comparison(layout, [*rank_rows(), *half]), layout.figures[1])
    group = layout.tables[0].groups[0]
    figure = draw([*rank_rows(), *half])["plane"]
    curves = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) > 1]
    assert len(curves) == 3, "the base model has one scale"
    for curve, name in zip(curves, ("one", "four", "sixteen"), strict=True):
        whole = [data.interval(key, name, group, "1").mean for key in ("nuisances", "motion")]
        assert curve == pytest.approx(np.array([[value / 2 for value in whole], whole]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["base model", "rank 1", "rank 4", "rank 16"]


def test_points_of_one_line_have_its_marker_and_those_of_another_another(layout, draw):
    layout.figures[1].lines = {"small": ["one", "four"], "large": ["sixteen"]}
    figure = draw(rank_rows())["plane"]
    markers = [line.get_marker() for line in figure.axes[0].lines if len(line.get_xydata()) == 1]
    assert markers[0] == markers[1] != markers[2]
    markers = [markers[0], markers[2]]
    assert [handle.get_marker() for handle in figure.legends[0].legend_handles] == markers


def test_all_panels_are_there_in_the_order_asked_for_and_no_title_touches_the_next(layout, draw):
    titles = [f"tiny_cogvideox, appearance-dominant, τ = {number}" for number in range(7)]
    layout.tables[0].groups = [Group(title, {"contrast": "motion-dominant"}) for title in titles]
    layout.figures[0].groups = [titles[number] for number in (3, 0, 1, 2)]
    layout.figures[0].lines = {"a": ["one"], "b": ["sixteen"]}
    layout.figures[1].lines = {"": ["base", "one"]}
    drawn = draw(rank_rows())
    planes = shown(drawn["plane"])
    shown_titles = [axis.get_title().replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ") for axis in planes]
    assert shown_titles == [f"{title} 6 references" for title in titles]
    drawn["plane"].draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in planes]
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= drawn["plane"].bbox.width for box in boxes)
    curves = shown(drawn["rank"])
    assert len(curves) == 8
    assert [axis.get_title().split("\n")[-2][-1] for axis in curves if axis.get_title()] == list("3012")
    assert len({axis.get_ylim() for axis in curves[:2] + curves[4:6]}) == 1, "motion is on one scale"
    assert curves[0].get_ylim() != curves[2].get_ylim()


def test_rows_of_panels_are_of_three_and_even():
    assert [list(map(len, in_rows(range(n)))) for n in (1, 3, 4, 5, 6, 7)] == [
        [1], [3], [2, 2], [3, 2], [3, 3], [3, 3, 1]
    ]  # fmt: skip


def test_log_snr_is_that_of_the_one_model_whose_rows_a_panel_has(layout, draw):
    layout.figures = [replace(layout.figures[2], lines={"": ["base", "four"]})]
    (above,) = draw(rank_rows())["nothing"].axes[0].child_axes
    assert above.get_xlabel() == "log-SNR (nats)"
    rows = [replace(row, model="tiny_unet3d") if row.tau == 1000 else row for row in rank_rows()]
    assert not draw(rows)["nothing"].axes[0].child_axes


def test_a_panel_says_where_its_settings_have_other_numbers_of_references(draw):
    rows = [row for row in rank_rows() if not (row.tau == 1000 and row.reference == "r0")]
    assert draw(rows)["plane"].axes[0].get_title() == "motion-dominant\n5 to 6 references"


def test_captions_stand_beside_their_pictures(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    folder = tmp_path / "results" / "shapes" / "figures"
    captions = (folder / CAPTIONS).read_text(encoding="utf-8")
    assert all((folder / name).is_file() for name in re.findall(r"!\[\w+\]\((.+?)\)", captions))
    assert captions.count("![") == 2
    assert "[mine.md](../mine.md)" in captions


def test_log_snr_is_that_of_the_bundled_models_own_schedule():
    table = log_snr_of("tiny_latte")
    assert (BUNDLED / "tiny_latte").is_dir()
    # A linear schedule from 1e-4 to 2e-2: alpha_bar at t = 0 is 1 - 1e-4.
    assert table[0] == pytest.approx(math.log((1 - 1e-4) / 1e-4), abs=1e-3)
    assert np.all(np.diff(table) < 0)
    assert log_snr_of("latte") is None


def outside(figure):
    """What a figure shows outside its panels or the page: data, and texts."""
    figure.draw_without_rendering()
    page, box = figure.bbox_inches.padded(0.02), figure.get_tightbbox()
    found = [] if page.contains(*box.min) and page.contains(*box.max) else [f"the page ends before {box}"]
    for axis in shown(figure):
        (x0, x1), (y0, y1) = sorted(axis.get_xlim()), sorted(axis.get_ylim())
        for line in axis.lines:
            if line.get_transform() == axis.transData:
                x, y = np.asarray(line.get_xydata(), float).T
                found += [f"{line}"] * bool(((x < x0) | (x > x1) | (y < y0) | (y > y1)).any())
    return found


def test_each_setting_is_written_at_its_point_beside_all_others_and_nothing_is_outside(layout, draw):
    layout.figures[1].names = {"one": "the first"}
    drawn = draw(rank_rows())
    figure = drawn["plane"]
    texts = figure.axes[0].texts
    assert "the first" in {text.get_text() for text in texts}
    boxes = [text.get_window_extent() for text in texts]
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    points = [
        line.get_window_extent() for line in figure.axes[0].lines if line.get_marker() not in ("None", "")
    ]
    centres = [((point.x0 + point.x1) / 2, (point.y0 + point.y1) / 2) for point in points]
    assert not any(box.contains(*centre) for box in boxes for centre in centres)
    assert all(figure.axes[0].bbox.padded(1).containsx(box.x0) for box in boxes)
    assert [outside(figure) for figure in drawn.values()] == [[]] * len(drawn)


def test_with_many_settings_each_has_a_row_and_each_model_its_colour(layout, draw):
    figure = replace(layout.figures[1], x="setting", columns=["motion", "nuisances"], names={"four": "4"})
    layout.figures = [figure]
    groups = [Group(name, {"model": "tiny_latte", "contrast": "motion-dominant"}) for name in ("a", "b")]
    layout.tables[0].groups = groups
    drawn = draw(rank_rows())["plane"]
    motion, leakage = drawn.axes
    assert [text.get_text() for text in motion.get_yticklabels()] == ["base model", "rank 1", "4", "rank 16"]
    assert motion.get_xlabel() == layout.columns["motion"].label
    assert leakage.get_xlabel() == layout.columns["nuisances"].label
    data = FigureData(Comparison(layout, rank_rows()), figure)
    expected = [data.interval("motion", name, groups[0]).mean for name in data.settings]
    first, second = (line for line in motion.lines if len(line.get_xdata()) == 4)
    assert first.get_xdata() == pytest.approx(expected)
    assert first.get_color() == second.get_color() == MODELS["tiny_latte"]["color"]
    assert second.get_markerfacecolor() == "white" != first.get_markerfacecolor()
    assert outside(drawn) == []


def test_letters_are_text_in_svg_and_pdf(path, tmp_path):
    assert main([str(path)]) == 0
    folder = tmp_path / "results" / "shapes" / "figures"
    assert ">base model</text>" in (folder / "plane.svg").read_text(encoding="utf-8")
    pdf = (folder / "plane.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "a TrueType font, whose letters can be searched"
    assert b"CreationDate" not in pdf
