"""`python run.py status`: what a folder of results says of its sweeps."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from motionexp.cli import main
from motionexp.errors import InputError
from motionexp.files import locked
from motionexp.jobs import progress_file
from motionexp.jobs import status as status_module
from motionexp.jobs.progress_file import ProgressFile
from motionexp.jobs.status import read_sweeps, status
from motionexp.jobs.task_workers import remove_dead_workers, workers, working_on
from motionexp.results.cell_state import read_progress, read_state
from tests.support.made_sweeps import planned, write_cell, write_plan, write_progress

LOG = "error.log"


@pytest.fixture
def sweep(tmp_path):
    """Two tasks: cells 0 and 1 done, 2 running here, 3 failed, 4 waiting; 5 running elsewhere, 6 waiting."""
    with ExitStack() as locks:
        for number in (0, 1):
            write_progress(write_cell(tmp_path, number, "done"), seconds=20)
        here = write_cell(tmp_path, 2, "running")
        write_progress(here, seconds=8, written=2)
        locks.enter_context(locked(here / ".lock"))
        failed = write_cell(tmp_path, 3, "failed", error="the loss is nan\nin step 3", log=LOG)
        (failed / LOG).write_text("Traceback")
        elsewhere = write_cell(tmp_path, 5, "running", since=600, host="node-7")
        write_progress(elsewhere, seconds=12, written=240)
        write_plan(tmp_path, [planned(number, int(number > 4)) for number in range(7)])
        yield tmp_path


def printed(output: Path, capsys) -> list[str]:
    status([f"output={output}"])
    return capsys.readouterr().out.splitlines()


def test_each_task_is_a_line_that_says_who_works_on_what(sweep, capsys):
    title, first, second, failed, total = printed(sweep, capsys)
    assert "python run.py -m model=tiny_latte tau=0,700 (joblib" in title
    assert first.startswith(
        "task 0  2 of 5 done, 1 failed  running  tau=700 reference-2: fit 57 of 100, loss 0.0213"
    )
    assert "process 4321" in first
    assert "last seen" not in first
    assert second.startswith("task 1  0 of 2 done  running  tau=700 reference-5: fit 57 of 100")
    assert "on node-7" in second
    assert second.endswith("last seen 4 min ago")
    assert "reference-3: the loss is nan in step 3" in failed
    assert failed.endswith(f"cell-3/{LOG}")
    assert total.startswith("7 cells: 2 done, 2 running, 1 failed, 2 waiting; about ")


def test_the_time_left_follows_from_what_cells_took(sweep):
    # Planned 10 s took 20. Task 0: 20 - 8 - 2 of cell 2, 20 of cell 4. Task 1: 20 - 12 and 20.
    (of_sweep,) = read_sweeps(sweep)
    left = of_sweep.left
    assert left is not None
    assert (left.running, left.measured) == (2, True)
    assert left.work == pytest.approx(10 + 20 + 8 + 20, abs=2)
    assert left.wall == pytest.approx(30, abs=2)


def test_without_a_plan_for_a_cell_its_model_s_finished_cells_say_it(sweep):
    shutil.rmtree(sweep / "sweeps")
    write_plan(sweep, [planned(number, int(number > 4), seconds=None) for number in range(7)])
    (of_sweep,) = read_sweeps(sweep)
    assert of_sweep.left is not None
    assert of_sweep.left.work == pytest.approx(58, abs=2)
    for number in (0, 1):
        (sweep / "shapes" / "tiny_latte" / f"cell-{number}" / "progress.json").unlink()
    assert "unknown" in read_sweeps(sweep)[0].left.in_words()


def test_a_copied_folder_says_the_same_but_of_processes_here(sweep, tmp_path_factory, capsys):
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(sweep, copy)
    assert printed(copy, capsys)[-1] == printed(sweep, capsys)[-1]
    # Whether a process of another machine lives cannot be asked; one of this machine is gone.
    for path in copy.rglob(".lock"):
        path.unlink()
    assert printed(copy, capsys)[-1].startswith(
        "7 cells: 2 done, 1 running, 1 failed, 1 interrupted, 2 waiting"
    )


def test_without_plans_the_cells_own_folders_are_read(sweep, capsys):
    shutil.rmtree(sweep / "sweeps")
    title, line, *_, total = printed(sweep, capsys)
    assert "in no sweep" in title
    assert line.startswith(
        "shapes/tiny_latte  2 of 5 done, 1 failed  running  tau=700 reference-2 (and 1 more)"
    )
    assert total == "5 cells: 2 done, 2 running, 1 failed"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"cells": [planned(0, 0) | {"cell": "../../etc"}]},
        {"cells": [planned(0, 0) | {"cell": "/etc"}]},
        {"cells": [planned(0, 0) | {"seconds": "long"}]},
        {"command": "tau=700"},
        {"written": "yesterday"},
        {"tasks": None},
    ],
)
def test_a_plan_that_cannot_be_read_is_a_line_beside_the_others(sweep, changes, capsys):
    path = write_plan(sweep, [planned(0, 0)], "ffff", **changes)
    lines = printed(sweep, capsys)
    assert lines[0].startswith(f"{path}: ")
    assert lines[-1].startswith("7 cells: ")


def test_damaged_cells_and_a_clock_of_the_future_stop_nothing(sweep, capsys):
    cells = sweep / "shapes" / "tiny_latte"
    (cells / "cell-0" / "status.json").write_text("{")
    (cells / "cell-1" / "progress.json").write_text('{"stage": "fit"}')
    write_progress(cells / "cell-2", seconds=8, written=-7200)
    lines = printed(sweep, capsys)
    assert "1 failed, 2 damaged" in lines[-1]
    assert sum(line.startswith("damaged: ") for line in lines) == 2
    assert "last seen" not in lines[1]


def test_cells_of_no_plan_are_no_cells_of_a_sweep(tmp_path, capsys):
    """Also where the same process makes them, as a notebook that runs a sweep and then a job."""
    write_cell(tmp_path, 0, "done")
    base = write_cell(tmp_path, 7, "running", tau=1000.0)
    elsewhere = write_cell(tmp_path, 8, "running")
    cells = [planned(0, 0), planned(1, 0), planned(7, 0, is_base=True)]
    write_plan(tmp_path, [cells[0] | {"training_seed": 5}, cells[1] | {"training_seed": 5}, cells[2]])
    with locked(base / ".lock"), locked(elsewhere / ".lock"):
        _, task, total, title, line, _ = printed(tmp_path, capsys)
    assert task.startswith("task 0  1 of 3 done  running  tau=1000 reference-7: ")
    assert total.startswith("3 cells: 1 done, 1 running, 1 waiting; ")
    assert "with 1 task at a time" in total
    assert "in no sweep" in title
    assert line.startswith("shapes/tiny_latte  0 of 1 done  running  tau=700 reference-8: ")


def test_what_a_task_with_a_problem_has_not_made_waits_no_more(tmp_path, capsys):
    write_cell(tmp_path, 0, "failed", error="the loss is nan")
    write_cell(tmp_path, 3, "done")
    cells = [planned(0, 0), planned(1, 0, is_base=True), planned(2, 0), planned(3, 0), planned(4, 1)]
    tasks = [{"number": number, "commands": [], "seconds": None} for number in range(2)]
    folder = write_plan(tmp_path, cells, tasks=[tasks[0] | {"problem": "no such\ntoken"}, tasks[1]]).parent
    _, first, second, not_begun, failed, total = printed(tmp_path, capsys)
    assert first == "task 0  1 of 4 done, 3 failed  failed"
    assert second == "task 1  0 of 1 done  waiting"
    assert not_begun == "failed: 2 cells of task 0, not begun: no such\\ntoken"
    assert "reference-0: the loss is nan; cell: " in failed
    assert total.startswith("5 cells: 1 done, 3 failed, 1 waiting; about ")
    with working_on(folder, 0):  # somebody runs its script
        assert read_sweeps(tmp_path)[0].counts == {"done": 1, "failed": 1, "waiting": 3}


def test_a_cell_of_the_base_model_takes_what_those_before_it_took(tmp_path):
    for number, seconds in ((0, 40), (1, 4)):
        write_progress(write_cell(tmp_path, number, "done"), seconds=seconds)
    cells = [planned(number, 0, seconds=None, is_base=bool(number % 2)) for number in range(4)]
    write_plan(tmp_path, cells)
    assert read_sweeps(tmp_path)[0].left.work == pytest.approx(44)
    shutil.rmtree(tmp_path / "shapes" / "tiny_latte" / "cell-1")
    assert read_sweeps(tmp_path)[0].left.work == pytest.approx(3 * 40)


def test_a_cell_whose_weights_are_not_here_waits(tmp_path, capsys):
    write_plan(tmp_path, [planned(0, 0) | {"cell": None}])
    assert printed(tmp_path, capsys)[1:] == [
        "task 0  0 of 1 done  waiting",
        "1 cell: 1 waiting; about 10 s of work left, and nothing runs, as planned: no cell is done",
    ]


def test_a_task_runs_from_the_start_of_its_process(tmp_path, capsys):
    folder = write_plan(tmp_path, [planned(0, 0), planned(1, 1)]).parent
    write_cell(tmp_path, 0, "done")
    with working_on(folder, 1):
        _, first, second, total = printed(tmp_path, capsys)
    assert first == "task 0  1 of 1 done"
    at_work = rf"on {socket.gethostname()} process {os.getpid()}, since \d\d:\d\d"
    assert re.fullmatch(rf"task 1  0 of 1 done  running  {at_work}", second)
    assert "with 1 task at a time" in total
    assert printed(tmp_path, capsys)[2] == "task 1  0 of 1 done  waiting"


def test_a_task_whose_process_was_killed_waits_and_its_lock_goes(tmp_path, capsys):
    folder = write_plan(tmp_path, [planned(0, 0)]).parent
    code = (
        "import os, sys; from pathlib import Path; from motionexp.jobs.task_workers import working_on\n"
        "with working_on(Path(sys.argv[1]), 0): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -9
    (lock,) = (folder / "tasks").iterdir()
    assert printed(tmp_path, capsys)[1] == "task 0  0 of 1 done  waiting"
    with working_on(folder, 1):
        remove_dead_workers(folder)
        assert workers(folder).keys() == {1}
    assert not lock.exists()


def test_a_file_of_another_name_is_no_process(tmp_path):
    (tmp_path / "tasks").mkdir()
    for name in ("x.lock", "000.20261399T990000Z.1.host.lock", "000.sh"):
        path = tmp_path / "tasks" / name
        with locked(path):
            assert workers(tmp_path) == {}


def test_a_terminal_gets_one_line_a_task_however_narrow_it_is(sweep):
    (sweep / "sweeps" / "0a1b2c3d4e5f" / "plan.json").unlink()
    write_plan(sweep, [planned(2, 0, caption="a\x1b[2J dog\n" * 20)], "ffff")
    console = Console(width=60, force_terminal=True, color_system=None, record=True)
    console.print(status_module._rendered(read_sweeps(sweep)))
    lines = [line for line in console.export_text().splitlines() if line.startswith("task 0")]
    assert len(lines) == 1
    assert len(lines[0]) <= 60
    assert "\x1b" not in lines[0]


def test_a_watch_in_a_log_ends_with_the_last_cell(sweep, monkeypatch, capsys):
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        for number in (2, 4, 5, 6):
            shutil.rmtree(sweep / "shapes" / "tiny_latte" / f"cell-{number}", ignore_errors=True)
            write_cell(sweep, number, "done")

    monkeypatch.setattr(status_module.time, "sleep", sleep)
    status([f"output={sweep}", "--watch"])
    assert looks == [status_module.LOG_SECONDS]
    assert capsys.readouterr().out.splitlines()[-1] == "7 cells: 6 done, 1 failed"


@pytest.mark.parametrize("words", [["tau=700"], ["output=x", "output=y"], ["output="], ["-m"], ["output=x"]])
def test_wrong_words_and_empty_folders_are_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_a_cell_in_a_smaller_batch_stands_for_the_one_it_replaces(tmp_path):
    for number, state in ((0, "failed"), (1, "failed"), (2, "done")):
        more = {"replaced_by": f"cell-{number + 1}"} if state == "failed" else {}
        write_cell(tmp_path, number, state, error="out of memory", **more)
    write_plan(tmp_path, [planned(0, 0)])
    assert read_sweeps(tmp_path)[0].counts == {"done": 1}
    for number, name in ((3, "cell-4"), (4, "cell-3")):  # which no program writes
        write_cell(tmp_path, number, "failed", replaced_by=name)
    assert read_state(tmp_path / "shapes" / "tiny_latte" / "cell-3").state == "failed"


# The file of the progress


@pytest.fixture
def clock(monkeypatch):
    """A clock of the test: `clock[0]` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress_file, "monotonic", lambda: now[0])
    return now


