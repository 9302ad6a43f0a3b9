"""What a cell's folder says of its work: `status.json`, and `progress.json` while it trains or samples."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.files import file_name, is_locked

STATUS, PROGRESS = "status.json", "progress.json"
RUNNING, DONE, FAILED, INTERRUPTED, WAITING = "running", "done", "failed", "interrupted", "waiting"
DAMAGED = "damaged"
STATES = (DONE, RUNNING, FAILED, DAMAGED, INTERRUPTED, WAITING)
MOST_REPLACEMENTS = 16
"""Of a cell by cells of smaller batches: the largest batch can be halved ten times."""


@dataclass(frozen=True)
class Progress:
    """How far the work on a cell has come.

    Attributes:
        stage: fit, sample or score.
        step, steps: steps of the stage that are done, and all.
        loss: of the last training step; None in other stages.
        time: when it was written.
        seconds: of work on the cell until then, in all processes that worked on it.
    """

    stage: str
    step: int
    steps: int
    loss: float | None
    time: datetime
    seconds: float


@dataclass(frozen=True)
class CellState:
    """The state of a cell.

    Attributes:
        state: as in `status.json`; `interrupted` also where it says running and the process on this machine
            is gone; `waiting` where there is no file; `damaged` where a file cannot be read.
        about: the entries of `status.json`.
        since: when the cell came into the state; None: not said.
        host: the machine that works, or worked, on it; empty: not said.
        error: of a failed or damaged cell, in one line, else empty.
        progress: of the last work on it; None: it has not begun to train or sample.
    """

    folder: Path
    state: str
    about: Mapping[str, Any]
    since: datetime | None = None
    host: str = ""
    error: str = ""
    progress: Progress | None = None

    @property
    def reference(self) -> str:
        """The reference that it is of; empty: not said."""
        return str(self.about.get("reference", ""))

    @property
    def is_elsewhere(self) -> bool:
        """Whether another machine works, or worked, on it: whether its process lives cannot be asked."""
        return self.host not in ("", socket.gethostname())

    @property
    def last_seen(self) -> datetime | None:
        """When the cell's process last wrote how far it was; None: never."""
        times = [self.since, self.progress.time if self.progress else None]
        return max((time for time in times if time is not None), default=None)

    @property
    def log(self) -> Path | None:
        """The file with the error of a failed cell."""
        name = self.about.get("log")
        return self.folder / name if isinstance(name, str) and name else None


def read_state(folder: Path) -> CellState:
    """The state of the cell of a folder, or of the cell that replaces it because memory was too small for it.

    Raises:
        InputError: a file is damaged. OSError: it cannot be read.
    """
    for _ in range(MOST_REPLACEMENTS):
        if not (folder / STATUS).exists():
            return CellState(folder, WAITING, {})
        status = _object(folder / STATUS)
        if not (name := status.get("replaced_by")):
            break
        folder = folder.parent / file_name(str(name))
    state = str(status.get("state", ""))
    host = str(status.get("host", ""))
    progress = read_progress(folder / PROGRESS)
    since = _time(status.get("since", status.get("updated")), folder / STATUS)
    cell = CellState(
        folder, state, status, since, host, " ".join(str(status.get("error", "")).split()), progress
    )
    if state == RUNNING and not cell.is_elsewhere and not is_locked(folder / ".lock"):
        # It was ended by SIGKILL, or the machine went down.
        return CellState(folder, INTERRUPTED, status, since, host, "", progress)
    return cell


def read_progress(path: Path) -> Progress | None:
    """The progress in a file `progress.json`; None: there is none. Raises InputError if it is damaged."""
    if not path.exists():
        return None
    content = _object(path)
    time = _time(content.get("time"), path)
    try:
        loss = content.get("loss")
        stage, step, steps = str(content["stage"]), int(content["step"]), int(content["steps"])
        if time is None:
            raise ValueError("no time")
        return Progress(
            *(stage, step, steps, None if loss is None else float(loss)),
            *(time, float(content.get("seconds", 0.0))),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error!r:.80}); delete it") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except InputError as error:
        raise InputError(f"{error}: damaged; delete it and run the same command again") from error


def _time(text: Any, path: Path) -> datetime | None:
    """A time with its zone. A time in the future, by a clock that was wrong, counts as now."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        now = datetime.now(UTC)
        return min(time if time.tzinfo else time.replace(tzinfo=UTC), now)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: {text!r:.40} is no time; delete it and run the same command again"
        ) from error


def ago(time: datetime) -> timedelta:
    """How long ago a time was; at least zero."""
    return max(timedelta(), datetime.now(UTC) - time)
