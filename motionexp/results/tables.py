"""Tables: a pure function of rows and of the numbers that a paper reports.

`python -m motionexp.results.tables [experiments/NAME.yaml ...]` (`make tables`) writes every table that the
layouts name, as Markdown, LaTeX (which git ignores) and CSV, from the published rows. It needs neither torch
nor a network. Without names it takes all experiments whose rows are published.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.comparisons import Comparison
from motionexp.results.dominance import dominance_table
from motionexp.results.equal_leakage import equal_leakage_table
from motionexp.results.formats import NONE, Block, Cell, Line, Table, to_csv, to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.latex import to_latex
from motionexp.results.layout import Layout, TableLayout
from motionexp.results.published import print_files, published_layouts, read_published, root_of
from motionexp.results.rows import Row
from motionexp.results.significance import holm
from motionexp.results.versions import dirty_note

SUFFIXES = (".md", ".tex", ".csv")


def build(comparison: Comparison, table: TableLayout) -> list[Table]:
    """The finished table, then those of motion at equal leakage and of dominance where its layout has them.

    Raises:
        InputError: settings without the same samples, or a layout that selects two settings as one.
    """
    layout = comparison.layout
    table = replace(table, columns=[key for key in table.columns if comparison.has(layout.columns[key])])
    blocks = []
    for group in table.groups:
        comparison.check_subjects(table, group)
        names = [name for name in table.settings if layout.settings[name].can_match(group)]
        lines = [comparison.line(table, name, group.select) for name in names]
        baselines = comparison.sanity_baselines(table, group.select)
        # A group that no setting was run in has no block.
        if not baselines and all(line.n == NONE for line in lines):
            continue
        differences = [comparison.difference(table, entry, group.select) for entry in table.differences]
        lines += [line for line in differences if line.n != NONE]
        blocks.append(Block(group.title, [*lines, *baselines]))
        blocks += comparison.differences_to_default(table, group)
    blocks += _reported_blocks(layout, table)
    columns = [layout.columns[key].label for key in table.columns]
    blocks = [block for block in blocks if block.lines]
    notes = table.notes
    if table.corrected:
        blocks, count = corrected(blocks)
        named = " and ".join(layout.columns[key].label for key in table.corrected)
        notes = [f"Bold in {named}: also after Holm's correction for these {count} differences.", *notes]
    tables = [Table(table.title, table.labels, columns, blocks, notes, table.unit)]
    if not table.settings and (table.equal_leakage or table.dominance):
        tables = []  # a comparison at scales alone
    if table.equal_leakage:
        tables.append(equal_leakage_table(comparison, table, table.equal_leakage))
    if table.dominance:
        tables.append(dominance_table(comparison, table, table.dominance))
    return with_dirty_note(tables, comparison.all_rows)


def corrected(blocks: Sequence[Block]) -> tuple[list[Block], int]:
    """Blocks whose p-values are Holm's for all p-values in them, and the number of these."""
    lines = [line for block in blocks for line in block.lines]
    p_values = [cell.p for line in lines for cell in line.cells if cell is not None and cell.p is not None]
    adjusted = iter(holm(p_values))

    def with_adjusted(line: Line) -> Line:
        cells = [
            cell if cell is None or cell.p is None else replace(cell, p=next(adjusted)) for cell in line.cells
        ]
        return replace(line, cells=cells)

    return [replace(block, lines=list(map(with_adjusted, block.lines))) for block in blocks], len(p_values)


def with_dirty_note(tables: Sequence[Table], rows: Collection[Row]) -> list[Table]:
    """Tables of rows, which say so if the rows are of a working tree with uncommitted changes."""
    note = dirty_note(rows)
    return [replace(table, notes=[*table.notes, *note]) for table in tables]


def _reported_blocks(layout: Layout, table: TableLayout) -> list[Block]:
    by_source: dict[str, list[Line]] = defaultdict(list)
    for entry in table.reported:
        cells: list[Cell | None] = []
        for key in table.columns:
            interval = Interval(entry.values.get(key, math.nan), math.nan, math.nan, 0, 0)
            cells.append(Cell(key, interval, layout.columns[key].digits) if key in entry.values else None)
        by_source[entry.source].append(Line(entry.labels, cells, "", "", "reported"))
    return [Block(f"Reported: {source}", lines) for source, lines in by_source.items()]


def write_tables(root: Path, layout: Layout, rows: Sequence[Row]) -> list[Path]:
    """Writes the tables of a layout that have measured rows; returns the files.

    The files of a table without measured rows are removed: its rows are no longer published.
    """
    comparison, paths = Comparison(layout, rows), []
    for table in layout.tables:
        file, tables = root / table.file, build(comparison, table)
        if tables and any(line.source != "reported" for line in tables[0].lines):
            paths += write_formats(file, tables)
        else:
            # A table of reported numbers alone would look like a result.
            for suffix in SUFFIXES:
                file.with_name(file.name + suffix).unlink(missing_ok=True)
    return paths


def write_formats(file: Path, tables: Sequence[Table]) -> list[Path]:
    """Writes tables into one file of each format, `file` with the format's suffix; returns the files."""
    texts = ("\n".join(map(to_markdown, tables)), to_latex(tables, file.name), to_csv(tables))
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = [file.with_name(file.name + suffix) for suffix in SUFFIXES]
    for path, text in zip(paths, texts, strict=True):
        write_whole(path, text.encode())
    return paths


def all_tables(names: Sequence[str]) -> Iterator[Path]:
    """Writes the tables of the named layouts, or of all in experiments/ with rows; yields the files."""
    for path, layout in published_layouts(names):
        if layout.tables:
            paths = write_tables(root_of(path), layout, read_published(root_of(path) / layout.rows))
            if not paths:
                raise InputError(f"{path}: none of its settings is that of a row of {layout.rows}")
            yield from paths


def main(arguments: Sequence[str]) -> int:
    """Builds the tables of the named layouts, or of all in experiments/ with rows; returns the exit code."""
    return print_files(all_tables(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
