"""What one process of a launcher does: the commands of a task, on a GPU of its own. Imports no torch."""

import fcntl
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from motionexp.config import ranks
from motionexp.jobs.sweep_folder import VARIABLE
from motionexp.jobs.task_workers import working_on

GPUS = "CUDA_VISIBLE_DEVICES"
SECONDS = 1.0
"""Between two looks for a free GPU."""
DEVICES = Path("/dev")
_CLAIMED: list[IO[str]] = []  # an open file holds its lock as long as the process lives


RunCommands = Callable[[list[list[str]]], int]
"""Runs commands one after the other; returns the greatest exit code."""


@dataclass(frozen=True)
class Work:
    """A task as a process gets it.

    Attributes:
        folder: of the sweep.
        task: its number there.
        directory: to work in: the user's, to which paths in commands are relative.
        commands: arguments of `python run.py`.
        environment: variables of the process.
        gpus: of which the process takes some that are free; empty: it takes those that it sees.
        devices: how many of them it takes.
    """

    folder: str
    task: int
    directory: str
    commands: list[list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[str] = ()
    devices: int = 1

    def do(self, run: RunCommands) -> int:
        """Do the task in this process, which has not imported torch; returns the exit code of `run`."""
        os.chdir(self.directory)
        os.environ.update(self.environment)
        os.environ[VARIABLE] = self.folder
        with working_on(Path(self.folder), self.task):
            if self.gpus:
                os.environ[GPUS] = ",".join(claim_gpus(self.gpus, self.devices))
            return run(self.commands)


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs of this machine that a process may use, as CUDA_VISIBLE_DEVICES names them.

    Without that variable these are numbers, one for each device file of NVIDIA's driver.
    """
    if GPUS in environment:
        return [name.strip() for name in environment[GPUS].split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(ranks.visible_gpus(environment, DEVICES) or 0)]


def claim_gpus(gpus: Sequence[str], count: int = 1, folder: Path | None = None) -> list[str]:
    """Take GPUs that no other process of a launcher has, for this process's life; waits until they are free.

    Args:
        gpus: to choose from.
        count: of GPUs to take.
        folder: of the locks; None: one in the folder of temporary files, for all sweeps of a user.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"motionexp-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_waiting = False
    while True:
        claimed = dict[str, IO[str]]()
        for gpu in gpus:
            file = open(folder / f"{re.sub('[^A-Za-z0-9-]', '_', gpu)}.lock", "a")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            claimed[gpu] = file
            if len(claimed) == count:
                _CLAIMED.extend(claimed.values())
                return list(claimed)
        for held in claimed.values():  # none, while others are waited for
            held.close()
        if not is_waiting:
            print(f"GPUs ({', '.join(gpus)}) are in use by other tasks: waiting for {count}", flush=True)
        is_waiting = True
        time.sleep(SECONDS)


def as_line(work: Work) -> str:
    """A task as the line that `run_from_stdin` reads."""
    return json.dumps(asdict(work)) + "\n"


def run_from_stdin(run: RunCommands) -> int:
    """Do the task in the first line of stdin, and stop when stdin ends: its other end was the launcher's."""
    plain: dict[str, Any] = json.loads(sys.stdin.readline())
    # The launcher may be killed. Then nobody waits for this process, which saves its state and ends.
    watch = threading.Thread(target=_stop_at_the_end_of_stdin, daemon=True)
    watch.start()
    return Work(**plain).do(run)


def _stop_at_the_end_of_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
