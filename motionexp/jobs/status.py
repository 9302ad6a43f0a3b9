"""`python run.py status`: which cells are done, running, failed or waiting, and the time left. No torch.

It reads files alone, so that it works beside any launcher, and on a folder that was copied from elsewhere.
"""

import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from motionexp.config.commands import StatusConfig, command_settings
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.sweep_plan import PlannedCell, SweepPlan, plan_files, read_plan
from motionexp.jobs.task_workers import Worker, workers
from motionexp.jobs.time_left import TimeLeft, time_left
from motionexp.results.cell_state import (
    DAMAGED,
    DONE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    STATES,
    WAITING,
    CellState,
    ago,
    read_state,
)
from motionexp.results.formats import amount, duration, printable
from motionexp.results.runs import folders_of

WATCH = "--watch"
MOST_FAILURES = 20
"""Failures that are named of each sweep."""
FRESH = timedelta(seconds=30)
"""A process that wrote as lately as this needs no "last seen"."""
WATCH_SECONDS = 5.0
LOG_SECONDS = 60.0
"""Between two looks at the files, on a terminal and in a log."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class TaskStatus:
    """A line of the status: a task of a sweep, or a folder of cells of no sweep.

    Attributes:
        name: of the task, or of the folder.
        cells: each with what distinguishes it from the others.
        worker: the process that does the task now; None: nobody does.
    """

    name: str
    cells: Sequence[tuple[CellState, str]]
    worker: Worker | None = None

    @property
    def counts(self) -> Counter[str]:
        """{state: cells}."""
        return Counter(cell.state for cell, _ in self.cells)


@dataclass(frozen=True)
class SweepStatus:
    """A sweep, or the cells of no sweep: a title, a line for each task, failures and the time left."""

    title: str
    tasks: Sequence[TaskStatus]
    left: TimeLeft | None

    @property
    def counts(self) -> Counter[str]:
        """{state: cells} of all tasks."""
        return sum((task.counts for task in self.tasks), Counter[str]())

    @property
    def is_over(self) -> bool:
        """Whether no cell runs or waits."""
        return not any(self.counts[state] for state in (RUNNING, WAITING, INTERRUPTED))


def status(words: Sequence[str]) -> None:
    """`python run.py status [output=FOLDER] [--watch]`.

    Raises:
        InputError: another word, or nothing ran there.
    """
    cfg, _ = command_settings("status", StatusConfig, [word for word in words if word != WATCH])
    output = user_path(cfg.output)
    console = Console()
    if WATCH not in words:
        _print(console, read_sweeps(output))
        return
    # Ctrl-C is the way to end a watch.
    with suppress(KeyboardInterrupt):
        (_watch if console.is_terminal else _watch_in_log)(console, output)


def _print(console: Console, sweeps: Sequence[SweepStatus]) -> None:
    if console.is_terminal:
        console.print(_rendered(sweeps))
        return
    for line in _plain(sweeps):
        console.print(Text(line), soft_wrap=True)


def _watch(console: Console, output: Path) -> None:
    sweeps = read_sweeps(output)
    with Live(_rendered(sweeps), console=console, auto_refresh=False) as live:
        while not all(sweep.is_over for sweep in sweeps):
            time.sleep(WATCH_SECONDS)
            sweeps = read_sweeps(output)
            live.update(_rendered(sweeps), refresh=True)


def _watch_in_log(console: Console, output: Path) -> None:
    while True:
        sweeps = read_sweeps(output)
        for line in _plain(sweeps):
            console.print(Text(line), soft_wrap=True)
        if all(sweep.is_over for sweep in sweeps):
            return
        time.sleep(LOG_SECONDS)


# Reading


def read_sweeps(output: Path) -> list[SweepStatus]:
    """The sweeps of an output folder by the time of their plan, then the cells that no plan names.

    Raises:
        InputError: nothing ran there.
    """
    plans, sweeps, planned = list[SweepPlan](), list[SweepStatus](), set[Path]()
    for path in plan_files(output):
        try:
            plans.append(read_plan(path))
        except (InputError, OSError) as error:
            sweeps.append(SweepStatus(printable(str(error)), (), None))
    for plan in sorted(plans, key=lambda plan: plan.written):
        states = [_planned_state(cell) for cell in plan.cells]
        sweeps.append(_sweep(plan, states))
        # A cell of a smaller batch stands for the one of the plan that it replaces.
        planned.update(state.folder for state in states)
        planned.update(cell.folder for cell in plan.cells if cell.folder is not None)
    by_folder = _unplanned(output, planned, is_needed=not sweeps)
    tasks = [
        TaskStatus(printable(name), [(state, _own_label(state)) for state in states])
        for name, states in by_folder.items()
        if states
    ]
    return [*sweeps, *([SweepStatus(f"cells of {output} in no sweep", tasks, None)] if tasks else [])]


def _unplanned(output: Path, planned: Collection[Path], *, is_needed: bool) -> dict[str, list[CellState]]:
    """The cells that no plan names, by their folder below the output. Raises InputError if one is needed."""
    try:
        folders = folders_of(output)
    except InputError:
        if is_needed:
            raise
        return {}
    by_folder = {}
    for folder in folders:
        paths = (path.parent for path in sorted(folder.glob("*/status.json")))
        cells = [path for path in paths if path not in planned and not path.name.startswith(".")]
        states = [_state(cell) for cell in cells]
        # One that a smaller batch replaces is not shown beside it.
        states = [state for cell, state in zip(cells, states, strict=True) if state.folder == cell]
        by_folder[folder.relative_to(output).as_posix()] = states
    return by_folder


def _sweep(plan: SweepPlan, states: Sequence[CellState]) -> SweepStatus:
    by_task: dict[int | None, list[tuple[PlannedCell, CellState]]] = {number: [] for number in plan.tasks}
    at_work = workers(plan.folder)
    for cell, state in zip(plan.cells, states, strict=True):
        problem = plan.problems.get(cell.task) if cell.task is not None else None
        if problem and state.state == WAITING and cell.task not in at_work:
            state = replace(state, state=FAILED, error=problem)  # its task has ended without it
        by_task.setdefault(cell.task, []).append((cell, state))
    models = len({cell.model for cell in plan.cells})
    seeds = len({cell.training_seed for cell in plan.cells if not cell.is_base})
    tasks, busy = list[TaskStatus](), list[bool]()
    in_order = sorted(by_task.items(), key=lambda entry: -1 if entry[0] is None else entry[0])
    for number, cells in in_order:
        labelled = [(state, _label(cell, models, seeds)) for cell, state in cells]
        worker = None if number is None else at_work.get(number)
        tasks.append(TaskStatus("before" if number is None else f"task {number}", labelled, worker))
        busy.append(worker is not None or any(state.state == RUNNING for state, _ in labelled))
    about = f"{plan.launcher}, planned {plan.written.astimezone():%Y-%m-%d %H:%M}"
    title = f"{plan.folder}: python run.py {shlex.join(plan.command)} ({about})"
    return SweepStatus(printable(title), tasks, time_left([cells for _, cells in in_order], busy))


def _label(cell: PlannedCell, models: int, seeds: int) -> str:
    """What distinguishes a cell from the others of its sweep."""
    words = [f"{name}={value}" for name, value in cell.settings.items() if name != "references"]
    if models > 1 and "model" not in cell.settings:
        words.insert(0, cell.model)
    words.append(cell.reference)
    if seeds > 1 and cell.training_seed is not None and not cell.is_base:
        words.append(f"training seed {cell.training_seed}")
    return " ".join(words)


def _own_label(cell: CellState) -> str:
    """What its own files say of a cell: the unit of a probe, or tau and reference."""
    tau = cell.about.get("tau")
    words = [f"tau={tau:g}"] if isinstance(tau, float | int) else []
    return str(cell.about.get("unit", "")) or " ".join([*words, cell.reference])


def _planned_state(cell: PlannedCell) -> CellState:
    if cell.folder is None:
        return CellState(Path(), WAITING if cell.task is not None else DONE, {})
    return _state(cell.folder)


def _state(folder: Path) -> CellState:
    try:
        return read_state(folder)
    except (InputError, OSError) as error:
        return CellState(folder, DAMAGED, {}, error=str(error))


# Printing


def _rendered(sweeps: Sequence[SweepStatus]) -> Group:
    """For a terminal: a line for each task, cut at the width."""
    parts: list[Text | Table] = []
    for sweep in sweeps:
        parts.append(Text(sweep.title, style="bold"))
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column()
        for task in sweep.tasks:
            *short, at_work = _columns(task)
            # The column may become narrower than the text, which alone is cut.
            table.add_row(*short, Text(at_work, no_wrap=True, overflow="ellipsis"))
        parts += [table, *map(Text, _ending(sweep)), Text()]
    return Group(*parts[:-1])


def _plain(sweeps: Sequence[SweepStatus]) -> Iterator[str]:
    """For a log: plain lines."""
    for sweep in sweeps:
        yield sweep.title
        yield from ("  ".join(filter(None, _columns(task))) for task in sweep.tasks)
        yield from _ending(sweep)


def _columns(task: TaskStatus) -> tuple[str, str, str, str]:
    """Its name, how many cells are done, its state, and what goes on."""
    counts = task.counts
    running = [entry for entry in task.cells if entry[0].state == RUNNING]
    states = [state for state in STATES[1:] if counts[state]]
    state = states[0] if states else DONE
    if state in (FAILED, DAMAGED) and counts[WAITING] + counts[INTERRUPTED]:
        state = WAITING
    failed = counts[FAILED] + counts[DAMAGED]
    words = f"{counts[DONE]} of {len(task.cells)} done" + (f", {failed} failed" if failed else "")
    if not task.cells:  # later tasks have its cells, or it draws figures
        words, state = "no cells", ""
    if state == DONE:  # which the words say
        state = ""
    if not running and (worker := task.worker):  # it has not come to a cell yet, or not to the next one
        return task.name, words, RUNNING, printable(_where(worker.host, worker.pid, worker.since))
    if not running:
        return task.name, words, state, ""
    # Cells that are trained in one batch all run: the one that was seen last says how far they are.
    cell, label = max(running, key=lambda entry: entry[0].last_seen or LONG_AGO)
    more = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
    return task.name, words, state, printable(f"{label}{more}: {_at_work(cell)}")


def _at_work(cell: CellState) -> str:
    """How far a running cell is, where and since when."""
    words = []
    if (progress := cell.progress) and (cell.since is None or progress.time >= cell.since):
        words.append(f"{progress.stage} {progress.step} of {progress.steps}")
        words += [f"loss {progress.loss:.4f}"] if progress.loss is not None else []
    where = _where(cell.host, cell.about.get("pid"), cell.since)
    words += [where] if where else []
    seen = cell.last_seen
    if seen is not None and (cell.is_elsewhere or ago(seen) > FRESH):
        words.append(f"last seen {duration(ago(seen).total_seconds())} ago")
    return ", ".join(words)


def _where(host: str, pid: int | None, since: datetime | None) -> str:
    """A process in words, as far as it is known."""
    process = f"process {pid}" if pid is not None else ""
    place = " ".join(filter(None, (f"on {host}" if host else "", process)))
    return ", ".join(filter(None, (place, f"since {_clock(since)}" if since else "")))


def _clock(time: datetime) -> str:
    """The time of day here; with the date where it was another day."""
    local, today = time.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"


def _ending(sweep: SweepStatus) -> Iterator[str]:
    """The failures, and the sum of all tasks."""
    for task in sweep.tasks:
        not_begun = Counter(cell.error for cell, _ in task.cells if cell.state == FAILED and not cell.about)
        for error, count in not_begun.items():
            yield printable(f"failed: {amount(count, 'cell')} of {task.name}, not begun: {error}")
    failures = [
        (cell, label)
        for task in sweep.tasks
        for cell, label in task.cells
        if cell.state == DAMAGED or (cell.state == FAILED and cell.about)
    ]
    for cell, label in failures[:MOST_FAILURES]:
        log = f"; log: {cell.log}" if cell.log else ""
        yield printable(f"{cell.state}: {label}: {cell.error}; cell: {cell.folder}{log}")
    if len(failures) > MOST_FAILURES:
        yield f"failed: and {len(failures) - MOST_FAILURES} more"
    counts = sweep.counts
    if not counts:
        return
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    left = f"; {sweep.left.in_words()}" if sweep.left and not sweep.is_over else ""
    yield f"{amount(counts.total(), 'cell')}: {words}{left}"
