"""A sweep on a real Slurm cluster, which each test starts on this machine (`make test-slurm`)."""

import json
import os
import shutil
import signal

import pytest

from tests.engines.slurm import HIGH, cluster, missing
from tests.engines.sweeps import (
    ROOT,
    folder_of,
    has_begun,
    processes_with,
    records,
    rows_of,
    run,
    start,
    wait_for,
)

pytest.importorskip("submitit")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(missing()), reason=missing())]
SLURM = ["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]
LONG = ["tau=700", "references=1", "train_steps=300", "keep_steps=[5]", "checkpoint_every=0"]


def jobs_of(output):
    """{task: the job of Slurm} of the only sweep."""
    path = folder_of(output) / "submitted.json" if (output / "sweeps").exists() else output
    return json.loads(path.read_text())["jobs"] if path.is_file() else {}


def test_a_sweep_is_a_job_array_with_the_rows_of_one_process(tmp_path):
    words = ["tau=0,700", "references=2", "train_steps=4"]
    with cluster(cpus=2):
        code, shown, errors = run(tmp_path / "slurm", *SLURM, "hydra.launcher.tasks=2", *words)
        assert code == 0, errors
        assert sorted(jobs_of(tmp_path / "slurm").values()) == ["1_0", "1_1"]
    assert "2 tasks for 4 cells" in shown
    assert run(tmp_path / "one", "-m", *words)[0] == 0
    assert rows_of(tmp_path / "slurm") == rows_of(tmp_path / "one")


def test_a_cancelled_and_a_killed_task_are_noticed_and_made_up_for(tmp_path):
    words = [*SLURM, "tau=0", "references=3", "train_steps=200", "keep_steps=[5]"]
    words += ["hydra.launcher.tasks=3", "hydra.launcher.partition=toy"]
    with cluster(cpus=3) as slurm:
        process = start(tmp_path, *words)
        jobs = wait_for(lambda: jobs_of(tmp_path))
        wait_for(has_begun(tmp_path, 3))
        slurm.slurm("scancel", jobs["0"])
        number = jobs["1"].partition("_")[2]
        for pid in processes_with(f"SLURM_ARRAY_TASK_ID={number}\0"):
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 1
        lines = [line for line in errors.splitlines() if line.startswith("error: task")]
        assert [line.split()[2] for line in lines] == ["000", "001"]
        assert "CANCELLED" in lines[0]
        assert "FAILED" in lines[1]
        # Again: only what is missing.
        code, shown, errors = run(tmp_path, *words)
        assert code == 0, errors
        assert "tasks for 2 cells" in shown
        assert len(jobs_of(tmp_path)) == 2
        assert len([record for record in records(tmp_path) if record["steps"] == 200]) == 3


@pytest.mark.parametrize("user_signal", [True, False], ids=["SIGUSR2", "SIGTERM"])
def test_a_preempted_task_goes_on_at_its_step(user_signal, tmp_path):
    with cluster(cpus=1, user_signal=user_signal) as slurm:
        process = start(tmp_path, *SLURM, *LONG)
        wait_for(has_begun(tmp_path))
        slurm.slurm("sbatch", "-p", HIGH, "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (record,) = (record for record in records(tmp_path) if record["steps"] == 300)
    assert 5 <= record["resumed_from"] < 300
    assert len(record["losses"]) == 300


def test_a_task_goes_on_after_its_time_is_over(tmp_path):
    # At the earliest possible moment, which comes in the training.
    limits = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=35"]
    longer = [word.replace("train_steps=300", "train_steps=800") for word in LONG]
    with cluster(cpus=1):
        process = start(tmp_path, *SLURM, *longer, *limits)
        _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    (record,) = (record for record in records(tmp_path) if record["steps"] == 800)
    assert record["resumed_from"] > 0
    assert len(record["losses"]) == 800


def test_a_drained_node_ends_its_task_and_the_rest_runs_elsewhere(tmp_path):
    with cluster(nodes=2, cpus=1) as slurm:
        words = ["tau=0", "references=4", "train_steps=60", "keep_steps=[5]", "hydra.launcher.tasks=4"]
        process = start(tmp_path, *SLURM, *words)
        wait_for(has_begun(tmp_path, 2))
        slurm.slurm("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        nodes = slurm.slurm("squeue", "-h", "-t", "all", "-r", "-o", "%N").split()
    assert sorted(nodes) == ["n1", "n2", "n2", "n2"]


def test_the_tasks_of_a_node_that_dies_run_again_elsewhere(tmp_path):
    with cluster(nodes=2, cpus=1) as slurm:
        words = ["tau=0", "references=2", "train_steps=150", "keep_steps=[25]", "checkpoint_every=10"]
        process = start(tmp_path, *SLURM, *words)
        wait_for(has_begun(tmp_path, 2))
        slurm.kill_node("n1")
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert set(slurm.slurm("squeue", "-h", "-t", "all", "-r", "-o", "%N").split()) == {"n2"}
    resumed = sorted(record["resumed_from"] for record in records(tmp_path) if record["steps"] == 150)
    assert resumed[0] == 0
    assert resumed[1] > 0


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_task_of_two_ranks_leaves_the_rows_of_one(nodes, tmp_path):
    words = ["tau=0", "references=1", "train_steps=4", "precision=fp32", "batch_size=1"]
    spread = [f"trainer.devices={2 // nodes}", f"trainer.num_nodes={nodes}"]
    with cluster(nodes=nodes, cpus=2):
        code, _, errors = run(tmp_path, *SLURM, *words, *spread)
    assert code == 0, errors
    (record,) = records(tmp_path)
    assert (record["steps"], len(record["losses"])) == (4, 4)
    metrics = [json.loads(row)["metric"] for row in rows_of(tmp_path)]
    assert sorted(metrics) == sorted(set(metrics))  # one rank writes


def test_a_sweep_waits_for_the_tasks_of_a_command_that_was_killed(tmp_path):
    words = [*SLURM, "tau=0", "references=1", "train_steps=150", "keep_steps=[5]"]
    with cluster(cpus=1) as slurm:
        process = start(tmp_path, *words)
        wait_for(has_begun(tmp_path))
        process.kill()
        process.communicate()
        code, shown, errors = run(tmp_path, *words)
        assert code == 0, errors
        assert "an earlier command" in shown
        assert len(slurm.states()) == 1
    assert not [record for record in records(tmp_path) if record["resumed_from"]]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("hydra.launcher.partition=tyo", "did you mean toy"),
        ("hydra.launcher.gpus_per_node=2", "refuses"),
    ],
)
def test_what_the_cluster_does_not_have_is_one_line(word, problem, tmp_path):
    with cluster(cpus=1):
        code, _, errors = run(tmp_path, "-m", "hydra/launcher=submitit_slurm", "tau=0,700", word)
    assert (code, "Traceback" in errors) == (2, False)
    assert problem in errors
    assert len([line for line in errors.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.iterdir())  # what was refused leaves nothing


def test_why_a_task_cannot_begin_is_said(tmp_path):
    with cluster(cpus=1):
        process = start(tmp_path, *SLURM[:2], "tau=0", "hydra.launcher.cpus_per_task=99")
        assert "waits in Slurm: PartitionConfig" in process.stderr.readline()
        process.terminate()
        process.communicate()
    assert process.returncode == 143


def test_a_reference_s_name_is_no_word_of_a_shell(tmp_path):
    """The names out of a data set are part of commands, scripts and files' names."""
    name = "a; touch hacked $(touch hacked) 'b' \"c\""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(ROOT / "docs" / "clip.mp4", data / f"{name}.mp4")
    captions = "a red plain circle is moving on sand,a blue plain star is moving on ice"
    quoted = name.replace('"', '""')
    (data / "captions.csv").write_text(f'video,caption,edit\n"{quoted}.mp4",{captions}\n')
    words = ["data=folder", f"data.path={data}", "tau=0", "train_steps=2", "edit_kinds=null"]
    with cluster(cpus=1):
        code, shown, errors = run(tmp_path / "out", *SLURM, *words)
    assert code == 0, shown + errors
    assert not list(tmp_path.rglob("hacked"))
