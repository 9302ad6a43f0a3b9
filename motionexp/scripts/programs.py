"""What programs share: errors in one line, a job for each model, and rows to continue from."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TypeVar

from omegaconf import OmegaConf

from motionexp.config.options import CONF, options
from motionexp.config.schema import BUNDLED, JobConfig
from motionexp.errors import InputError
from motionexp.hub import BUNDLED_PREFIX
from motionexp.jobs.job import Job
from motionexp.results.rows import Row, read_rows

Unit = TypeVar("Unit")
Main = Callable[[Sequence[str]], int]


def exit_code(main: Callable[[Sequence[str]], int | None]) -> Main:
    """Make a program's main function print an InputError in one line, and return the exit code."""

    @wraps(main)
    def wrapped(arguments: Sequence[str]) -> int:
        try:
            return main(arguments) or 0
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return wrapped


def jobs_of(arguments: Sequence[str], settings_of: Callable[[Sequence[str]], JobConfig]) -> list[JobConfig]:
    """Settings for each model of `model=NAME,NAME`, or for every bundled one where none is named.

    A bundled model without weights is reported on stderr and left out.

    Args:
        arguments: overrides of a job.
        settings_of: makes settings of them, with the report's own defaults.

    Raises:
        InputError: what `settings_of` finds, for any of the models.
    """
    named = [argument.removeprefix("model=") for argument in arguments if argument.startswith("model=")]
    rest = [argument for argument in arguments if not argument.startswith("model=")]
    if not named and any(argument.startswith("model.") for argument in rest):
        return [settings_of(rest)]
    names = named[-1].split(",") if named else _bundled()
    return [settings_of([f"model={name}", *rest]) for name in names]


def _bundled() -> list[str]:
    names = []
    for name in options("model"):
        path = str(OmegaConf.select(OmegaConf.load(CONF / "model" / f"{name}.yaml"), "path"))
        folder = BUNDLED / path.removeprefix(BUNDLED_PREFIX)
        if (folder / "model_index.json").is_file():
            names.append(name)
        elif path.startswith(BUNDLED_PREFIX):
            print(f"model={name}: no weights in {folder} yet (make pretrain); skipped", file=sys.stderr)
    return names


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
        """The units of work without rows. All rows of a unit are appended at once, so none is half done."""
        finished = {unit_of(row) for row in self.rows()}
        return [unit for unit in units if unit not in finished]
