"""How tasks ended, in words. Imports no torch."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from motionexp.jobs.sweep_folder import Task


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        problem: in words; empty: it ended well.
        log: a file with the output of its process; empty where there is none.
        is_code: whether the process ended by itself with an exit code that is not 0.
    """

    problem: str = ""
    log: str = ""
    is_code: bool = False

    @classmethod
    def of_code(cls, code: int, log: str) -> "Outcome":
        """The outcome of a process with this exit code, which is negative where a signal killed it."""
        if code == 0:
            return cls(log=log)
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            name = signal.Signals(number).name if number in [*signal.Signals] else f"signal {number}"
            return cls(f"{'killed' if code < 0 else 'stopped'} by {name}", log)
        return cls(f"exit code {code}", log, is_code=True)


OnEnd = Callable[[Task, Outcome], None]
"""Called with a task and its outcome, once for each."""
