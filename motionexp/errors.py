"""The error that wrong input raises, and the signals that end a run. Imports nothing of this package."""

import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import FrameType

RESEND_SECONDS = 0.05
LONGEST_LINE = 1000
MOST_COMPARED = 1000  # names
LONGEST_COMPARED = 300  # characters: the time is quadratic in them
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What libraries raise where they read a file with flipped bits, or with values of wrong types."""


class InputError(ValueError):
    """The user's input is wrong. The message alone is shown: it names the input and what would be right.

    Of a line of more than `LONGEST_LINE` characters the middle is left out: a value out of a file has any
    length.
    """

    def __str__(self) -> str:
        return "\n".join(map(_shortened, super().__str__().split("\n")))


def _shortened(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE // 2]} ... ({len(line)} characters) ... {line[-LONGEST_LINE // 4 :]}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of the first `MOST_COMPARED` names, capitals aside; None: none is similar."""
    by_folded = {text.casefold(): text for text in islice(names, MOST_COMPARED)}
    near = difflib.get_close_matches(name[:LONGEST_COMPARED].casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def one_of(name: str, names: Iterable[str]) -> str:
    """What a wrong name could have been, for an error: all names, and the most similar one first."""
    names = list(names)
    near = nearest(name, names)
    return (f"did you mean {near}? It is " if near else "") + f"one of {', '.join(names)}"


def extra_command(extra: str) -> str:
    """How to install the packages of an extra, for the error that they are missing."""
    return (
        f"`pip install 'motionexp[{extra}]'`, or in a checkout `.bootstrap/bin/uv pip install --python"
        f" .venv/bin/python -e '.[{extra}]'` (or uv, where it is installed)"
    )


STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a process to end; the last two are how a cluster announces that it takes the node."""


class Stopped(SystemExit):
    """One of `STOPS` asks the process to end; `code` is 128 plus the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signal.Signals(signum)

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:
        """For pickle, which would hand `code` to the constructor."""
        return type(self), (int(self.signum),)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on one of `STOPS`, and lose no Ctrl-C, until the block is left.

    A signal that the process ignores, as SIGHUP under nohup, stays ignored. After one signal further ones are
    ignored: they would interrupt the saving that the first one causes.
    """
    hook, is_stopping = sys.unraisablehook, False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            raise Stopped(signum)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        # Python drops what is raised within a `__del__`, for instance that of a progress bar.
        nonlocal is_stopping
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | Stopped):
            hook(unraisable)
            return
        is_stopping = False
        dropped = unraisable.exc_value
        signum = dropped.signum if isinstance(dropped, Stopped) else signal.SIGINT
        # Later, from a thread: within this function the signal would be dropped as well.
        timer = threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), signum))
        timer.daemon = True
        timer.start()

    replaced = []
    if threading.current_thread() is threading.main_thread():
        replaced = [signum for signum in STOPS if signal.getsignal(signum) == signal.SIG_DFL]
    for signum in replaced:
        signal.signal(signum, stop)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for signum in replaced:
            signal.signal(signum, signal.SIG_DFL)
