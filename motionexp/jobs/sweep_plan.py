"""The plan of a sweep, which its folder OUTPUT/sweeps/ID/ holds: `plan.json`. Imports no torch."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.jobs.finished import path_below

SWEEP_FOLDER = "MOTIONEXP_SWEEP"
"""The environment's variable that names the folder of the sweep that a process works for."""
SWEEPS, PLAN = "sweeps", "plan.json"
VERSION = 1


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a sweep.

    Attributes:
        folder: of its results; None: its name depends on weights that were not on the machine.
        model, reference: that it is of.
        training_seed: of its adapter; None: nothing is trained.
        is_base: whether it is the base model's, which nothing is trained for.
        settings: {swept setting: its value as text}.
        task: the number of the task that makes it; None: it was finished before.
        seconds: that it was expected to take when the sweep was planned; None: unknown.
    """

    folder: Path | None
    model: str
    reference: str
    training_seed: int | None
    is_base: bool
    settings: Mapping[str, str]
    task: int | None
    seconds: float | None


@dataclass(frozen=True)
class SweepPlan:
    """A sweep: its command, when it was planned, and its cells.

    Attributes:
        folder: OUTPUT/sweeps/ID/.
        command: the words after `python run.py`.
        launcher: that runs its tasks.
        written: when it was planned.
        tasks: their numbers.
        problems: {number of a task: the problem with which it has ended}.
        cells: of all tasks.
    """

    folder: Path
    command: tuple[str, ...]
    launcher: str
    written: datetime
    tasks: tuple[int, ...]
    problems: Mapping[int, str]
    cells: tuple[PlannedCell, ...]


def plan_files(output: Path) -> list[Path]:
    """The plans of the sweeps below an output folder, by name; the one plan of a sweep's folder."""
    return [output / PLAN] if (output / PLAN).exists() else sorted((output / SWEEPS).glob(f"*/{PLAN}"))


def output_of(sweep: Path) -> Path:
    """OUTPUT of a sweep's folder OUTPUT/sweeps/ID, which may be given as ID, `.` or `../ID`."""
    is_whole = len(sweep.parents) > 1 and ".." not in sweep.parts
    return (sweep if is_whole else Path(os.path.abspath(sweep))).parents[1]


def cells_of_sweep(sweep: Path) -> list[Path]:
    """The folders of a sweep's cells, as far as its plan names them. Raises InputError for a damaged plan."""
    path = sweep / PLAN
    cells = read_plan(path).cells if path.exists() else ()
    return [cell.folder for cell in cells if cell.folder is not None]


def read_plan(path: Path) -> SweepPlan:
    """Read the plan of a sweep, OUTPUT/sweeps/ID/plan.json.

    Raises:
        InputError: it is damaged, or another version of this package wrote it.
    """
    content = read_object(path)
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: a sweep's plan of version {content.get('version')!r:.20}, and this program reads"
            f" version {VERSION}: run the sweep's command again, or use the program that wrote it"
        )
    try:
        output = output_of(path.parent)
        written = datetime.fromisoformat(content["written"])
        return SweepPlan(
            path.parent,
            tuple(_texts(content["command"])),
            _text(content["launcher"]),
            written if written.tzinfo else written.replace(tzinfo=UTC),
            tuple(int(task["number"]) for task in content["tasks"]),
            {int(t["number"]): _text(t["problem"]) for t in content["tasks"] if "problem" in t},
            tuple(_cells(content["cells"], output)),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged ({error!r:.120}); run the sweep's command again, which writes it"
        ) from error


def _cells(entries: Any, output: Path) -> Iterator[PlannedCell]:
    for entry in entries:
        seed = entry.get("training_seed")
        yield PlannedCell(
            None if entry["cell"] is None else path_below(output, entry["cell"]),
            _text(entry["model"]),
            _text(entry["reference"]),
            None if seed is None else int(seed),
            entry.get("base_model") is True,
            {_text(name): _text(value) for name, value in entry["settings"].items()},
            None if entry["task"] is None else int(entry["task"]),
            _seconds(entry.get("seconds")),
        )


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not math.isfinite(seconds := float(value)) or seconds < 0:
        raise ValueError(f"{value!r:.40} are no seconds")
    return seconds


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.80} is no list")
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value
