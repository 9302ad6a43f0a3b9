"""The linear probe's rows, measured where they are missing, and its tables and figures of published rows."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from motionexp.data.shapes.render import render
from motionexp.errors import InputError
from motionexp.jobs.job import Job
from motionexp.probes.analysis import linear_figures, linear_rows, linear_tables
from motionexp.probes.analysis import rows as analysis_rows
from motionexp.probes.analysis.linear_rows import (
    APPEARANCE,
    BLOCKS,
    METRICS,
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
from motionexp.results.published import read_published, to_published
from motionexp.results.rows import append_rows
from motionexp.scripts import linear_probe
from tests.support.made_linear import GROUPS, share
from tests.support.made_linear import linear_rows as made_rows
from tests.support.tiny_models import SIZE

ROOT = Path(__file__).parents[2]
KEY = ("tiny_latte", "motion-dominant")
FEW = linear_probe.Options(train=12, test=4, pairs=2, draws=1)


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch):
    monkeypatch.setattr(
        analysis_rows, "resampled_weights", lambda references: resampled_weights(references)[:200]
    )


class TestRun:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        for module in (linear_probe, linear_rows):
            monkeypatch.setattr(module, "TIMESTEPS", (0, 600, 999))
        monkeypatch.setattr(linear_probe, "GROUPS", 2)

        def small(scene, frames, period=None):
            return render(scene, 16)[:frames, :: 64 // SIZE, :: 64 // SIZE]

        monkeypatch.setattr(linear_probe, "render", small)

    @pytest.fixture
    def job(self, overrides):
        """A job on a tiny random model."""
        return Job(linear_probe.settings_of(overrides), linear_probe.Console(quiet=True))

    def test_an_interrupted_run_continues_and_ends_with_the_rows_of_a_whole_one(
        self, job, monkeypatch, capsys
    ):
        tasks = partial(linear_probe.tasks_of, job, ["motion-dominant"], FEW)
        file, read_one = linear_probe.row_file(job, FEW), linear_probe.Task.read

        def until_interrupted(task, probe, distances, t, bar):
            if t == 999:
                raise KeyboardInterrupt
            return read_one(task, probe, distances, t, bar)

        with monkeypatch.context() as patched:
            patched.setattr(linear_probe.Task, "read", until_interrupted)
            with pytest.raises(KeyboardInterrupt):
                linear_probe.run(tasks())
        assert {row.strata["t"] for row in file.rows()} == {"0", "600"}
        with pytest.raises(InputError, match="t = 999"):
            read_accuracies(file.rows())
        assert [task.timesteps for task in tasks()] == [[999]]
        linear_probe.run(tasks())
        assert [task.videos for task in tasks()] == [0]
        rows = file.rows()
        file.path.unlink()
        linear_probe.run(tasks())
        assert file.rows() == rows
        linear_probe.show(file.path.parent, [*rows, *linear_probe.schedule_rows(job, steps=0)])
        assert "middle block" in capsys.readouterr().out
        assert (file.path.parent / "linear-probe-all.csv").is_file()
        assert (file.path.parent / "figures" / "tiny_latte-motion-dominant.svg").is_file()
        # What the rows hold, and which rows belong to another run.
        assert {METRICS[row.metric][1] for row in rows} == {OBSERVER, X_T_CLEAN, X_T, *BLOCKS[1:]}
        names = ["temporal_transformer_blocks.0", "temporal_transformer_blocks.1"]
        assert list(rows[0].settings["blocks"].values()) == names
        # A published line for each timestep and each group of test videos and of pairs.
        assert to_published(rows).count('{"sample"') == 3 * (2 + 2)
        assert linear_probe.row_file(job, replace(FEW, draws=2)).rows() == []
        job.backbone.weights_hash = "other"
        assert file.rows() == []

    def test_a_row_is_the_mean_of_its_group(self, job):
        task = linear_probe.Task(job, "motion-dominant", FEW, [600])
        probe = SimpleNamespace(blocks=["a", "b"])
        rows = list(task.rows(probe, 600, "accuracy: shape from x_t", torch.tensor([0.0, 1.0, 1.0, 1.0])))
        assert [(row.reference, row.value) for row in rows] == [("test 001-002", 0.5), ("test 003-004", 1.0)]


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--train", "10"], "--train 10: .* 68"),
            (["--test", "19"], "--test 19: .* 20"),
            (["stps=3"], "stps"),
            (["model=tiny_latte,latte"], "64 x 64"),
        ],
    )
    def test_wrong_settings_are_named_before_weights_are_loaded(
        self, arguments, words, capsys, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(linear_probe, "tasks_of", lambda *_: pytest.fail("it went on"))
        assert linear_probe.main([*arguments, f"output={tmp_path}"]) == 2
        assert re.search(words, capsys.readouterr().err)


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
        figures = {f"results/shapes/linear-probe/{n}{s}" for n in drawn for s in (".svg", ".png")}
        written = set(capsys.readouterr().out.split())
        assert written == {*tables, *figures, "results/shapes/linear-probe/README.md"}
        assert all(Path(name).is_file() for name in written)
        # Without published rows nothing is written; rows that are named must be published.
        (tmp_path / "results" / "shapes" / "linear-probe.jsonl").unlink()
        assert linear_tables.main([]) == linear_figures.main([]) == 0
        assert capsys.readouterr().out == ""
        assert linear_tables.main(["experiments/linear-probe.yaml"]) == 2
        assert "linear-probe.jsonl" in capsys.readouterr().err

    def test_the_published_tables_are_those_of_the_published_rows(self, monkeypatch):
        monkeypatch.undo()
        file = ROOT / "results" / "shapes" / "linear-probe.jsonl"
        for name, tables in linear_tables.tables(read_published(file)).items():
            text = file.with_name(f"linear-probe{name}.md").read_text(encoding="utf-8")
            assert text == "\n".join(map(to_markdown, tables))


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
    _, _, options = linear_probe.options_of([])
    rows = [replace(row, strata=row.strata | options.strata()) for row in made_rows()]
    fewer = [replace(row, strata=row.strata | {"train": "68"}) for row in rows]
    append_rows(root / "outputs" / "rows.jsonl", [*rows, *fewer])
    assert publish(layout, root / "outputs")[1] == len(rows)
    monkeypatch.chdir(root)
