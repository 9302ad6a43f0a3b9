"""Sweeps on Ray clusters, which each test starts on this machine (`make test-ray`)."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines.sweeps import (
    folder_of,
    has_begun,
    plan_of,
    records,
    rows_of,
    run,
    start,
    wait_for,
)

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.engine
RAY = ["-m", "hydra/launcher=ray"]


def test_a_cluster_of_its_own_leaves_the_rows_of_one_process(tmp_path):
    words = ["tau=0,700", "references=2", "train_steps=4"]
    code, shown, errors = run(tmp_path / "ray", *RAY, *words, "hydra.launcher.tasks=2")
    assert code == 0, errors
    assert "2 tasks for 4 cells" in shown
    assert plan_of(tmp_path / "ray")["launcher"] == "ray"
    assert run(tmp_path / "one", "-m", *words)[0] == 0
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "one")


def test_a_process_that_dies_loses_no_other_task(tmp_path):
    words = [*RAY, "hydra.launcher.tasks=2", "tau=0", "references=2", "train_steps=150", "keep_steps=[5]"]
    process = start(tmp_path, *words)
    wait_for(has_begun(tmp_path, 2))
    folder = str(folder_of(tmp_path))
    os.kill(min(_workers(folder)), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "died" in errors
    code, shown, errors = run(tmp_path, *words)
    assert code == 0, errors
    assert "1 task for 1 cell" in shown
    assert len([record for record in records(tmp_path) if record["steps"] == 150]) == 2


def _workers(folder):
    """The processes whose output goes into files of the sweep."""
    pids = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):
            if os.readlink(link).startswith(folder):
                pids.append(int(link.parts[2]))
    return pids


@pytest.fixture
def running_cluster(monkeypatch):
    """The address of a Ray cluster with four cores, of which two name themselves GPUs."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else both sides need a token
    options = "--head --block --port=6399 --num-cpus=4 --num-gpus=2 --include-dashboard=false"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split()]
    head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in head.stdout:
        if "runtime started" in line:
            break
    yield "127.0.0.1:6399"
    head.terminate()  # with all that it has started
    head.communicate(timeout=60)


def test_a_running_cluster_and_what_it_does_not_have(running_cluster, tmp_path):
    address = f"hydra.launcher.address={running_cluster}"
    words = [*RAY, address, "tau=0", "references=2", "train_steps=4"]
    code, shown, errors = run(tmp_path, *words)
    assert code == 0, errors
    assert "2 tasks" in shown
    code, _, errors = run(tmp_path, *words, "hydra.launcher.num_gpus=3")
    assert (code, "the cluster has 2" in errors) == (2, True)


def test_no_cluster_at_an_address_is_one_line(tmp_path):
    code, _, errors = run(tmp_path, *RAY, "tau=0,700", "hydra.launcher.address=127.0.0.1:1")
    assert (code, "Traceback" in errors) == (2, False)
    assert "hydra.launcher.address=127.0.0.1:1" in errors
