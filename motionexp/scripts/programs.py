"""What programs share: errors in one line."""

import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps

from motionexp.errors import InputError, Stopped, stoppable

Main = Callable[[Sequence[str]], int]


def exit_code(main: Callable[[Sequence[str]], int | None]) -> Main:
    """Make a program's main function print what ends it in one line, and return the command's exit codes."""

    @wraps(main)
    def wrapped(arguments: Sequence[str]) -> int:
        try:
            with stoppable():
                return main(arguments) or 0
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (KeyboardInterrupt, Stopped) as stop:
            print("error: interrupted", file=sys.stderr)
            return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)

    return wrapped
