"""Progress bars: one line that moves on a terminal, and in a log file a whole line every half minute."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

LOG_SECONDS = 30.0
"""Between two lines of a log file."""
LOG_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
Progress = Callable[[int, int], None]
"""Called with the steps that are done, and all steps."""


class _Lines:
    """A text file that gets whole lines in place of one line that moves."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, text: str) -> None:
        # A bar begins with a carriage return, and is erased at its end with spaces.
        if line := text.strip():
            self.file.write(line + "\n")

    def flush(self) -> None:
        self.file.flush()


def progress_bar(total: int, stage: str, unit: str, *, done: int = 0, shown: bool = True) -> "tqdm[Any]":
    """A bar on stderr of `done` out of `total`, which is erased at its end.

    It appears with the first step that is counted: before that there is no rate to show.
    """
    settings = {"total": total, "desc": stage, "unit": unit, "initial": done, "leave": False}
    if not shown or sys.stderr.isatty():
        return tqdm(**settings, delay=1e-9, disable=not shown)
    return tqdm(
        **settings,
        file=_Lines(sys.stderr),
        delay=LOG_SECONDS,
        mininterval=LOG_SECONDS,
        miniters=1,
        bar_format=LOG_LINE,
    )


@contextmanager
def step_bar(stage: str, also: Progress | None = None, *, shown: bool = True) -> Iterator[Progress]:
    """A bar that counts the steps of a stage, whose total number comes with the first step.

    `also` is called with every step too.
    """
    with progress_bar(0, stage, "step", shown=shown) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if also is not None:
                also(done, total)

        yield show
