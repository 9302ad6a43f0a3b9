"""The one reader of CSV tables that a user hands over: a row on one line, with a cell for every column."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from motionexp.config.text_file import read_text
from motionexp.data.checks import raise_problems, shortened
from motionexp.errors import InputError

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What stands between cells in other dialects than CSV's comma."""


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, stripped cells) of each row of a CSV that is not blank.

    Raises:
        InputError: the file cannot be read, a quote is not closed, or a cell has a line break.
    """
    # Strict: else a quote that is never closed takes the rest of the file into one cell, without an error.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any("\n" in cell or "\r" in cell for cell in cells):
                raise InputError(
                    f"{path}, line {line}: a quote that opens here closes on line {reader.line_num}"
                )
            if any(cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is never closed" if "end of data" in str(error) else str(error)
        rule = "a cell in quotes closes them on its line and before its comma, and doubles quotes inside"
        raise InputError(f"{path}, line {line}: cannot be read as CSV ({reason}); {rule}") from error
    return rows


def read_table(path: Path, needed: Sequence[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV with a header, and (line number, {column: cell}) of each row.

    Columns that have neither a name nor a cell are dropped.

    Raises:
        InputError: the file cannot be read, a column of `needed` is missing, a name stands twice in the
            header, or a row has another number of cells than the header.
    """
    rows = read_rows(path)
    header = rows[0][1] if rows else []
    if missing := [name for name in needed if name not in header]:
        raise InputError(f"{path}: no column {' and '.join(missing)}; {first_row(header)}")
    counts = Counter(name.casefold() for name in header if name)
    if twice := [name for name in header if counts[name.casefold()] > 1]:
        raise InputError(f"{path}: two columns are called {shortened(twice[0])}")
    table, problems = [], []
    for number, row in rows[1:]:
        if problem := row_problem(header, row) or _unnamed_problem(header, row):
            problems.append(f"line {number}: {problem}")
        else:
            table.append((number, {name: cell for name, cell in zip(header, row, strict=True) if name}))
    raise_problems(f"{path}:", problems)
    return [name for name in header if name], table


def row_problem(header: Sequence[str], row: Sequence[str]) -> str:
    """What shifts the cells of a row, or an empty text."""
    if len(row) != len(header):
        rule = "put captions with commas in quotes, and a comma for each empty cell"
        return f"{len(row)} cells, but {len(header)} in the first row; {rule}"
    return "the first row again; a table has one row of columns' names" if row == header else ""


def first_row(header: Sequence[str]) -> str:
    """The first row in words, and what separates its cells if that is no comma."""
    words = [word for separator, word in SEPARATORS.items() if any(separator in cell for cell in header)]
    hint = f"; it has {words[0]} between its cells, where CSV has commas" if words else ""
    return f"its first row is {shortened(', '.join(header)) or 'empty'}{hint}"


def _unnamed_problem(header: Sequence[str], row: Sequence[str]) -> str:
    cells = [cell for name, cell in zip(header, row, strict=True) if cell and not name]
    return f"{shortened(cells[0])} stands in a column without a name" if cells else ""
