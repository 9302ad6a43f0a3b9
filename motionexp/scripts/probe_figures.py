"""The figures of the published probes (`make figures`).

Writes each as .svg, .pdf and .png into `figures/` beside the rows, and a README.md with all their captions.
"""

import sys
from collections.abc import Sequence

from motionexp.probes.analysis.figures import write_figures
from motionexp.probes.analysis.published import write_analysis

ORIGIN = "`make figures` draws them from the published rows."


def main(arguments: Sequence[str]) -> int:
    """Write the figures of the named experiments, or of all probes; returns the exit code."""
    return write_analysis(
        arguments, lambda folder, analysis: write_figures(folder / "figures", analysis, ORIGIN)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
