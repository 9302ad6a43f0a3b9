"""`progress.json` of a cell that is trained, sampled or scored, which `python run.py status` reads."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.cell_state import PROGRESS, read_progress

EVERY = 10.0
"""Seconds between two writes at least."""


class ProgressFile:
    """Says how far the work on a cell is. Created when a process begins it; the last write is `close`.

    The seconds of earlier processes on the same cell count too, so that a cell that was interrupted has the
    time of all its work.
    """

    def __init__(self, cell: Path) -> None:
        self._path, self._start = cell / PROGRESS, monotonic()
        self._written = -EVERY
        self._last: dict[str, object] | None = None
        self._before = 0.0
        with suppress(InputError):  # damaged: it is written anew
            stored = read_progress(self._path)
            self._before = stored.seconds if stored else 0.0

    def step(self, stage: str, step: int, steps: int, loss: float | None = None) -> None:
        """Note that `step` of `steps` of a stage (fit, sample or score) are done; write it if it is time."""
        self._last = {"stage": stage, "step": step, "steps": steps, "loss": loss}
        if monotonic() - self._written >= EVERY:
            self._write()

    def fitting(
        self, steps: int, log: Callable[[int, float], None] | None = None
    ) -> Callable[[int, float], None]:
        """What notes, and logs, how many training steps of `steps` are done, and the last loss."""

        def note(done: int, loss: float) -> None:
            self.step("fit", done, steps, loss)
            if log is not None:
                log(done, loss)

        return note

    def close(self) -> None:
        """Write the last step and the seconds that the work took; nothing if there was no step."""
        if self._last is not None:
            self._write()

    def _write(self) -> None:
        self._written = monotonic()
        seconds = round(self._before + self._written - self._start, 1)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {**(self._last or {}), "time": now, "seconds": seconds}
        # A full disk is reported where results are written: that nobody sees the progress loses nothing.
        with suppress(OSError):
            write_whole(self._path, (json.dumps(content) + "\n").encode())
