"""One job, or a sweep of them: `python run.py --help`."""

import sys

from motionexp.__main__ import run

if __name__ == "__main__":
    sys.exit(run())