def test_progress_is_written_every_ten_seconds_and_at_the_end(tmp_path, clock, monkeypatch):
    writes: list[dict] = []
    monkeypatch.setattr(progress_file, "write_whole", lambda _, content: writes.append(json.loads(content)))
    progress = ProgressFile(tmp_path)
    for step in range(1, 26):
        clock[0] += 1
        progress.step("fit", step, 25, 0.5)
    progress.close()
    assert [entry["step"] for entry in writes] == [1, 11, 21, 25]
    assert writes[-1]["seconds"] == 25
    assert writes[0]["loss"] == 0.5


def test_seconds_of_an_interrupted_cell_add_up(tmp_path, clock):
    for seconds in (4, 6):
        progress = ProgressFile(tmp_path)
        clock[0] += seconds
        progress.step("sample", 1, 2)
        progress.close()
    progress = ProgressFile(tmp_path)  # a process that finds nothing to do
    clock[0] += 50
    progress.close()
    stored = read_progress(tmp_path / "progress.json")
    assert stored is not None
    assert (stored.seconds, stored.loss) == (10, None)


def test_a_progress_that_cannot_be_written_does_not_end_the_work(tmp_path):
    progress = ProgressFile(tmp_path / "missing")
    progress.step("fit", 1, 2, 0.5)
    progress.close()
    assert not any(tmp_path.iterdir())


def test_a_status_that_is_no_object_is_damaged(tmp_path):
    (tmp_path / "status.json").write_text("[]")
    with pytest.raises(InputError, match=r"status\.json"):
        read_state(tmp_path)
