"""The figures of the published probes (`make figures`).

Writes each as .svg and .png into `figures/` beside the rows, and a README.md there with all their captions.
"""

import os
import sys
from collections.abc import Sequence

from motionexp.errors import InputError
from motionexp.probes.analysis.figures import write_figures
from motionexp.probes.analysis.published import read_findings

ORIGIN = "`make figures` draws them from the published rows."


def main(arguments: Sequence[str]) -> int:
    """Write the figures of the named experiments, or of all probes; returns the exit code."""
    try:
        found = read_findings(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if found is None:
        return 0
    folder, findings = found
    for path in write_figures(folder / "figures", findings, ORIGIN):
        print(os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
