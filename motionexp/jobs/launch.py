"""A sweep through a launcher: planned, cut into tasks, run, and what failed of it. Imports no torch."""

import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from rich.console import Console

from motionexp.config.launcher import (
    PREFIX,
    JoblibLauncher,
    Launcher,
    LocalLauncher,
    RayLauncher,
    SlurmLauncher,
)
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.select import make_reader
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.costs import Costs
from motionexp.jobs.failures import Failure, failures
from motionexp.jobs.finished import FinishedCell, read_record
from motionexp.jobs.model_rates import ModelRates
from motionexp.jobs.outcomes import OnEnd, Outcome
from motionexp.jobs.references import read_references
from motionexp.jobs.sweep_folder import SUBMITTED, SweepFolder, Task, planned_cells
from motionexp.jobs.tasks import Piece, SweepJob, commands_of, cut, pieces_of
from motionexp.jobs.waiting import announced
from motionexp.jobs.worker import RunCommands
from motionexp.results.formats import amount, duration

MOST_TASKS = 10_000


class Engine(Protocol):
    """What runs tasks. `at_once` is how many of them run at once."""

    at_once: int

    def attached(self, folder: SweepFolder) -> Any:
        """The tasks of an earlier command that still run."""

    def run(self, folder: SweepFolder, tasks: Sequence[Task], run: RunCommands, on_end: OnEnd) -> None:
        """Run tasks; `on_end` is called with each one's outcome."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that is cut into tasks.

    Attributes:
        jobs: of the sweep.
        pieces: of all jobs.
        tasks: of the pieces that are not finished.
        last: what comes after all tasks: probes that draw their figures from all parts.
        cells: as the plan's file has them.
        finished: the finished cells of each job.
        cut_by: where the costs come from by which tasks are of like length: `ModelRates.source`.
    """

    jobs: Sequence[SweepJob]
    pieces: Sequence[Piece]
    tasks: list[Task]
    last: list[Task]
    cells: list[dict[str, Any]]
    finished: Mapping[int, list[FinishedCell]]
    cut_by: str

    def with_numbers(self, place: "Place") -> "SweepPlan":
        """The plan with the numbers that its tasks have in the sweep's folder."""
        tasks, cells = place([*self.tasks, *self.last], self.cells)
        count = len(self.tasks)
        return replace(self, tasks=tasks[:count], last=tasks[count:], cells=cells)


Place = Callable[[list[Task], list[dict[str, Any]]], tuple[list[Task], list[dict[str, Any]]]]
"""`SweepFolder.numbered`, or what stores tasks and cells too."""


def engine_of(launcher: Launcher, jobs: Sequence[JobConfig]) -> Engine:
    """The engine of a launcher. Raises InputError where this machine or the cluster lacks what it needs."""
    match launcher:
        case SlurmLauncher():
            from motionexp.jobs.engine_submitit import SlurmEngine

            return SlurmEngine(launcher, jobs)
        case RayLauncher():
            from motionexp.jobs.engine_ray import RayEngine

            return RayEngine(launcher, jobs)
        case LocalLauncher():
            from motionexp.jobs.engine_submitit import LocalEngine

            return LocalEngine(launcher, jobs)
        case JoblibLauncher():
            from motionexp.jobs.engine_joblib import JoblibEngine

            return JoblibEngine(launcher, jobs)
    raise TypeError(launcher)


def plan_sweep(jobs: Sequence[SweepJob], launcher: Launcher, at_once: int) -> SweepPlan:
    """Cut what is not finished of a sweep into tasks.

    Raises:
        InputError: `hours` is given, and no cost is known.
    """
    pieces = [piece for number, job in enumerate(jobs) for piece in pieces_of(number, job.cfg)]
    with announced("looking for finished cells ..."):
        finished = _finished(jobs, pieces)
    left = [piece for piece in pieces if piece not in finished]
    rates = ModelRates([job.cfg for job in jobs], launcher)
    costs = Costs(jobs, rates.of)
    tasks = (
        cut(jobs, left, costs.of_piece, lambda total: _count(launcher, total, at_once, rates)) if left else []
    )
    task_of = {piece: number for number, task in enumerate(tasks) for piece in task}
    in_plan = planned_cells(jobs, pieces, task_of, costs.seconds)
    seconds: dict[int | None, list[float | None]] = defaultdict(list)
    for cell in in_plan:
        seconds[cell["task"]].append(cell["seconds"])
    planned = [
        Task(number, commands_of(jobs, task), _sum(seconds[number]), len(seconds[number]))
        for number, task in enumerate(tasks)
    ]
    last = _last(jobs, tasks, len(tasks))
    located: dict[int, list[FinishedCell]] = defaultdict(list)
    for piece, cells in finished.items():
        located[piece.job] += cells
    return SweepPlan(jobs, pieces, planned, last, in_plan, located, rates.source)


