"""The tables of the published probes: `python -m motionexp.scripts.probe_tables [EXPERIMENTS]`.

`make tables` runs it after those tables that experiments lay out themselves. Each number in them is also a
row in `verdicts.jsonl`, for whoever wants to go on with it.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.probes.analysis.boundary import NONE
from motionexp.probes.analysis.published import read_findings
from motionexp.probes.analysis.tables import tables
from motionexp.results.formats import Table
from motionexp.results.rows import Row, as_json, dump_line
from motionexp.results.tables import write_formats

VERDICTS = "verdicts.jsonl"
METRIC_VERSION = 1


def main(arguments: Sequence[str]) -> int:
    """Write `probe_analysis`, `boundary` and `pairs` in three formats each, and their numbers as rows.

    Returns the exit code.
    """
    try:
        found = read_findings(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if found is None:
        return 0
    folder, findings = found
    found_tables = tables(findings)
    for name, made in found_tables.items():
        for path in write_formats(folder / name, made):
            print(os.path.relpath(path))
    verdicts = [
        row for made in found_tables.values() for table in made for row in verdict_rows(folder.name, table)
    ]
    write_whole(folder / VERDICTS, "".join(dump_line(as_json(row)) for row in verdicts).encode())
    print(os.path.relpath(folder / VERDICTS))
    return 0


def verdict_rows(suite: str, table: Table) -> Iterator[Row]:
    """A row for each number of a table: which it is, and its interval, in `strata`."""
    for block in table.blocks:
        for line in block.lines:
            labels = dict(zip(table.labels, line.labels, strict=True))
            for column, cell in zip(table.columns, line.cells, strict=True):
                if cell is None:
                    continue
                found = cell.interval
                interval = {"low": f"{found.low:.6g}", "high": f"{found.high:.6g}", "n": line.n}
                yield Row(
                    metric=f"{table.title}: {column}",
                    metric_version=METRIC_VERSION,
                    value=float(f"{found.mean:.6g}"),
                    reason=why_unknown(labels) if math.isnan(found.mean) else "",
                    suite=suite,
                    reference="all",
                    strata={"group": block.title, **labels, **interval},
                    model=labels.get("model", block.title.split(", ")[0]),
                    method="verdict",
                    tau=1000.0,
                    steps=0,
                )


def why_unknown(labels: Mapping[str, str]) -> str:
    """Why a line with these labels has no number: there is no boundary, or it cannot be told."""
    return "there is none" if labels.get("verdict") == NONE else "cannot be told"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
