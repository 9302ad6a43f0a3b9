"""A failed cell does not stop the other cells; a table of failures ends the job or the sweep."""

import errno
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from rich.console import Console

from motionexp.data.base import Reference
from motionexp.errors import InputError
from motionexp.jobs import failures as failures_module
from motionexp.jobs import job, together
from motionexp.jobs import probe_job as probes
from motionexp.jobs.cell import Cell
from motionexp.jobs.failures import LOG_FILE, CellsFailed, Failure, failures, print_failures
from motionexp.jobs.probe_units import Work
from motionexp.jobs.run import run
from motionexp.metrics.scorer import Scorer
from tests.jobs.test_batches import limit
from tests.support.kept_results import plain
from tests.support.stub_jobs import run as command


@pytest.fixture
def scored(monkeypatch) -> Counter[str]:
    """Counts the scored videos of each reference; those of a reference in `failing` fail."""
    counts: Counter[str] = Counter()
    original = Scorer.score

    def score(self, frames, reference: Reference, *more):
        counts[reference.name] += 1
        if reference.name in failing:
            raise failing[reference.name]
        return original(self, frames, reference, *more)

    failing: dict[str, BaseException] = {}
    monkeypatch.setattr(Scorer, "score", score)
    counts.failing = failing
    return counts


def test_a_failed_cell_does_not_stop_the_others_and_alone_runs_again(make, scored, tmp_path, capsys):
    whole = run(make(references=3, output=str(tmp_path / "whole")))
    cfg = make(references=3)
    scored.failing["two"] = ZeroDivisionError("no\nluck")
    scored.clear()
    with pytest.raises(CellsFailed) as caught:
        run(cfg)
    assert scored == {"one": 2, "two": 1, "three": 2}
    (failure,) = caught.value.failures
    folder = Path(failure.cell)
    assert (failure.reference, failure.error) == ("two", "ZeroDivisionError: no luck")
    assert "Traceback" in Path(failure.log).read_text()
    assert "two" in capsys.readouterr().err
    # What the status tells gives the same table, also of a folder that was copied elsewhere.
    assert failures(path.parent for path in tmp_path.rglob("status.json")) == [failure]
    status = json.loads((folder / "status.json").read_text())
    assert {"state": "failed", "error": failure.error, "log": LOG_FILE}.items() <= status.items()
    assert {"since", "host", "pid"} <= status.keys()
    # The same command again.
    scored.failing.clear()
    scored.clear()
    assert [row.value for row in run(cfg)] == [row.value for row in whole]
    assert scored == {"two": 2}
    assert not (folder / LOG_FILE).exists()
    assert Cell(folder).status()["state"] == "done"


def test_what_every_cell_would_meet_stops_the_job_at_once(make, scored, monkeypatch):
    for number, (error, raised) in enumerate(
        [
            (OSError(errno.ENOSPC, "No space left on device", "rows"), InputError),
            (OSError(errno.EMFILE, "Too many open files", "rows"), InputError),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ]
    ):
        scored.failing["one"] = error
        scored.clear()
        with pytest.raises(raised):
            run(make(references=3, output=f"{make().output}-{number}"))
        assert scored == {"one": 1}


def test_cells_that_are_trained_together_fail_together_once(make, monkeypatch):
    calls = []

    def fit(*arguments, **named):
        calls.append(1)
        raise FloatingPointError("the loss is nan")

    cfg = make(references=3, train_together=2)
    with monkeypatch.context() as patch:
        patch.setattr(together, "fit", fit)
        patch.setattr(job, "fit", fit)
        with pytest.raises(CellsFailed, match="3 of 3"):
            run(cfg)
    assert len(calls) == 2  # the pair, and the third
    states = [Cell(path.parent).status() for path in Path(cfg.output).rglob("status.json")]
    assert [status["error"] for status in states] == ["the loss is nan"] * 3
    assert len(run(cfg)) == 3 * 2 * 2


