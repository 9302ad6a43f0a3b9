"""What all probes of a job share: their units of work, what each needs and leaves, and their figures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from motionexp.data.base import Reference
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan
from motionexp.results.rows import Row

Progress = Callable[[int], object]
"""Called with the number of steps that are done since its last call."""


def counting(progress: Progress) -> Callable[[int, int], None]:
    """A callback that takes (steps done, all steps), and reports the steps since its last call."""
    before = 0

    def advance(done: int, total: int) -> None:
        nonlocal before
        progress(done - before)
        before = done

    return advance


class Work(NamedTuple):
    """What is left to do: steps of the progress bar, and what takes time and disk.

    Attributes:
        steps: of sampling and inversion, or videos that are read.
        evaluations: of the network, on one video each.
        encoded: videos that go through the VAE's encoder.
        videos: that are stored.
    """

    steps: int = 0
    evaluations: int = 0
    encoded: int = 0
    videos: int = 0


class Unit(ABC):
    """A unit of work of a probe, whose results are stored in a cell.

    Attributes:
        name: for messages.
        cell: its folder's name is a `probe_id`.
        captions: have to be embedded before it runs.
    """

    name: str
    cell: Cell
    captions: Sequence[str]

    @property
    @abstractmethod
    def stored(self) -> tuple[int, int]:
        """The number of its results that are stored, and of all."""

    @property
    @abstractmethod
    def work(self) -> Work:
        """The work of a unit that is not finished."""

    @property
    def is_finished(self) -> bool:
        """Whether all results are stored."""
        done, all_results = self.stored
        return done == all_results

    @abstractmethod
    def references(self) -> Iterable[Reference]:
        """The videos that have to be encoded before it runs."""

    @abstractmethod
    def run(self, job: Job, progress: Progress) -> None:
        """Make and store what is missing. The caller holds the cell.

        An interrupt loses no result that is stored, and the next run continues from what is stored.
        """


class Probe(ABC):
    """A probe of a job.

    Args:
        plan: of a job with `probe=`.

    Attributes:
        units: of its work.
        scores: whether its rows are scores of videos by the metrics of probes.
        headings: of a plan's table: what a unit is, and of what it stores results.
    """

    scores = False
    headings: tuple[str, str]
    units: Sequence[Unit]

    def __init__(self, plan: JobPlan) -> None:
        assert plan.probe is not None, "probe="
        self.job, self.plan = plan, plan.probe

    @property
    def missing(self) -> list[Unit]:
        """The units that are not finished."""
        return [unit for unit in self.units if not unit.is_finished]

    @property
    def cost(self) -> str:
        """What a unit costs, in words."""
        return ""

    def model_rows(self, job: Job) -> list[Row]:
        """The rows of the model itself that the figures need; measured once and stored."""
        return []

    def rows(self, job: Job) -> list[Row]:
        """The rows of all units, which are finished."""
        return [row for unit in self.units for row in unit.cell.rows()]

    @abstractmethod
    def show(self, job: Job, rows: Sequence[Row], model_rows: Sequence[Row]) -> None:
        """Print the means of the rows, and draw the figures into `figures`."""

    @property
    def figures(self) -> Path:
        """The folder of figures of the job's suite and model, which has one folder for each probe."""
        return self.job.folder(self.job.references[0].suite) / "figures"
