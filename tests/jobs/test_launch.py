"""A sweep through a launcher: its tasks, its folder, what failed, and bad input. It starts no process."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from motionexp.config import launcher
from motionexp.config.compose import JobReader, load
from motionexp.errors import InputError
from motionexp.jobs import model_rates
from motionexp.jobs.costs import Rates
from motionexp.jobs.engine_basic import in_this_process
from motionexp.jobs.failures import AGAIN
from motionexp.jobs.outcomes import Outcome
from motionexp.jobs.sweep_folder import VARIABLE, SweepFolder, Task, in_task
from motionexp.jobs.task_workers import workers
from motionexp.jobs.worker import GPUS, Work, claim_gpus, visible_gpus
from tests.support.stub_jobs import run

pytestmark = pytest.mark.usefixtures("quiet")
JOBLIB = ("-m", "hydra/launcher=joblib")


def names_and_taus(jobs):
    return sorted((name, cfg.tau) for cfg in jobs for name in _names(cfg))


def _names(cfg):
    return cfg.references if isinstance(cfg.references, list) else [str(cfg.references)]


def test_the_jobs_of_all_tasks_run_and_the_plan_names_them(base, jobs, engine, tmp_path, capsys):
    # tau=1000 takes no rank, which a command for it alone would refuse.
    words = [*base, "tau=0,1000", "rank=2", "references=3", "hydra.launcher.tasks=2"]
    assert run([*JOBLIB, *words]) == 0
    assert {cfg.rank for cfg in jobs.ran} == {2}
    assert len(names_and_taus(jobs.ran)) == 6
    (folder,) = (tmp_path / "out" / "sweeps").iterdir()
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["version"], plan["launcher"], plan["command"]) == (1, "joblib", [*JOBLIB, *words])
    assert [task["number"] for task in plan["tasks"]] == engine.order == [0, 1]
    # The jobs of tau=0 make the cells of tau=1000 too, which are no further ones.
    assert [(cell["reference"], cell["settings"]["tau"]) for cell in plan["cells"]] == [
        (reference, tau) for tau in ("0", "1000") for reference in names_of_plan(plan)
    ]
    assert {cell["task"] for cell in plan["cells"]} == {0, 1}
    assert not in_task()
    # The same command has the same folder, and so has another launcher of the same jobs.
    assert run(["-m", *words[:-1]]) == 0
    assert [*(tmp_path / "out" / "sweeps").iterdir()] == [folder]
    assert json.loads((folder / "plan.json").read_text())["launcher"] == "basic"


def names_of_plan(plan):
    return list(dict.fromkeys(cell["reference"] for cell in plan["cells"]))


def test_a_task_that_fails_stops_no_other_and_the_exit_code_is_1(base, jobs, engine, capsys):
    jobs.error = {0: InputError("this video is damaged")}
    assert run([*JOBLIB, *base, "tau=0,300", "references=2", "hydra.launcher.tasks=2"]) == 1
    assert len(jobs.ran) == 4
    shown = capsys.readouterr()
    assert "task 000" in shown.out + shown.err
    assert "the same command" in shown.err


def test_a_task_that_is_refused_says_why_in_the_table(base, jobs, engine, tmp_path, monkeypatch, capsys):
    """As a task's own process writes its errors into its log, the cells' table and the sum at the end."""
    log = tmp_path / "000.log"
    log.write_text(f"error: job tau=0 failed: this device is busy\nx\nerror: 1 failed; {AGAIN}\n")
    monkeypatch.setattr(Outcome, "of_code", lambda code, _: Outcome("exit code 1", str(log), is_code=True))
    assert run([*JOBLIB, *base, "tau=0,300", "hydra.launcher.tasks=1"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| task 000")]
    assert "| this device is busy |" in line
    log.write_text("killed before it wrote an error\n")
    assert run([*JOBLIB, *base, "tau=0,300", "hydra.launcher.tasks=1"]) == 1
    assert "| exit code 1 |" in capsys.readouterr().out


def test_the_plan_keeps_the_tasks_of_earlier_commands(base, jobs, engine, tmp_path, capsys):
    words = [*JOBLIB, *base, "tau=0,300", "references=2"]
    for count in (2, 2, 1):  # of the same tasks, and then of another one
        assert run([*words, f"hydra.launcher.tasks={count}"]) == 0
    (folder,) = (tmp_path / "out" / "sweeps").iterdir()
    plan = json.loads((folder / "plan.json").read_text())
    assert engine.order == [0, 1, 0, 1, 2]
    assert [task["number"] for task in plan["tasks"]] == [0, 1, 2]
    assert {cell["task"] for cell in plan["cells"]} == {2}
    assert len(plan["cells"]) == 6
    for task in plan["tasks"]:
        assert "tau=0,300" in (folder / "tasks" / f"{task['number']:03d}.sh").read_text()
    capsys.readouterr()
    assert run(["status", f"output={tmp_path / 'out'}"]) == 0
    _, *tasks, _ = capsys.readouterr().out.splitlines()
    assert tasks == ["task 0  no cells", "task 1  no cells", "task 2  0 of 6 done  waiting"]


def planned(reference, task):
    return {"cell": None, "job": "j", "reference": reference, "training_seed": 0, "task": task} | {
        "model": "tiny_latte",
        "settings": {},
        "seconds": None,
    }


def test_a_finished_cell_stays_in_its_task_and_none_is_lost(tmp_path):
    folder, about = SweepFolder(tmp_path / "sweeps" / "id"), {"command": [], "launcher": "joblib"}
    folder.add(about, [Task(0, [["-m", "tau=0"]], None, 2)], [planned("a", 0), planned("b", 0)])
    # The data have other videos by now: "b" is no cell of the second command.
    second = [planned("a", None), planned("c", 0)]
    tasks, cells = folder.add(about, [Task(0, [["-m", "tau=300"]], None, 1)], second)
    assert [task.number for task in tasks] == [1]
    assert [cell["task"] for cell in cells] == [0, 1]
    assert [(cell["reference"], cell["task"]) for cell in folder.read()["cells"]] == [
        *(("a", 0), ("c", 1), ("b", 0))
    ]


def test_a_damaged_plan_is_written_anew(tmp_path):
    folder, about = SweepFolder(tmp_path / "sweeps" / "id"), {"command": [], "launcher": "joblib"}
    for content in ("{", '{"version": 0}'):
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / "plan.json").write_text(content)
        folder.add(about, [Task(0, [["-m"]], None, 1)], [planned("a", 0)])
        assert [task["number"] for task in folder.read()["tasks"]] == [0]


def test_a_refused_sweep_leaves_its_folder_as_it_was(base, jobs, engine, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise InputError("no such account")

    words, accepted = [*JOBLIB, *base, "tau=0,300", "references=2"], engine.run
    monkeypatch.setattr(engine, "run", refuse)
    assert run(words) == 2
    assert "no such account" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(engine, "run", accepted)
    assert run(words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(engine, "run", refuse)
    assert run([*words, "hydra.launcher.tasks=1"]) == 2
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_what_is_refused_after_tasks_ran_leaves_their_plan(base, jobs, engine, tmp_path, monkeypatch):
    """A task at the end, which draws the figures of a probe, is submitted apart."""
    accepted = engine.run

    def refuse_the_last(folder, tasks, *about):
        if engine.order:
            raise InputError("no such account")
        accepted(folder, tasks, *about)

    monkeypatch.setattr(engine, "run", refuse_the_last)
    words = ["probe=inversion", "references=2", "hydra.launcher.tasks=2"]
    assert run([*JOBLIB, *base, *words]) == 2
    assert len(list((tmp_path / "out" / "sweeps").glob("*/plan.json"))) == 1


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_refused_sweep_of_this_process_leaves_nothing(device, base, jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    jobs.error = {tau: InputError("the tokenizer does not know this") for tau in (0, 300)}
    words = [word for word in base if not word.startswith("device=")]
    assert run(["-m", *words, "tau=0,300", f"device={device}"]) == 2
    shown = capsys.readouterr().err
    assert ("device=cuda: not on this machine" if device == "cuda" else "tokenizer") in shown
    assert len(jobs.ran) == (0 if device == "cuda" else 2)
    assert not (tmp_path / "out").exists()
    assert not in_task()


def test_processes_of_this_machine_cannot_take_a_gpu_that_it_lacks(base, jobs, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _: True)
    words = [word for word in base if not word.startswith("device=")]
    assert run([*JOBLIB, *words, "tau=0,300", "device=cuda"]) == 2
    assert "device=cuda: not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_process_is_known_from_the_start_of_its_task_to_its_end(tmp_path, monkeypatch):
    for name in (VARIABLE, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which the task sets
    monkeypatch.chdir(tmp_path)
    seen = []
    work = Work(str(tmp_path), 7, os.getcwd(), [["-m"]], {"OMP_NUM_THREADS": "1"})
    assert work.do(lambda commands: seen.append((commands, workers(tmp_path))) or 3) == 3
    ((commands, at_work),) = seen
    assert commands == [["-m"]]
    assert (at_work[7].pid, at_work[7].host) == (os.getpid(), socket.gethostname())
    assert workers(tmp_path) == {}
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_dry_run_prints_the_tasks_as_commands_and_writes_nothing(base, jobs, engine, tmp_path, capsys):
    assert run([*JOBLIB, *base, "tau=0,300", "references=2", "dry_run=true", "hydra.launcher.tasks=2"]) == 0
    shown = capsys.readouterr().out
    assert "joblib: 2 tasks, 6 cells to do, 0 finished" in shown  # with the base model's two
    commands = [line for line in shown.splitlines() if line.startswith("  python run.py -m")]
    assert len(commands) == 2
    assert all("tau=0,300" in command and "dry_run=" not in command for command in commands)
    assert not jobs.ran
    assert not (tmp_path / "out" / "sweeps").exists()
    assert run([*JOBLIB, *base, "dry_run=true", "references=1", "base_model=false"]) == 0
    shown = capsys.readouterr().out
    assert "joblib: 1 task, 1 cell to do, 0 finished" in shown
    assert "task 000: 1 cell\n" in shown


@pytest.mark.parametrize("more", [["dry_run=true", *JOBLIB[1:]], ["dry_run=true"], []])
def test_each_job_is_checked_once(more, base, jobs, engine, monkeypatch, tmp_path):
    checked = []

    def read(reader, overrides):
        checked.append([word for word in overrides if word.startswith("tau=")])
        return reading(reader, overrides)

    reading = JobReader.read
    monkeypatch.setattr(JobReader, "read", read)
    assert run(["-m", *base, "tau=0,300", *more]) == 0
    assert checked == [["tau=0"], ["tau=300"]]


def test_an_experiment_checks_each_job_once(base, jobs, monkeypatch, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        'question: "?"\nanswer: "?"\ncost: nothing\nrows: ""\n'
        "select: {}\nsettings: {}\ncolumns: {}\ntables: []\n"
        "sweep: [model=tiny_latte tau=0, model=tiny_latte tau=300]\n"
    )
    checked, reading = [], JobReader.read

    def read(reader, overrides):
        checked.append([word for word in overrides if word.startswith("tau=")])
        return reading(reader, overrides)

    monkeypatch.setattr(JobReader, "read", read)
    run([f"experiment={path}", *base])  # of the stubs there are no rows for a table
    assert [cfg.tau for cfg in jobs.ran] == [0, 300]
    assert len(checked) == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["hydra/launcher=jobli"], "did you mean joblib"),
        (["hydra/launcher=joblib", "hydra.launcher.tasks=0"], "hydra.launcher.tasks=0"),
        (["hydra/launcher=joblib", "hydra.launcher.tasks=1.5"], "hydra.launcher.tasks"),
        (["hydra/launcher=joblib", "hydra.launcher.hours=0"], "hydra.launcher.hours=0"),
        (["hydra/launcher=joblib", "hydra.launcher.tasks=2", "hydra.launcher.hours=1"], "leave out one"),
        (["hydra/launcher=joblib", "hydra.launcher.task=2"], "did you mean tasks"),
        (["hydra/launcher=joblib", "hydra.launcher.partition=gpu"], "hydra.launcher.partition"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=1,2"], "n_jobs=1,2"),
        (["hydra/launcher=joblib", "hydra/sweeper=optuna"], "hydra/sweeper=optuna"),
        (["hydra/launcher=basic", "hydra.launcher.tasks=2"], "hydra.launcher.tasks=2"),
        (["hydra.launcher.tasks=2"], "hydra.launcher.tasks=2"),
        (["hydra/launcher=joblib", "tau=shuffle(0,300)"], "shuffle"),
        (["hydra/launcher=joblib", "tau=interval(0,300)"], "interval"),
    ],
)
def test_wrong_settings_of_a_launcher_are_one_line(words, problem, base, jobs, engine, capsys):
    assert run(["-m", *base, *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert problem in lines[0]
    assert not jobs.ran


def test_a_launcher_is_for_sweeps(base, jobs, engine, capsys):
    assert run([*base, "hydra/launcher=joblib"]) == 2
    assert "-m" in capsys.readouterr().err
    assert run([*JOBLIB, *base, "references=2"]) == 0  # one job, whose references are divided
    assert len(jobs.ran) == 2


def test_hours_need_a_known_cost(base, jobs, engine, monkeypatch, capsys):
    words = [*JOBLIB, *base, "tau=0,300", "references=2", "hydra.launcher.hours=1"]
    monkeypatch.setattr(model_rates, "measured_now", lambda _: Rates())
    assert run(words) == 2
    assert "hydra.launcher.tasks=" in capsys.readouterr().err
    cfg = load(base)
    draws = cfg.train_steps * cfg.batch_size  # of a cell, which then takes half an hour
    monkeypatch.setattr(model_rates, "measured_now", lambda _: Rates(1800 / draws, 0.0, 0.0, True))
    assert run(words) == 0
    assert len(engine.order) == 2


def test_a_task_s_script_does_what_its_commands_say(tmp_path, monkeypatch):
    """A caption that would be words of a shell is one argument, through a real shell."""
    hostile = [
        "caption=a; touch hacked $(touch hacked) `touch hacked` 'x' \"y\"\n&& touch hacked",
        "output=a b",
    ]
    monkeypatch.chdir(tmp_path)
    printing = tmp_path / "python"
    printing.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    printing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(printing))
    task = Task(0, [["-m", *hostile]], None, 1)
    folder = SweepFolder(tmp_path / "out" / "sweeps" / "it's")
    folder.add({"command": [], "launcher": "joblib"}, [task], [])
    done = subprocess.run(["bash", folder.path / "tasks" / "000.sh"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == ["-m", "motionexp", "-m", *hostile, ""]
    assert not list(tmp_path.rglob("hacked"))


def test_cells_tell_where_they_are(tmp_path):
    cfg = load(["references=2", f"output={tmp_path}", "base_model=false"])
    folder = SweepFolder.of([cfg])
    assert folder == SweepFolder.of([replace(cfg, dry_run=True, device="cpu", output=str(tmp_path))])
    assert folder != SweepFolder.of([replace(cfg, rank=8)])
    with in_this_process([cfg], ["-m"], lambda: False):
        assert os.environ[VARIABLE] == str(folder.path)
    assert not in_task()
    before = folder.read()["cells"]
    assert [cell["cell"] for cell in before] == [None, None]
    folder.report(cfg, [(before[1]["reference"], 0, tmp_path / "shapes" / "tiny_latte" / "abc")])
    assert [cell["cell"] for cell in folder.read()["cells"]] == [None, "shapes/tiny_latte/abc"]
    stored = json.loads((folder.path / "plan.json").read_text())
    assert stored["cells"][1]["cell"] == "shapes/tiny_latte/abc"
    # A job that only differs in its references is the same one.
    folder.report(replace(cfg, references=["x"]), [(before[0]["reference"], 0, tmp_path / "x")])
    assert folder.read()["cells"][0]["cell"] == "x"


def test_units_of_a_probe_stand_for_its_reference(tmp_path):
    cfg = load(["probe=tampering", "references=1", f"output={tmp_path}"])
    with in_this_process([cfg], ["-m"], lambda: False):
        folder = SweepFolder.of([cfg])
    name = folder.read()["cells"][0]["reference"]
    folder.report(cfg, [(f"{name}, multiple", 0, tmp_path / "a"), (f"{name}, motion", 0, tmp_path / "b")])
    assert [(cell["reference"], cell["cell"]) for cell in folder.read()["cells"]] == [
        (f"{name}, multiple", "a"),
        (f"{name}, motion", "b"),
    ]


@pytest.mark.parametrize(
    ("code", "problem"),
    [(0, ""), (1, "exit code 1"), (-9, "killed by SIGKILL"), (143, "stopped by SIGTERM"), (138, "SIGUSR1")],
)
def test_how_a_process_ended_is_said(code, problem):
    outcome = Outcome.of_code(code, "log")
    assert problem in outcome.problem
    assert bool(outcome.problem) == bool(code)


def test_gpus_are_those_that_the_user_lets_it_see(tmp_path, monkeypatch):
    from motionexp.jobs import worker

    assert visible_gpus({GPUS: "1, GPU-ab"}) == ["1", "GPU-ab"]
    assert visible_gpus({GPUS: ""}) == visible_gpus({GPUS: "-1"}) == []
    for name in ("nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(worker, "DEVICES", tmp_path)
    assert visible_gpus({}) == ["0", "1"]
    claimed = [claim_gpus(["0", "1", "2"], count, tmp_path) for count in (1, 2)]
    assert claimed == [["0"], ["1", "2"]]