def test_a_failed_unit_of_a_probe_does_not_stop_the_others(tmp_path, monkeypatch):
    ran = []

    def unit(name: str):
        def run(job, progress):
            ran.append(name)
            if name == "two":
                raise FloatingPointError("not finite")

        folder = tmp_path / name
        folder.mkdir()
        work = Work(1, 1)
        about = {"name": name, "cell": Cell(folder), "captions": [""], "work": work, "is_finished": False}
        return SimpleNamespace(**about, run=run, references=lambda: [None])

    probe_job = MagicMock()
    probe_job.plan.row_settings = {"probe": "linear_probe"}
    probe_job.holding = lambda cell, about: cell.running(about, lambda: None)
    monkeypatch.setattr(probes, "forward_seconds", lambda *arguments, **named: 1.0)
    with pytest.raises(CellsFailed, match="1 of 3") as caught:
        probes.run_units(probe_job, [unit("one"), unit("two"), unit("three")])
    assert ran == ["one", "two", "three"]
    assert [failure.reference for failure in caught.value.failures] == ["two"]
    assert failures(sorted(tmp_path.iterdir()))[0].error == "not finite"


def test_out_of_memory_says_what_to_set_or_halves_the_batch_under_other_ids(make, monkeypatch):
    """Pairs do not fit into the memory of a made training, nor do two videos into that of the sampling."""
    sizes: dict[str, list[int]] = {"trained": [], "sampled": []}
    sample = job.sample

    def fit(*arguments, **named):
        sizes["trained"].append(2)
        torch.empty(1 << 55)

    def sampled(*arguments, at_once, **named):
        sizes["sampled"].append(at_once)
        if at_once > 1:
            torch.empty(1 << 55)
        return sample(*arguments, at_once=at_once, **named)

    monkeypatch.setattr(together, "fit", fit)
    monkeypatch.setattr(job, "sample", sampled)
    batches = {"references": 2, "train_together": 2, "memory_limit": limit(make, 2)}
    with pytest.raises(CellsFailed) as caught:
        run(make(**batches))
    assert all("train_together=" in failure.error for failure in caught.value.failures)
    assert sizes == {"trained": [2], "sampled": []}
    rows = run(make(**batches, retry="smaller_batch"))
    assert sizes == {"trained": [2, 2], "sampled": [2, 2, 1, 1]}
    # They are the cells of a job that asks for the smaller batch, and nothing is left to do.
    assert plain(rows) == plain(run(make(references=2, memory_limit=batches["memory_limit"] / 2)))
    assert plain(rows) == plain(run(make(**batches, retry="smaller_batch")))
    assert sizes == {"trained": [2, 2], "sampled": [2, 2, 1, 1]}
    assert failures(path.parent for path in Path(make().output).rglob("status.json")) == []


def test_a_sweep_goes_on_and_ends_with_one_table(base, jobs, capsys):
    cell = Failure("outputs/one", "the loss is nan", "outputs/one/error.log", "one")
    jobs.error = {0: CellsFailed([cell], 3), 300: MemoryError("try mode=low_memory")}
    assert command(["-m", *base, "tau=0,300,600"]) == 1
    assert [cfg.tau for cfg in jobs.ran] == [0, 300, 600]
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| outputs/one", "| job tau=300"]
    assert cell.log in lines[2]
    assert "2 failed" in printed.err.splitlines()[-1]


def test_a_failed_line_of_an_experiment_does_not_stop_its_next_line(base, jobs, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "question: Which?\ncost: an hour\nrows: ''\nselect: {}\nsettings: {}\ntables: []\n"
        "sweep: [model=tiny_latte tau=0, model=tiny_latte tau=300]\n"
    )
    jobs.error = {0: FloatingPointError("the loss is nan")}
    assert command([f"experiment={path}", base[-1]]) == 1
    assert [cfg.tau for cfg in jobs.ran] == [0, 300]
    assert "| job" in capsys.readouterr().out


def test_a_damaged_status_and_a_long_error_are_lines_of_the_table(tmp_path, capsys):
    (tmp_path / "status.json").write_text("{")
    (failure,) = failures([tmp_path, tmp_path / "nowhere"])
    assert "status.json" in failure.error
    console = Console()
    print_failures(console, [Failure("a", "x" * 9999 + "\x1b[2J")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert len(shown) < 9999
    print_failures(console, [])
    assert capsys.readouterr().out == ""
    assert failures_module.failures_of(ValueError("no"), "job a=1") == [Failure("job a=1", "ValueError: no")]
