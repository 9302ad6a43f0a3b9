"""Tables: a pure function of rows and of the numbers that a paper reports.

`python -m motionexp.results.tables [experiments/NAME.yaml ...]` (`make tables`) writes every table that the
layouts name, as Markdown, LaTeX and CSV, from the published rows; it needs neither torch nor a network.
Without names it takes all experiments whose rows are published.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.comparisons import Measured
from motionexp.results.equal_leakage import decision_table
from motionexp.results.formats import NONE, Block, Cell, Line, Table, to_csv, to_latex, to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.layout import Layout, TableLayout
from motionexp.results.layout_file import read_layout
from motionexp.results.published import is_published, read_published
from motionexp.results.rows import Row

SUFFIXES = (".md", ".tex", ".csv")


def build(layout: Layout, wanted: TableLayout, rows: Sequence[Row]) -> list[Table]:
    """The finished table, and where the layout asks for it a second one with motion at equal leakage.

    Raises:
        InputError: rows that do not belong in one table, or a layout that selects two settings as one.
    """
    measured = Measured(layout, rows)
    wanted = replace(wanted, columns=[key for key in wanted.columns if measured.has(layout.columns[key])])
    blocks = []
    for group in wanted.groups:
        measured.check_subjects(wanted, group)
        names = [name for name in wanted.settings if layout.settings[name].may_be_in(group)]
        lines = [measured.line(wanted, name, group.select) for name in names]
        anchors = measured.anchors(wanted, group.select)
        if not anchors and all(line.n == NONE for line in lines):
            continue
        differences = [measured.difference(wanted, each, group.select) for each in wanted.differences]
        lines += [line for line in differences if line.n != NONE]
        blocks.append(Block(group.title, [*lines, *anchors]))
        blocks += measured.less_default(wanted, group)
    blocks += _reported_blocks(layout, wanted)
    columns = [layout.columns[key].label for key in wanted.columns]
    kept = [each for each in blocks if each.lines]
    tables = [Table(wanted.title, wanted.labels, columns, kept, wanted.notes, wanted.unit)]
    if wanted.decision:
        tables.append(decision_table(measured, wanted, wanted.decision))
    return tables


def _reported_blocks(layout: Layout, wanted: TableLayout) -> list[Block]:
    by_source: dict[str, list[Line]] = defaultdict(list)
    for each in wanted.reported:
        cells: list[Cell | None] = [
            Cell(key, Interval(each.values[key], math.nan, math.nan, 0, 0), layout.columns[key].digits)
            if key in each.values
            else None
            for key in wanted.columns
        ]
        by_source[each.source].append(Line(each.labels, cells, "", "", "reported"))
    return [Block(f"Reported: {source}", lines) for source, lines in by_source.items()]


def write_tables(root: Path, layout: Layout, rows: Sequence[Row]) -> list[Path]:
    """Writes the tables of a layout that have measured rows, as .md, .tex and .csv; returns the files.

    Of those that have none, what was written before is removed: its rows are no longer there.
    """
    built = [(root / wanted.file, build(layout, wanted, rows)) for wanted in layout.tables]
    paths = []
    for file, tables in built:
        if tables[0].is_measured:
            paths += write_formats(file, tables)
        else:
            for suffix in SUFFIXES:
                file.with_name(file.name + suffix).unlink(missing_ok=True)
    return paths


def write_formats(file: Path, tables: Sequence[Table]) -> list[Path]:
    """Writes tables into one `file` of each format, whose suffixes are added; returns the files."""
    texts = ("\n".join(map(to_markdown, tables)), "\n".join(map(to_latex, tables)), to_csv(tables))
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = [file.with_name(file.name + suffix) for suffix in SUFFIXES]
    for path, text in zip(paths, texts, strict=True):
        write_whole(path, text.encode())
    return paths


def main(arguments: Sequence[str]) -> int:
    """Builds the tables of the named layouts, or of all in experiments/ with rows; returns the exit code."""
    try:
        for path in map(Path, arguments or sorted(map(str, Path("experiments").glob("*.yaml")))):
            root, layout = path.resolve().parent.parent, read_layout(path)
            if not (layout.rows and layout.tables) or not (arguments or is_published(path, layout)):
                continue
            paths = write_tables(root, layout, read_published(root / layout.rows))
            if not paths:
                raise InputError(f"{path}: none of its settings is that of a row of {layout.rows}")
            for written in paths:
                print(written.relative_to(root))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