def _sum(seconds: Sequence[float | None]) -> float | None:
    """The sum of seconds; None if some are not known."""
    numbers = [value for value in seconds if value is not None]
    return round(sum(numbers), 1) if len(numbers) == len(seconds) else None


def _count(launcher: Launcher, total: float, at_once: int, rates: ModelRates) -> int:
    """How many tasks there are, for their cost in all."""
    if launcher.hours is None:
        return launcher.tasks or at_once
    if not rates.are_measured:
        raise InputError(
            f"{PREFIX}hours={launcher.hours:g}: no cell of these models is finished in output=, so that its"
            f" cost is not known; give {PREFIX}tasks= this time"
        )
    count = -(-total // (3600 * launcher.hours))
    if count > MOST_TASKS:
        raise InputError(f"{PREFIX}hours={launcher.hours:g}: {count:,.0f} tasks; at most {MOST_TASKS:,}")
    return max(1, int(count))


def _finished(jobs: Sequence[SweepJob], pieces: Sequence[Piece]) -> dict[Piece, list[FinishedCell]]:
    """The pieces whose results are all stored, with these. A probe looks itself for what it has stored."""
    finished = {}
    read: dict[str, dict[str, Reference]] = {}
    for piece in pieces:
        cfg = jobs[piece.job].cfg
        if cfg.probe is not None or not (user_path(cfg.output) / ".cache" / "finished").is_dir():
            continue
        subject = repr([getattr(cfg, name) for name in OF_REFERENCES])
        if subject not in read:
            references = read_references(cfg, make_reader(cfg.data))
            read[subject] = {reference.name: reference for reference in references}
        cells = read_record(cfg, [read[subject][name] for name in piece.references])
        if cells is not None:
            finished[piece] = cells
    return finished


OF_REFERENCES = (
    *("data", "references", "video", "caption", "start", "fps", "stride", "frames", "fit", "model"),
    *("edits", "edit_kinds", "image", "adapter"),
)
"""The settings that a job's references depend on."""


def _last(jobs: Sequence[SweepJob], tasks: Sequence[Sequence[Piece]], number: int) -> list[Task]:
    """A task for the probes of which no task does all parts: their figures show all."""
    probes = [job for job, single in enumerate(jobs) if single.cfg.probe is not None]
    divided = [job for job in probes if sum(any(piece.job == job for piece in task) for task in tasks) > 1]
    whole = [Piece(job, (), divides=False) for job in divided]
    return [Task(number, commands_of(jobs, whole), None, 0)] if whole else []


def print_tasks(console: Console, plan: SweepPlan, engine: str) -> None:
    """Print the tasks of a launcher as commands."""
    to_do = sum(task.cells for task in plan.tasks)
    console.print(
        f"{engine}: {amount(len(plan.tasks), 'task')}, {amount(to_do, 'cell')} to do,"
        f" {len(plan.cells) - to_do} finished",
        highlight=False,
    )
    _print_source(console, plan)
    for task in [*plan.tasks, *plan.last]:
        time_of = "" if task.seconds is None else f", about {duration(task.seconds)}"
        console.print(f"task {task.name}: {amount(task.cells, 'cell')}{time_of}", highlight=False)
        for command in task.commands:
            console.print(
                f"  python run.py {shlex.join(command)}", markup=False, highlight=False, soft_wrap=True
            )


def launch(
    jobs: Sequence[SweepJob],
    launcher: Launcher,
    command: Sequence[str],
    run: RunCommands,
    *,
    dry: bool = False,
) -> list[Failure]:
    """Run a sweep through a launcher.

    Args:
        jobs: of the sweep, checked.
        command: the arguments that the user typed.
        run: what a process does with the commands of its task; a function that can be imported.
        dry: only print the tasks.

    Returns:
        The cells that failed, and the tasks that failed as a whole.

    Raises:
        InputError: the engine cannot run here, or refuses the tasks: the sweep's folder is as before.
        KeyboardInterrupt, Stopped: an interrupt; tasks of a cluster go on.
    """
    console, settings = Console(), [job.cfg for job in jobs]
    folder = SweepFolder.of(settings)
    engine = engine_of(launcher, settings)
    try:
        if not dry and (earlier := engine.attached(folder)):
            _wait(console, engine, earlier)
        plan = plan_sweep(jobs, launcher, engine.at_once)
        if dry:
            print_tasks(console, plan.with_numbers(folder.numbered), launcher.name)
            return []
        about = {"command": [*command], "launcher": launcher.name}
        undo = folder.undo()
        plan = plan.with_numbers(partial(folder.add, about))
        for job, cells in plan.finished.items():
            folder.report_finished(settings[job], cells)
        return _failures(folder, _run(console, plan, engine, folder, run, undo))
    finally:
        engine.close()


def _print_source(console: Console, plan: SweepPlan) -> None:
    if plan.cut_by:
        console.print(f"tasks are cut by {plan.cut_by}", markup=False, highlight=False, soft_wrap=True)


def _wait(console: Console, engine: Any, earlier: Mapping[int, Any]) -> None:
    tasks = f"{len(earlier)} tasks that an earlier command submitted are"
    if len(earlier) == 1:
        tasks = "a task that an earlier command submitted is"
    console.print(f"{tasks} not finished: waiting")
    engine.wait(earlier, lambda number, outcome: _print_outcome(f"{number:03d}", outcome, ""))


def _run(
    console: Console,
    plan: SweepPlan,
    engine: Engine,
    folder: SweepFolder,
    run: RunCommands,
    undo: Callable[[Collection[Path]], None],
) -> dict[int, Outcome]:
    """Run the tasks of a plan; returns how each ended. `undo` is called where nothing of them has run.

    Raises:
        InputError: the engine refuses the tasks, or every task was refused in its own process.
    """
    to_do = sum(task.cells for task in plan.tasks)
    finished = len(plan.cells) - to_do
    console.print(
        f"{amount(len(plan.tasks), 'task')} for {amount(to_do, 'cell')}, {engine.at_once} at once;"
        f" {amount(finished, 'cell')} {'is' if finished == 1 else 'are'} finished",
        highlight=False,
    )
    _print_source(console, plan)
    console.print(f"plan and logs: {folder.path}", markup=False, highlight=False, soft_wrap=True)
    ends = _TaskEnds(folder, len(plan.tasks) + len(plan.last))
    try:
        if plan.tasks:
            engine.run(folder, plan.tasks, run, ends.add)
    except InputError:  # the engine refuses them: none has run
        undo(())
        raise
    if plan.tasks and ends.all_refused:
        logs = [Path(outcome.log) for outcome in ends.outcomes.values()]
        reasons = dict.fromkeys(outcome.reason for outcome in ends.outcomes.values())  # from the logs
        undo([*logs, folder.path / SUBMITTED])
        raise InputError("; ".join(reasons))
    if plan.last and not any(outcome.problem for outcome in ends.outcomes.values()):
        engine.run(folder, plan.last, run, ends.add)
    return ends.outcomes


class _TaskEnds:
    """How the tasks of a command ended. Each has a line, unless all of them are refused.

    Args:
        folder: of the sweep.
        count: of the tasks.

    Attributes:
        outcomes: {number of the task: how it ended}.
    """

    def __init__(self, folder: SweepFolder, count: int) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._folder, self._count = folder, count
        self._start, self._lock = time.monotonic(), Lock()
        self._lines: list[tuple[str, Outcome, str]] = []  # that are not printed yet

    @property
    def all_refused(self) -> bool:
        """Whether every task that has ended was refused, and no job has come to its cells."""
        refused = all(outcome.is_refusal for outcome in self.outcomes.values())
        return refused and not self._folder.has_reports

    def add(self, task: Task, outcome: Outcome) -> None:
        """Store and print how a task ended; engines call this from several threads."""
        with self._lock:
            self.outcomes[task.number] = outcome
            if outcome.problem:
                self._folder.ended(task.number, outcome.reason)
            after = duration(time.monotonic() - self._start)
            self._lines.append((task.name, outcome, f" ({len(self.outcomes)} of {self._count}, {after})"))
            if not self.all_refused:
                for line in self._lines:
                    _print_outcome(*line)
                self._lines.clear()


def _failures(folder: SweepFolder, outcomes: Mapping[int, Outcome]) -> list[Failure]:
    """The failed cells of failed tasks; of a task without one the task itself."""
    failed = []
    cells = folder.read()["cells"]
    for number, outcome in sorted(outcomes.items()):
        if outcome.problem:
            paths = [
                folder.output / cell["cell"] for cell in cells if cell["task"] == number and cell["cell"]
            ]
            of_cells = failures(dict.fromkeys(paths))
            whole = Failure(f"task {number:03d}", outcome.reason, outcome.log)
            failed += of_cells if of_cells and outcome.is_code else [*of_cells, whole]
    return failed


def _print_outcome(task: str, outcome: Outcome, counted: str) -> None:
    if outcome.problem:
        log = f"; its output: {outcome.log}" if outcome.log else ""
        print(f"error: task {task} failed: {outcome.problem}{log}", file=sys.stderr, flush=True)
    else:
        print(f"task {task} is done{counted}", flush=True)
