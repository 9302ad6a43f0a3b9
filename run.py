"""One job, or a sweep of them: `python run.py --help`."""

import sys

from motionexp.cli import main

if __name__ == "__main__":
    sys.exit(main())
