"""The tables of the published probes: `python -m motionexp.report.probe_tables [EXPERIMENTS]`.

`make tables` runs it after those tables that experiments lay out themselves.
"""

import os
import sys
from collections.abc import Sequence

from motionexp.atlas.tables import tables
from motionexp.config import InputError
from motionexp.report.published_probes import read_findings
from motionexp.tables import write_formats


def main(arguments: Sequence[str]) -> int:
    """Write `atlas`, `boundary` and `pairs` beside the rows, in three formats each; returns the exit code."""
    try:
        found = read_findings(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if found is None:
        return 0
    folder, findings = found
    for name, made in tables(findings).items():
        for path in write_formats(folder / name, made):
            print(os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
