"""How tasks ended, in words. Imports no torch."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from motionexp.jobs.failures import REFUSED, last_error
from motionexp.jobs.sweep_folder import Task


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        problem: in words; empty: it ended well.
        log: a file with the output of its process; empty where there is none.
        is_code: whether the process ended by itself with an exit code that is not 0.
        is_refusal: whether that code says that all its jobs were refused for wrong input.
    """

    problem: str = ""
    log: str = ""
    is_code: bool = False
    is_refusal: bool = False

    @property
    def reason(self) -> str:
        """Why the task failed: the last error of its output, or else how its process ended."""
        return (last_error(Path(self.log)) if self.log and self.is_code else "") or self.problem

    @classmethod
    def of_code(cls, code: int, log: str) -> "Outcome":
        """The outcome of a process with this exit code, which is negative where a signal killed it."""
        if code == 0:
            return cls(log=log)
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            name = signal.Signals(number).name if number in [*signal.Signals] else f"signal {number}"
            return cls(f"{'killed' if code < 0 else 'stopped'} by {name}", log)
        return cls(f"exit code {code}", log, is_code=True, is_refusal=code == REFUSED)


OnEnd = Callable[[Task, Outcome], None]
"""Called with a task and its outcome, once for each."""
