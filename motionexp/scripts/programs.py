"""What programs share: errors in one line."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps

from motionexp.errors import InputError

Main = Callable[[Sequence[str]], int]


def exit_code(main: Callable[[Sequence[str]], int | None]) -> Main:
    """Make a program's main function print an InputError in one line, and return the exit code."""

    @wraps(main)
    def wrapped(arguments: Sequence[str]) -> int:
        try:
            return main(arguments) or 0
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return wrapped
