"""The command: as `python run.py`, `python -m motionexp`, or `motionexp` where the package is installed."""

import sys

from motionexp.errors import Stopped, stoppable


def run() -> int:
    """The command's exit code. The import of the command takes a second, and may be interrupted too."""
    try:
        with stoppable():
            # Never as the main module: Hydra imports it by its name, and there would be two.
            from motionexp.cli import main

            return main()
    except (KeyboardInterrupt, Stopped) as stop:
        print("error: stopped before anything began", file=sys.stderr)
        return int(stop.code or 0) if isinstance(stop, Stopped) else 130


if __name__ == "__main__":
    sys.exit(run())
