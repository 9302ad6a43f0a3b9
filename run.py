"""One job, or a sweep of them: `python run.py --help`."""

import sys

from motionexp.errors import Stopped, stoppable


def run() -> int:
    """The command's exit code. The import of the command takes a second, and may be interrupted too."""
    try:
        with stoppable():
            from motionexp.cli import main

            return main()
    except (KeyboardInterrupt, Stopped) as stop:
        print("error: stopped before anything began", file=sys.stderr)
        return stop.code if isinstance(stop, Stopped) else 130


if __name__ == "__main__":
    sys.exit(run())
