"""The base model's cells in the plan of a sweep, and in the sums of `status`."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from motionexp.config.compose import load
from motionexp.config.launcher import JoblibLauncher
from motionexp.jobs.engine_basic import in_this_process
from motionexp.jobs.launch import plan_sweep
from motionexp.jobs.run import run as run_job
from motionexp.jobs.status import read_sweeps
from motionexp.jobs.sweep_folder import SweepFolder
from motionexp.jobs.tasks import SweepJob
from tests.support.stub_jobs import run

pytestmark = pytest.mark.usefixtures("quiet")


def waiting_in(output, capsys):
    """The last line of `status`, which is the sum."""
    capsys.readouterr()
    assert run(["status", f"output={output}"]) == 0
    return capsys.readouterr().out.splitlines()[-1].partition(";")[0]


def test_the_base_model_s_cells_are_in_the_plan_from_its_start(tmp_path, capsys):
    """Of two references: those beside four trainings, for each number of sampling steps."""
    words = ["references=2", f"output={tmp_path}"]
    sweep = [load([*words, f"tau={tau}", f"steps={steps}"]) for tau in (0, 300) for steps in (4, 8)]
    alone = [
        load([*words, "tau=1000", f"steps={steps}", f"rank={rank}"]) for steps in (4, 8) for rank in (2, 4)
    ]
    without = [replace(cfg, base_model=False) for cfg in sweep]
    for jobs, count in ((sweep, 12), ([*sweep, *alone], 12), (alone, 4), (without, 8)):
        with in_this_process(jobs, ["-m"], lambda: False):
            folder = SweepFolder.of(jobs)
        assert waiting_in(folder.path, capsys) == f"{count} cells: {count} waiting"
        of_base = [cell for cell in folder.read()["cells"] if cell["base_model"]]
        assert len(of_base) == count - 8 * (jobs is not alone)
        assert all(cell["settings"]["tau"] == "1000" for cell in of_base)


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_cell_of_the_base_model_is_one_of_the_task_that_comes_to_it_first(
    tasks, base, jobs, engine, tmp_path, capsys
):
    words = [*base, "tau=0,300", "references=2", f"hydra.launcher.tasks={2 * tasks}"]
    assert run(["-m", "hydra/launcher=joblib", *words]) == 0
    assert "6 cells, 2 at once; 0 cells are finished" in capsys.readouterr().out
    assert waiting_in(tmp_path / "out", capsys) == "6 cells: 6 waiting"
    (path,) = (tmp_path / "out" / "sweeps").glob("*/plan.json")
    cells = json.loads(path.read_text())["cells"]
    for of_base in (cell for cell in cells if cell["base_model"]):
        same = {c["task"] for c in cells if c["reference"] == of_base["reference"] and not c["base_model"]}
        assert len(same) == tasks
        assert of_base["task"] in same


def test_a_job_says_where_the_base_model_s_cells_are(tmp_path, capsys):
    cfg = load(["references=2", "tau=300", f"output={tmp_path}"])
    with in_this_process([cfg], ["-m"], lambda: False):
        folder = SweepFolder.of([cfg])
    name = folder.read()["cells"][0]["reference"]
    folder.report(cfg, [(name, 0, tmp_path / "a")], [(name, 0, tmp_path / "b")])
    assert [cell["cell"] for cell in folder.read()["cells"]] == ["a", None, "b", None]


def test_the_sum_of_a_sweep_is_the_same_before_it_and_after_it(make, tmp_path):
    """Also where the results are there already, and where another job made the base model's samples."""
    sweep = [make(tau=tau, base_model=True, references=2) for tau in (500.0, 250.0)]
    run_job(make(tau=0.0, base_model=True, references=1))
    for before in ({"waiting": 6}, {"done": 6}):
        with in_this_process(sweep, ["-m"], lambda: False):
            (status, *_) = read_sweeps(SweepFolder.of(sweep).output)
            assert status.counts == before
            for cfg in sweep:
                run_job(cfg)
        (status, *_) = read_sweeps(SweepFolder.of(sweep).output)
        assert status.counts == {"done": 6}
    # Without the plan of the first time, the records of finished cells say where they are.
    (SweepFolder.of(sweep).path / "plan.json").unlink()
    for path in (SweepFolder.of(sweep).path / "cells").iterdir():
        path.unlink()
    with in_this_process(sweep, ["-m"], lambda: False):
        for cfg in sweep:
            run_job(cfg)
    (status, *_) = read_sweeps(SweepFolder.of(sweep).output)
    assert status.counts == {"done": 6}


@pytest.mark.parametrize("number", [0, 1])
def test_a_launcher_counts_the_base_model_s_cells_of_a_finished_job_as_finished(number, make):
    sweep = [make(tau=tau, base_model=True, references=2) for tau in (500.0, 250.0)]
    run_job(sweep[number])
    jobs = [SweepJob(cfg, ("tau=",)) for cfg in sweep]
    plan = plan_sweep(jobs, JoblibLauncher(tasks=1), 1)
    assert [task.cells for task in plan.tasks] == [2]
    assert Counter(cell["task"] for cell in plan.cells) == {None: 4, 0: 2}
    seconds = [cell["seconds"] for cell in plan.cells if cell["task"] == 0]
    assert plan.tasks[0].seconds == pytest.approx(sum(seconds))
