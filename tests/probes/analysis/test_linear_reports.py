"""The linear probe's tables and figures of published rows."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from motionexp.errors import InputError
from motionexp.probes.analysis import linear_figures, linear_tables
from motionexp.probes.analysis import rows as analysis_rows
from motionexp.probes.analysis.linear_rows import (
    APPEARANCE,
    BLOCKS,
    OBSERVER,
    TARGETS,
    TIMESTEPS,
    X_T,
    X_T_CLEAN,
    read_accuracies,
)
from motionexp.results.figures.style import SETTINGS, WIDTH
from motionexp.results.formats import to_markdown
from motionexp.results.intervals import mean_interval, resampled_weights
from motionexp.results.log_snr import log_snr_tables
from motionexp.results.publish import publish
from motionexp.results.published import read_published
from motionexp.results.rows import append_rows
from motionexp.results.tables import with_dirty_note
from tests.support.made_linear import GROUPS, share
from tests.support.made_linear import linear_rows as made_rows

ROOT = Path(__file__).parents[3]
KEY = ("tiny_latte", "motion-dominant")
# What a job of 20 groups leaves: 24 videos to train on, 10 to test and a pair in each.
PUBLISHED = {"train": "480", "test": "200", "pairs": "20", "draws": "1"}


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch):
    monkeypatch.setattr(
        analysis_rows, "resampled_weights", lambda references: resampled_weights(references)[:200]
    )


class TestAccuracies:
    def test_curves_are_means_over_groups_with_their_intervals(self):
        (accuracy,) = read_accuracies(made_rows()).values()
        at = TIMESTEPS.index(600)
        values = [share(X_T_CLEAN, "shape", 600, group) for group in range(GROUPS)]
        result = analysis_rows.interval(accuracy.draws(X_T_CLEAN, "shape")[:, at], 60, GROUPS)
        expected = mean_interval(values, range(GROUPS))
        assert (result.mean, result.clusters) == (pytest.approx(expected.mean), GROUPS)
        assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.01)
        appearance = np.mean([accuracy.draws(X_T, name)[:, at] for name in APPEARANCE], axis=0)
        assert accuracy.appearance(X_T)[:, at] == pytest.approx(appearance)

    def test_rows_of_two_runs_are_refused(self):
        with pytest.raises(InputError, match="motion from ideal observer at t = 0"):
            read_accuracies([*made_rows(), *made_rows()])

    def test_the_onset_is_the_noisiest_timestep_at_the_level(self):
        timesteps = np.array([0, 100, 200, 999])
        curves = np.array([[1, 0.9, 0.7, 0.5], [0.7] * 4, [1, 1, 1, 0.9], [1, 0.7, 0.9, 0.5]])
        fine = np.arange(0, 999.01, 0.1)
        slow = []
        for curve in curves:
            above = fine[np.interp(fine, timesteps, curve) >= 0.8]
            slow.append(above.max() if len(above) else np.nan)
        assert linear_tables.onset(curves, timesteps, 0.8) == pytest.approx(slow, abs=0.11, nan_ok=True)


class TestTables:
    def test_they_say_what_is_read_at_the_paper_s_timestep_and_from_when_on(self):
        files = linear_tables.tables(made_rows())
        paper, in_t, in_log_snr = files[""]
        line = _line(paper, X_T_CLEAN)
        means = {cell.column: cell.interval.mean for cell in line.cells}
        groups = range(GROUPS)
        centre = {name: np.mean([share(X_T_CLEAN, name, 600, group) for group in groups]) for name in TARGETS}
        appearance = np.mean([centre[name] for name in APPEARANCE])
        minus = centre["motion"] - appearance
        centre |= {"mean of appearance": appearance, "motion minus appearance": minus}
        assert means == pytest.approx(centre)
        assert line.n == f"60 ({GROUPS})"
        onsets = {cell.column: cell.interval for cell in _line(in_t, X_T_CLEAN).cells}
        # 1.5 - t / 900 is 0.84 at t = 594.
        assert onsets["motion"].mean == pytest.approx(594)
        assert onsets["motion"].low < 594 < onsets["motion"].high
        table = log_snr_tables(made_rows())["tiny_latte"]
        (motion, *_) = _line(in_log_snr, X_T_CLEAN).cells
        assert motion.interval.mean == pytest.approx(np.interp(594, np.arange(1001), table), abs=1e-6)
        every, all_classes = files["-all"]
        assert [len(block.lines) for block in every.blocks] == [len(TIMESTEPS)] * 6
        assert len(all_classes.blocks) == 5
        assert "early block blocks.0" in to_markdown(paper)

    def test_the_commands_write_files_of_published_rows(self, tmp_path, monkeypatch, capsys):
        _publish(tmp_path, monkeypatch)
        assert linear_tables.main([]) == linear_figures.main([]) == 0
        tables = {f"results/shapes/linear-probe{n}{s}" for n in ("", "-all") for s in (".md", ".tex", ".csv")}
        drawn = {"motion-and-appearance", "tiny_latte-motion-dominant"}
        figures = {f"results/shapes/linear-probe/{n}{s}" for n in drawn for s in (".svg", ".pdf", ".png")}
        written = set(capsys.readouterr().out.split())
        assert written == {*tables, *figures, "results/shapes/linear-probe/README.md"}
        assert all(Path(name).is_file() for name in written)
        # Without published rows nothing is written; rows that are named must be published.
        (tmp_path / "results" / "shapes" / "linear-probe.parquet").unlink()
        assert linear_tables.main([]) == linear_figures.main([]) == 0
        assert capsys.readouterr().out == ""
        assert linear_tables.main(["experiments/linear-probe.yaml"]) == 2
        assert "linear-probe.parquet" in capsys.readouterr().err

    def test_the_published_tables_are_those_of_the_published_rows(self, monkeypatch):
        monkeypatch.undo()
        file = ROOT / "results" / "shapes" / "linear-probe.parquet"
        rows = read_published(file)
        for name, tables in linear_tables.tables(rows).items():
            text = file.with_name(f"linear-probe{name}.md").read_text(encoding="utf-8")
            assert text == "\n".join(map(to_markdown, with_dirty_note(tables, rows)))


class TestFigures:
    def test_they_are_readable_in_print_and_their_captions_say_n(self):
        rows = made_rows(("tiny_latte", "tiny_unet3d"))
        with matplotlib.rc_context(SETTINGS):
            figures = linear_figures.figures(read_accuracies(rows), log_snr_tables(rows))
            drawn = {name: (figure, caption) for name, figure, caption in figures}
        assert len(drawn) == 3
        for name, (figure, caption) in drawn.items():
            texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
            assert min(text.get_fontsize() for text in texts) >= 8, name
            assert figure.get_figwidth() == WIDTH <= 7
            assert f"60 test videos in {GROUPS} groups" in caption
        attributes, _ = drawn["tiny_latte-motion-dominant"]
        assert [axis.get_title() for axis in attributes.axes] == [*TARGETS, ""]
        names = [text.get_text() for text in attributes.axes[-1].get_legend().get_texts()]
        assert names == [OBSERVER, X_T_CLEAN, X_T, *BLOCKS]
        lines = attributes.axes[0].lines
        styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
        assert len(styles) == 1 + len(names)


def _line(table, features):
    return next(line for line in table.blocks[0].lines if line.labels == [features])


def _publish(root, monkeypatch):
    """Rows of the default numbers of videos are published, rows of other numbers are not."""
    (root / "experiments").mkdir()
    layout = root / linear_tables.EXPERIMENT
    layout.write_text((ROOT / linear_tables.EXPERIMENT).read_text())
    rows = [replace(row, strata=row.strata | PUBLISHED) for row in made_rows()]
    fewer = [replace(row, strata=row.strata | {"train": "68"}) for row in rows]
    append_rows(root / "outputs" / "rows.jsonl", [*rows, *fewer])
    assert publish(layout, root / "outputs")[1] == len(rows)
    monkeypatch.chdir(root)
