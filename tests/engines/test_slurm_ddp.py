"""One training on two nodes of a Slurm cluster: `srun` starts its ranks, and a signal stops both."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

slurm = pytest.importorskip("tests.engines.slurm")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing())]

ROOT = Path(__file__).parents[2]
SRUN = ["srun", "-N2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
JOB = ["model=tiny_latte", "precision=fp32", "device=cpu", "steps=2", "rank=1", "base_model=false",
       "metrics=[flow_similarity]", "edit_kinds=[multiple]", "train_steps=200", "keep_steps=[5]",
       "checkpoint_every=0"]  # fmt: skip


def start(output, *words, starter=()):
    command = [*starter, sys.executable, "run.py", *JOB, *words, f"output={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def has_begun(output, process):
    deadline = time.monotonic() + 120
    while not list(output.rglob("adapter.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def losses(output):
    """Of the training, and the step that it was resumed from."""
    records = [json.loads(path.read_text()) for path in output.rglob("fit.json")]
    (record,) = (record for record in records if record["steps"] == 200)
    return record["losses"], record["resumed_from"]


def test_two_nodes_train_as_one_process_with_two_draws_and_resume_after_a_signal(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    with slurm.cluster(nodes=2, cpus=1) as cluster:
        process = start(two, "trainer.num_nodes=2", starter=SRUN)
        has_begun(two, process)
        (job,) = cluster.states()
        cluster.slurm("scancel", "--signal=TERM", f"{job}.0")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 143, errors
        assert "stopped by SIGTERM" in errors
        assert len(list(two.rglob("checkpoint.ckpt"))) == 1
        process = start(two, "trainer.num_nodes=2", starter=SRUN)
        shown, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert shown.count("docs/scores.md") == 1  # rank 0 speaks for all
    process = start(one, "batch_size=2")
    assert process.wait(timeout=300) == 0
    of_two, resumed_from = losses(two)
    of_one, _ = losses(one)
    assert 5 <= resumed_from < 200
    assert of_two[:20] == pytest.approx(of_one[:20], rel=1e-3)
    assert {path.parent.name for path in two.rglob("rows.jsonl")} == {
        path.parent.name for path in one.rglob("rows.jsonl")
    }


def test_another_number_of_tasks_is_refused_on_all(tmp_path):
    with slurm.cluster(nodes=2, cpus=1):
        process = start(tmp_path, "trainer.num_nodes=3", starter=SRUN)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0  # the first to end has the other killed
    assert "trainer.num_nodes=3: 2 processes were started" in errors
