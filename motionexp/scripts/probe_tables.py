"""The tables of the published probes: `python -m motionexp.scripts.probe_tables [EXPERIMENTS]`.

`make tables` runs it after the tables that experiments lay out themselves. Each number in the tables is also
a row in `verdicts.parquet`, for other programs.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from motionexp.probes.analysis.boundary import NONE
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.published import write_analysis
from motionexp.probes.analysis.tables import tables
from motionexp.results.columns import to_table, write_columns
from motionexp.results.formats import Table
from motionexp.results.rows import Row
from motionexp.results.tables import with_dirty_note, write_formats

VERDICTS = "verdicts.parquet"
METRIC_VERSION = 1


def write(folder: Path, analysis: Analysis) -> Iterator[Path]:
    """Write `probe_analysis`, `boundary` and `pairs` in three formats each, and their numbers as rows."""
    files = tables(analysis)
    for name, file_tables in files.items():
        yield from write_formats(folder / name, with_dirty_note(file_tables, analysis.rows))
    verdicts = [
        row
        for file_tables in files.values()
        for table in file_tables
        for row in verdict_rows(folder.name, table)
    ]
    write_columns(folder / VERDICTS, to_table(verdicts))
    yield folder / VERDICTS


def main(arguments: Sequence[str]) -> int:
    """Write the tables of the named experiments, or of all probes; returns the exit code."""
    return write_analysis(arguments, write)


def verdict_rows(suite: str, table: Table) -> Iterator[Row]:
    """Make a row of each number of a table; its place and its interval are in `strata`."""
    for block in table.blocks:
        for line in block.lines:
            labels = dict(zip(table.labels, line.labels, strict=True))
            for column, cell in zip(table.columns, line.cells, strict=True):
                if cell is None:
                    continue
                value = cell.interval
                bounds = {"low": f"{value.low:.6g}", "high": f"{value.high:.6g}", "n": line.n}
                yield Row(
                    metric=f"{table.title}: {column}",
                    metric_version=METRIC_VERSION,
                    value=float(f"{value.mean:.6g}"),
                    reason=why_missing(labels) if math.isnan(value.mean) else "",
                    suite=suite,
                    reference="all",
                    strata={"group": block.title, **labels, **bounds},
                    model=labels.get("model", block.title.split(", ")[0]),
                    method="verdict",
                    tau=1000.0,
                    steps=0,
                )


def why_missing(labels: Mapping[str, str]) -> str:
    """Why a line with these labels has no number."""
    return "no boundary" if labels.get("verdict") == NONE else "undetermined"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
