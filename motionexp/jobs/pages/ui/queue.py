"""Jobs of the page, one at a time, each `python run.py` in a process of its own. No torch, no Gradio."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.files import PACKAGE

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
OVER = (DONE, FAILED, STOPPED)
PROGRAM = (sys.executable, "-m", "motionexp")
MOST_WAITING = 20
STOP_SECONDS = 30.0
"""For a job to store its checkpoint and to end, before it is killed."""
LOG_BYTES = 20_000
"""Of a job's output, from its end, that the page reads."""


@dataclass(eq=False)
class UiJob:
    """A job of the page.

    Attributes:
        number: from 1.
        cfg: its checked settings.
        words: after `python run.py`.
        log: the file with what its process prints.
        state: waiting, running, done, failed or stopped.
        pid: of its process; None before it runs.
        began, ended: by the monotonic clock, in seconds; None: not yet.
    """

    number: int
    cfg: JobConfig
    words: Sequence[str]
    log: Path
    state: str = WAITING
    pid: int | None = None
    began: float | None = None
    ended: float | None = None
    is_stopping: bool = field(default=False, repr=False)

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def seconds(self) -> float:
        """That it has run."""
        if self.began is None:
            return 0.0
        return (self.ended if self.ended is not None else time.monotonic()) - self.began

    def printed(self) -> str:
        """The end of what its process printed."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
        # A progress bar goes back to the start of its line.
        return "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")).strip()

    def error(self) -> str:
        """What its last lines say is wrong, from `error:` on; empty where it ended without such a line."""
        return self.printed().rpartition("error:")[2].strip() if self.state == FAILED else ""


class JobQueue:
    """Runs jobs one after another, in the order in which they came. Any thread may call any method."""

    def __init__(self, folder: Path) -> None:
        """Start to wait for jobs.

        Args:
            folder: for the output of their processes.
        """
        self._folder = folder
        self._jobs: list[UiJob] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, cfg: JobConfig, words: Sequence[str]) -> UiJob:
        """Put a job at the end. Raises InputError where too many wait already."""
        with self._changed:
            if len(self.waiting()) >= MOST_WAITING:
                raise InputError(f"{MOST_WAITING} jobs wait already: try again when one of them is done")
            number = len(self._jobs) + 1
            self._folder.mkdir(parents=True, exist_ok=True)
            job = UiJob(number, cfg, list(words), self._folder / f"{os.getpid()}-{number}.log")
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def get(self, number: int | None) -> UiJob | None:
        """The job with a number."""
        with self._changed:
            return self._jobs[number - 1] if number and number <= len(self._jobs) else None

    def waiting(self) -> list[UiJob]:
        """The jobs that wait, the next one first."""
        with self._changed:
            return [job for job in self._jobs if job.state == WAITING]

    def running(self) -> UiJob | None:
        """The job that runs."""
        with self._changed:
            return next((job for job in self._jobs if job.state == RUNNING), None)

    def stop(self, job: UiJob) -> None:
        """Take a job out of the queue, or ask its process to store a checkpoint and to end."""
        with self._changed:
            if job.state == WAITING:
                job.state = STOPPED
            elif job.state == RUNNING and not job.is_stopping:
                job.is_stopping = True
                if self._process is not None:
                    threading.Thread(target=_end, args=(self._process,), daemon=True).start()

    def close(self) -> None:
        """Stop all jobs, and wait until the process of the running one has ended."""
        with self._changed:
            self._is_closed = True
            for job in self._jobs:
                self.stop(job)
            self._changed.notify_all()
        self._thread.join(STOP_SECONDS + 5)

    def _next(self) -> UiJob | None:
        """Wait for a job; None: the queue is closed."""
        with self._changed:
            while not self._is_closed:
                if waiting := self.waiting():
                    waiting[0].state = RUNNING
                    return waiting[0]
                self._changed.wait()
        return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.began = time.monotonic()
            try:
                code = self._run(job)
            except OSError as error:
                code = 1
                with suppress(OSError):
                    job.log.write_text(f"error: {error}\n")
            with self._changed:
                self._process, job.ended = None, time.monotonic()
                job.state = DONE if code == 0 else STOPPED if job.is_stopping else FAILED

    def _run(self, job: UiJob) -> int:
        environment = os.environ | {"PYTHONPATH": _python_path()}
        with job.log.open("wb") as log, self._changed:
            if job.is_stopping:
                return 130
            self._process = process = subprocess.Popen(
                [*PROGRAM, *job.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the page, which stops its job itself
            )
            job.pid = process.pid
        return process.wait()


def _python_path() -> str:
    """The search path for modules with this package's own code first."""
    return os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, which first stores a checkpoint; kill it if it does not."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
