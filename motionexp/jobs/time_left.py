"""The time that a sweep still takes, from what its finished cells took. Imports no torch."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from motionexp.jobs.sweep_plan import PlannedCell
from motionexp.results.cell_state import DAMAGED, DONE, FAILED, RUNNING, CellState, ago
from motionexp.results.formats import amount, duration

Planned = tuple[PlannedCell, CellState]


@dataclass(frozen=True)
class TimeLeft:
    """The time that a sweep still takes.

    Attributes:
        work: seconds of all its cells, one after another; NaN: unknown.
        wall: seconds until the last task ends, with as many tasks at a time as now; NaN: unknown.
        running: tasks that run now.
        measured: whether finished cells were timed; else it is what the plan expected.
    """

    work: float
    wall: float
    running: int
    measured: bool

    def in_words(self) -> str:
        """As the end of a line."""
        if math.isnan(self.work):
            return "time left: unknown until a cell is done"
        source = "" if self.measured else ", as planned: no cell is done"
        if not self.running:
            return f"about {duration(self.work)} of work left, and nothing runs{source}"
        return f"about {duration(self.wall)} left with {amount(self.running, 'task')} at a time{source}"


def time_left(tasks: Sequence[Sequence[Planned]], busy: Sequence[bool]) -> TimeLeft:
    """The time left for the cells of tasks, each of which makes its cells one after another.

    Failed cells are not counted: nobody runs them before the command is given again. `busy` says of each
    task whether a process works on it now.
    """
    timed = [
        (cell, state.progress.seconds)
        for task in tasks
        for cell, state in task
        if state.state == DONE and state.progress and state.progress.seconds > 0
    ]
    costs = _Costs(timed)
    left = [sum(_left(state, costs.of(cell)) for cell, state in task) for task in tasks]
    running, work = sum(busy), sum(left)
    # A task that runs ends no sooner than its own cells; those that wait share the places.
    longest = max((seconds for seconds, is_busy in zip(left, busy, strict=True) if is_busy), default=0.0)
    return TimeLeft(work, max(longest, work / max(1, running)), running, bool(timed))


class _Costs:
    """The seconds that a cell takes: as planned, corrected by what finished cells took beside their plan."""

    def __init__(self, timed: Sequence[tuple[PlannedCell, float]]) -> None:
        planned = [(cell.seconds, seconds) for cell, seconds in timed if cell.seconds]
        expected, took = sum(first for first, _ in planned), sum(second for _, second in planned)
        self.factor = took / expected if expected else 1.0
        took_of: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for cell, seconds in timed:
            took_of[cell.model, cell.is_base].append(seconds)
        self.means = {kind: fmean(seconds) for kind, seconds in took_of.items()}

    def of(self, cell: PlannedCell) -> float:
        """NaN where neither the plan nor a finished cell of the model says it.

        The base model's cells take less, for they train nothing. Until one is done, they count as the others,
        and the others as they.
        """
        if cell.seconds is not None:
            return cell.seconds * self.factor
        of_others = self.means.get((cell.model, not cell.is_base), math.nan)
        return self.means.get((cell.model, cell.is_base), of_others)


def _left(cell: CellState, cost: float) -> float:
    if cell.state in (DONE, FAILED, DAMAGED):
        return 0.0
    spent = cell.progress.seconds if cell.progress else 0.0
    if cell.state == RUNNING and cell.last_seen is not None and not cell.is_elsewhere:
        spent += ago(cell.last_seen).total_seconds()
    return max(0.0, cost - spent) if not math.isnan(cost) else math.nan
