"""The published rows of probes, for their tables and figures."""

from collections.abc import Sequence
from pathlib import Path

from motionexp.errors import InputError
from motionexp.probes.analysis.findings import Findings
from motionexp.probes.analysis.rows import predicted_log_snr, read_probes
from motionexp.probes.analysis.tau_sweep import read_sweeps
from motionexp.results.layout_file import read_layout
from motionexp.results.log_snr import log_snr_tables
from motionexp.results.published import is_published, read_published
from motionexp.results.rows import Row, check_comparable

EXPERIMENTS = "experiments/probe-*.yaml"
SWEEP = Path("experiments/tau_selection.yaml")
"""Of tau, on the tuning split, to compare boundaries with."""


def read_findings(arguments: Sequence[str]) -> tuple[Path, Findings] | None:
    """The folder of the published rows, and what is found in them; None where none is published yet.

    Args:
        arguments: layouts of experiments, by default all of `EXPERIMENTS` whose rows are published, and
            beside these `SWEEP`.

    Raises:
        InputError: no such layouts or rows, or rows that do not belong together.
    """
    paths = [Path(each) for each in arguments] or sorted(Path().glob(EXPERIMENTS))
    layouts = {path: layout for path in paths if (layout := read_layout(path)).rows}
    if not arguments and layouts:
        layouts = {path: each for path, each in layouts.items() if is_published(path, each)}
        if not layouts:
            return None
        if SWEEP.exists() and is_published(SWEEP, sweep := read_layout(SWEEP)):
            layouts[SWEEP] = sweep
    files = [path.resolve().parent.parent / layout.rows for path, layout in layouts.items()]
    folders = {file.parent for file in files}
    if len(folders) != 1:
        raise InputError(
            f"{' '.join(map(str, paths)) or EXPERIMENTS}: rows in {len(folders)} folders; name experiments"
            " whose rows are published in one"
        )
    rows = [row for file in files for row in read_published(file)]
    check_comparable(rows, {kind for layout in layouts.values() for kind in layout.allow_mixed})
    return folders.pop(), findings(rows)


def findings(rows: Sequence[Row]) -> Findings:
    """What rows of probes, schedules, energies and a sweep say."""
    return Findings(read_probes(rows), log_snr_tables(rows), predicted_log_snr(rows), read_sweeps(rows))
