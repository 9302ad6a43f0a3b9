"""Sweeps in processes of this machine, by joblib and by submitit (`make test-joblib`)."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from motionexp.jobs.status import read_sweeps
from tests.engines.sweeps import (
    ROOT,
    folder_of,
    has_begun,
    plan_of,
    processes_with,
    records,
    rows_of,
    run,
    start,
    wait_for,
)

PACKAGES = {"joblib": "joblib", "submitit_local": "submitit"}
pytestmark = [
    pytest.mark.engine,
    pytest.mark.parametrize(
        "launcher",
        [
            pytest.param(
                name,
                marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no {package}"),
            )
            for name, package in PACKAGES.items()
        ],
    ),
]


def test_two_processes_leave_the_rows_of_one(launcher, tmp_path):
    words = ["tau=0,700", "references=3", "train_steps=4", "base_model=true"]
    code, shown, errors = run(
        tmp_path / "two", "-m", f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=2", *words
    )
    assert code == 0, errors
    assert "2 tasks for 9 cells" in shown  # with the base model's three
    assert all(cell["cell"] for cell in plan_of(tmp_path / "two")["cells"])
    (sweep,) = read_sweeps(tmp_path / "two")
    assert sweep.counts == {"done": 9}
    assert run(tmp_path / "one", "-m", *words)[0] == 0
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    # Again, by either: nothing is left to do.
    code, shown, _ = run(tmp_path / "one", "-m", f"hydra/launcher={launcher}", *words)
    assert (code, "0 tasks for 0 cells" in shown) == (0, True)


def test_a_killed_process_loses_no_other_task(launcher, tmp_path):
    words = ["-m", f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=2", "hydra.launcher.tasks=3"]
    words += ["tau=0", "references=3", "train_steps=150", "keep_steps=[25]", "checkpoint_every=10"]
    process = start(tmp_path, *words)
    wait_for(has_begun(tmp_path, 2))
    pids = [pid for pid in processes_with(str(folder_of(tmp_path))) if _is_worker(pid)]
    os.kill(min(pids), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "killed" in errors
    assert len([record for record in records(tmp_path) if record["steps"] == 150]) == 2
    code, shown, errors = run(tmp_path, *words)
    assert code == 0, errors
    assert "1 task for 1 cell" in shown
    resumed = [record["resumed_from"] for record in records(tmp_path) if record["steps"] == 150]
    assert sorted(resumed)[:2] == [0, 0]
    assert 10 <= max(resumed) < 150


def _is_worker(pid):
    """Whether the process runs a task, and not what started it."""
    return "torch" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_processes_end_with_the_command_and_the_same_command_goes_on(number, launcher, tmp_path):
    if (launcher, number) == ("submitit_local", signal.SIGKILL):
        pytest.skip(
            "submitit's processes go on where the command is killed; the same command waits for their cells"
        )
    words = ["-m", f"hydra/launcher={launcher}", "tau=0", "references=1", "train_steps=150"]
    words += ["keep_steps=[5]", "checkpoint_every=0"]
    process = start(tmp_path, *words)
    wait_for(has_begun(tmp_path))
    folder = str(folder_of(tmp_path))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    wait_for(lambda: not processes_with(folder), 30)
    code, _, errors = run(tmp_path, *words)
    assert code == 0, errors
    (record,) = (record for record in records(tmp_path) if record["steps"] == 150)
    assert 5 <= record["resumed_from"] < 150


def test_an_experiment_and_a_probe_run_through_it(launcher, tmp_path):
    words = ["-m", f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=2", "probe=inversion", "references=2"]
    code, shown, errors = run(tmp_path / "probe", *words, "probe_steps=10")
    assert code == 0, errors
    assert "2 tasks for 2 cells" in shown
    assert "task 002 is done" in shown  # which draws the figures of both references
    (figure,) = (tmp_path / "probe").rglob("figures/inversion_10/*.md")
    assert figure.read_text()
    (tmp_path / "toy.yaml").write_text(
        'question: "?"\nanswer: "?"\ncost: nothing\nrows: ""\n'
        "select: {}\nsettings: {}\ncolumns: {}\ntables: []\n"
        "sweep: [model=tiny_latte tau=0 references=2, model=tiny_latte tau=700 references=2]\n"
    )
    words = [f"experiment={tmp_path / 'toy.yaml'}", f"hydra/launcher={launcher}", "train_steps=3"]
    code, shown, errors = run(tmp_path / "experiment", *words, "hydra.launcher.tasks=2")
    assert code == 0, errors
    assert "2 tasks for 4 cells" in shown


def test_every_process_has_a_gpu_of_its_own(launcher, tmp_path):
    """With two GPUs of the name alone: each process claims one before it would import torch."""
    code = (
        "import sys, time; from motionexp.jobs.worker import claim_gpus; from pathlib import Path;"
        "print(*claim_gpus(['3', 'GPU-ab'], 1, Path(sys.argv[1])), flush=True);"
        "time.sleep(float(sys.argv[2]))"
    )

    def claim(seconds):
        arguments = [sys.executable, "-c", code, str(tmp_path), seconds]
        return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    first, second = claim("60"), claim("60")
    assert {first.stdout.readline(), second.stdout.readline()} == {"3\n", "GPU-ab\n"}
    third = claim("0")
    assert "waiting" in third.stdout.readline()
    first.kill()  # a GPU of a killed process is free
    assert third.stdout.readline() in ("3\n", "GPU-ab\n")
    for process in (first, second, third):
        process.kill()
        process.communicate()


def test_more_processes_than_gpus_are_refused(launcher, tmp_path):
    words = ["-m", f"hydra/launcher={launcher}", "tau=0,700", "device=auto", "hydra.launcher.n_jobs=3"]
    code, _, errors = run(tmp_path, *words, environment={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (code, "n_jobs=3" in errors, "has 2" in errors) == (2, True, True)
    code, _, errors = run(tmp_path, *words[:-2], "device=cuda:1")
    assert (code, "device=cuda:1" in errors) == (2, True)
