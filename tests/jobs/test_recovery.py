"""Interrupts, full disks, damaged files and other processes: nothing is lost."""

import errno
import json
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from motionexp.backbones.latte import LatteBackbone
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell
from motionexp.jobs.run import run
from motionexp.methods.training import Tuning
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import read_rows
from tests.support.kept_results import cells, plain, scores


@pytest.mark.parametrize("stage", ["fit", "sample", "score"])
def test_an_interrupt_is_recorded_and_resumed_to_the_same_rows(make, tmp_path, monkeypatch, stage):
    whole = run(make(output=str(tmp_path / "whole")))
    cfg = make()
    with monkeypatch.context() as patch:
        _interrupt(patch, stage)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "interrupted"
    again = run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert [scores(row) for row in again] == [scores(row) for row in whole]
    assert len(read_rows(cell)) == len(whole)


def _interrupt(patch, stage: str) -> None:
    """Ctrl-C in the second of the stage's steps."""
    steps = {"fit": (Tuning, "training_step"), "sample": (Cell, "save_sample"), "score": (Scorer, "score")}
    owner, name = steps[stage]
    original, calls = getattr(owner, name), []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    patch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("kind", ["fit.json", "adapter.safetensors", ".npz", "rows.jsonl"])
def test_a_full_disk_is_one_clear_line_and_the_same_command_goes_on(make, monkeypatch, kind):
    cfg = make()
    original = os.replace
    with monkeypatch.context() as patch:

        def full(source, target):
            if str(target).endswith(kind):
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            original(source, target)

        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match=rf"{re.escape(kind)}: .*No space left"):
            run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "failed"
    run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert {path.name for path in (cell / "adapter").iterdir()} == {"adapter.safetensors", "fit.json"}
    assert not list(cell.rglob(".*"))


@pytest.mark.parametrize(
    ("pattern", "missing"),
    [("rows.jsonl", ""), ("fit.json", ""), ("adapter.safetensors", "*.npz"), ("*.npz", "rows.jsonl")],
)
def test_a_damaged_file_is_named(make, pattern, missing):
    cfg = make()
    run(cfg)
    (cell,) = cells(cfg)
    for path in cell.rglob(missing or "nothing"):
        path.unlink()
    path = min(cell.rglob(pattern))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=re.escape(path.name)):
        run(cfg)


def test_a_cell_that_another_process_has_is_waited_for(make, monkeypatch):
    cfg = make()
    first = run(cfg)
    (cell,) = cells(cfg)
    entered, release, left = threading.Event(), threading.Event(), []

    def other() -> None:
        with Cell(cell).running({}, lambda: None):
            entered.set()
            release.wait(60)
            left.append(True)

    def told(console: Console, *objects: object, **named: object) -> None:
        if "another process works on" in str(objects[0]):
            assert not left
            release.set()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    monkeypatch.setattr(Console, "print", told)
    assert plain(run(cfg)) == plain(first)
    assert left
    thread.join()


def test_sanity_baselines_that_another_process_scored_meanwhile_are_not_scored_again(make, monkeypatch):
    scored = {"scoring": {"sanity_baselines": True}, "tau": 1000.0}
    cfg, locked = make(**scored), Cell.locked
    by_the_first = []

    @contextmanager
    def after_another_process(cell, on_wait):
        if cell.folder.name.startswith("anchors-") and not by_the_first:
            by_the_first.append([])
            by_the_first[0] = run(make(**scored, seed=1))
        with locked(cell, on_wait):
            yield

    monkeypatch.setattr(Cell, "locked", after_another_process)
    rows = run(cfg)
    baselines = [[row for row in of_job if row.sanity_baseline] for of_job in (rows, *by_the_first)]
    assert plain(baselines[0]) == plain(baselines[1])
    (file,) = (path for path in Path(cfg.output).rglob("rows.jsonl") if "anchors-" in path.parent.name)
    assert len(file.read_text().splitlines()) == len(baselines[0]) > 0


def test_a_killed_process_leaves_a_cell_that_goes_on(make, monkeypatch):
    class Killed(BaseException):
        """What nobody catches or records, like the end of the process."""

    cfg = make(train_steps=8, checkpoint_every=3)
    with monkeypatch.context() as patch:
        original = Tuning.training_step

        def killed(self, batch, batch_idx):
            if self.global_step == 5:
                raise Killed
            original(self, batch, batch_idx)

        patch.setattr(Tuning, "training_step", killed)
        patch.setattr(Cell, "_write_last_status", lambda self, status: None)
        with pytest.raises(Killed):
            run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "running"
    again = run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert json.loads((cell / "adapter" / "fit.json").read_text())["resumed_from"] == 3
    whole = run(make(train_steps=8, output=f"{cfg.output}-whole"))
    assert [scores(row) for row in again] == [scores(row) for row in whole]


def test_a_damaged_adapter_is_named_before_weights_are_loaded(make, tmp_path, monkeypatch):
    monkeypatch.setattr(LatteBackbone, "from_pretrained", None)
    (tmp_path / "adapter.safetensors").write_bytes(b"no adapter")
    for tau in (None, 300.0):
        with pytest.raises(InputError, match=r"adapter\.safetensors"):
            run(make(adapter=str(tmp_path), tau=tau))
