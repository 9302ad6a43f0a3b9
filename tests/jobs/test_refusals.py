"""Sweeps of which every job is refused in its own process: one error, and nothing is left."""

import json
import shutil
from pathlib import Path

import pytest

from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError
from tests.support.stub_jobs import run

pytestmark = pytest.mark.usefixtures("quiet", "engine")
LAUNCHERS = ("basic", "joblib")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def errors_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def words_for(launcher: str, *words: str) -> list[str]:
    return ["-m", f"hydra/launcher={launcher}", *words] + ["hydra.launcher.tasks=2"] * (launcher != "basic")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_weights_that_have_vanished_since_the_check_leave_nothing(launcher, tmp_path, capsys):
    model, output = tmp_path / "model", tmp_path / "out"
    shutil.copytree(BUNDLED / "tiny_latte", model)
    (weights,) = (model / "transformer").glob("*.safetensors")
    weights.unlink()
    words = words_for(launcher, f"model.path={model}", "tau=0,300", "references=2", f"output={output}")
    assert run(words) == 2
    error = f"error: {model}/transformer has no .safetensors file"
    lines = errors_in(capsys.readouterr().err)
    assert lines[-1].startswith(error)
    assert len(lines) == (1 if launcher == "joblib" else 3)  # a job of this process has a line when it ends
    assert not output.exists()


def test_a_device_that_the_tasks_do_not_have_leaves_nothing(base, jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = words_for("joblib", *base, "tau=0,300", "references=2", "device=cuda")
    assert run(words) == 2
    (line,) = errors_in(capsys.readouterr().err)
    assert line.startswith("error: device=cuda: not on this machine")
    assert not jobs.ran
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_errors_of_all_jobs_are_one_line(launcher, base, jobs, tmp_path, capsys):
    jobs.error = {0: InputError("no such token"), 300: InputError("no such word")}
    assert run(words_for(launcher, *base, "tau=0,300", "references=2")) == 2
    assert errors_in(capsys.readouterr().err)[-1] == "error: no such token; no such word"
    assert not (tmp_path / "out").exists()


def test_a_sweep_with_results_stays_and_what_is_refused_waits_no_more(make, base, jobs, tmp_path, capsys):
    """A job that came to its cells has told the sweep where they are."""
    words, output = words_for("joblib", *base, "tau=0,300", "references=2"), tmp_path / "out"
    assert run(words) == 0
    (sweep,) = (output / "sweeps").iterdir()
    plan = json.loads((sweep / "plan.json").read_text())
    (sweep / "cells").mkdir()
    first = plan["cells"][0]
    about = [[first["reference"], 0, "shapes/tiny_latte/first"]]
    (sweep / "cells" / "a.json").write_text(json.dumps({"job": first["job"], "cells": about}))
    jobs.error = {0: InputError("no such token"), 300: InputError("no such token")}
    before = contents(output)
    capsys.readouterr()
    assert run(words) == 1
    shown = capsys.readouterr()
    assert len(errors_in(shown.err)) == 3  # a line for each task, and the sum
    assert "| task 000 |  | no such token |" in shown.out
    assert before.keys() <= contents(output).keys()
    assert run(["status", f"output={output}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 cells: 6 failed"
    # The same command plans them again.
    jobs.error = {}
    assert run(words) == 0
    capsys.readouterr()
    assert run(["status", f"output={output}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("6 cells: 6 waiting")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_refused_job_is_a_failure_of_a_sweep_that_ran(launcher, base, jobs, tmp_path, capsys):
    jobs.error = {300: InputError("no such token")}
    assert run(words_for(launcher, *base, "tau=0,300", "references=2")) == 1
    assert "the same command again" in errors_in(capsys.readouterr().err)[-1]


def test_a_defect_is_no_refusal(base, jobs, tmp_path, capsys):
    """Its log, which has the traceback, stays."""
    jobs.error = {0: RuntimeError("a defect"), 300: InputError("no such token")}
    assert run(words_for("joblib", *base, "tau=0,300", "references=2")) == 1
    logs = [*(tmp_path / "out" / "sweeps").glob("*/tasks/*.log")]
    assert len(logs) == 2
    assert all("RuntimeError: a defect" in log.read_text() for log in logs)
