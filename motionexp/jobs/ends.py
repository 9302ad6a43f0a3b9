"""How a command ends: the errors of which one line is printed, that line, and the exit code."""

import signal

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.compose import explain
from motionexp.errors import InputError, Stopped
from motionexp.jobs.failures import REFUSED, CellsFailed
from motionexp.jobs.machine import DiskError

# Errors of the user's input or machine: one line is printed. Any other exception is a defect of this package.
EXPECTED = (
    *(InputError, HydraException, OmegaConfBaseException),
    *(OSError, MemoryError, FloatingPointError, KeyboardInterrupt, Stopped, CellsFailed),
)
CONTINUES = "the same command continues where it stopped"


def explained(error: BaseException) -> tuple[str, int]:
    """An error's message and exit code."""
    match error:
        case KeyboardInterrupt():
            return f"interrupted; {CONTINUES}", 128 + signal.SIGINT
        case Stopped():
            return f"stopped by {error.signum.name}; {CONTINUES}", 128 + error.signum
        case BrokenPipeError():
            return f"nobody reads the output any more (as after `| head`); {CONTINUES}", 128 + signal.SIGPIPE
        case InputError() if not isinstance(error, DiskError):
            return str(error), REFUSED
        case HydraException() | OmegaConfBaseException():
            return explain(error), REFUSED
        case MemoryError():
            return str(error) or "out of memory", 1
        case _:
            return str(error), 1
