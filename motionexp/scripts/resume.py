"""What programs share that measure several models in turn and continue after an interruption."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.jobs.job import Job
from motionexp.results.rows import Row, append_rows, read_rows

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class RowFile:
    """The rows of one model in a file that several runs and models share.

    Attributes:
        path: the file; it need not exist.
        job: its model, weights and precision select rows.
        metric_version: selects rows.
        strata: select rows.
    """

    path: Path
    job: Job
    metric_version: int
    strata: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """All rows that were measured with these weights, this precision, this version and these strata."""
        job = self.job
        key = (job.plan.model.name, job.backbone.weights_hash, job.precision, self.metric_version)
        return [
            row
            for row in (read_rows(self.path) if self.path.exists() else [])
            if (row.model, row.weights_hash, row.precision, row.metric_version) == key
            and self.strata.items() <= row.strata.items()
        ]

    def missing(self, units: Iterable[Unit], unit_of: Callable[[Row], Unit]) -> list[Unit]:
        """The units of work without rows. `add` writes all rows of a unit at once, so none is half done."""
        finished = {unit_of(row) for row in self.rows()}
        return [unit for unit in units if unit not in finished]

    def add(self, rows: Sequence[Row]) -> None:
        """Append the rows of one unit of work."""
        append_rows(self.path, rows)


def progress_bar(total: int, description: str, unit: str) -> "tqdm[Any]":
    """A progress bar. In a log file every update is a line, so it is updated every half minute there."""
    seconds = 0.1 if sys.stderr.isatty() else 30
    return tqdm(total=total, desc=description, unit=unit, leave=False, mininterval=seconds)
