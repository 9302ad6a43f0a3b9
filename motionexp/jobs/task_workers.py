"""Which processes do a sweep's tasks, from their first moment on: `tasks/NNN.TIME.PID.HOST.lock`. No torch.

A process holds the lock as long as it does the task. Of a task with several ranks each process holds one.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from motionexp.files import file_name, is_locked, locked

TASKS = "tasks"
"""The folder of a sweep's folder that has the tasks."""
TIME = "%Y%m%dT%H%M%SZ"
NAME = re.compile(r"(?P<task>\d+)\.(?P<since>\d{8}T\d{6}Z)\.(?P<pid>\d+)\.(?P<host>.+)\.lock")


@dataclass(frozen=True)
class Worker:
    """A process that does a task.

    Attributes:
        task: its number.
        host, pid: of the process.
        since: when it began.
    """

    task: int
    host: str
    pid: int
    since: datetime


@contextmanager
def working_on(sweep: Path, task: int) -> Iterator[None]:
    """Within the block this process does a task of the sweep of a folder."""
    since, host = datetime.now(UTC).strftime(TIME), file_name(socket.gethostname())
    path = sweep / TASKS / f"{task:03d}.{since}.{os.getpid()}.{host}.lock"
    with ExitStack() as stack:
        # A full disk is reported where results are written: that nobody sees the worker loses nothing.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path))
        yield


def workers(sweep: Path) -> dict[int, Worker]:
    """{task: the process that does it now}, the last one to begin where there are several."""
    processes = (_worker(path) for path in (sweep / TASKS).glob("*.lock") if _is_held(path))
    in_order = sorted(filter(None, processes), key=lambda worker: worker.since)
    return {worker.task: worker for worker in in_order}


def remove_dead_workers(sweep: Path) -> None:
    """Delete what killed processes left."""
    for path in (sweep / TASKS).glob("*.lock"):
        if NAME.fullmatch(path.name) and not _is_held(path):
            path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock; not one that has ended since the folder was listed."""
    with suppress(FileNotFoundError):
        return is_locked(path)
    return False


def _worker(path: Path) -> Worker | None:
    """The process of a lock by its name; None for a name of another form."""
    if (match := NAME.fullmatch(path.name)) is None:
        return None
    with suppress(ValueError):  # digits that are no time
        since = datetime.strptime(match["since"], TIME).replace(tzinfo=UTC)
        return Worker(int(match["task"]), match["host"], int(match["pid"]), min(since, datetime.now(UTC)))
    return None
