"""Checks that several suites' readers share: CSV tables, reference names, lists of problems. No torch."""

import csv
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from motionexp.errors import InputError

Entry = TypeVar("Entry")
# Of one error; the rest is counted.
MOST_PROBLEMS = 8


def raise_problems(heading: str, problems: Sequence[str]) -> None:
    """Raises InputError with the heading and the first problems, a line each, if there is a problem."""
    if problems:
        hidden = len(problems) - MOST_PROBLEMS
        more = [f"... and {hidden} more"] if hidden > 0 else []
        raise InputError("\n".join([heading, *problems[:MOST_PROBLEMS], *more]))


def reference_named(name: str, references: Mapping[str, Entry], source: str) -> Entry:
    """The reference of this name. Raises InputError with the nearest name or the source's first names."""
    if name not in references:
        near = difflib.get_close_matches(name, references, n=1)
        more = ", ..." if len(references) > MOST_PROBLEMS else ""
        names = f"it has {', '.join([*references][:MOST_PROBLEMS])}{more}"
        hint = f"did you mean {near[0]}?" if near else names
        raise InputError(f"reference {name!r}: {source} has no such video; {hint}")
    return references[name]


def scored_frames(frames: int, longest: int | None = None) -> int | None:
    """How many of `frames` are scored: 4k of 4k + 1, which some VAEs need; None: all.

    Args:
        frames: that a model generates.
        longest: more than `longest` + 1 frames are all scored; None: no limit.
    """
    # VAEs that shorten videos to a quarter take 4k + 1 frames: the first one is encoded alone.
    one_more = frames % 4 == 1 and frames > 1
    return frames - 1 if one_more and (longest is None or frames <= longest + 1) else None


def read_rows(path: Path, hint: str = "") -> list[tuple[int, list[str]]]:
    """(line number, stripped cells) of each row of a CSV that is not blank.

    Raises:
        InputError: the file cannot be read; the error ends with `hint`.
    """
    try:
        # Spreadsheets begin a CSV with a byte order mark, which utf-8-sig drops.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}){hint}") from error
    return [(number, row) for number, row in rows if any(row)]


def read_table(path: Path, needed: Sequence[str]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV with a header, and (line number, {column: cell}) of each row.

    Columns without a name are dropped. A row that is too short has empty cells.

    Raises:
        InputError: the file cannot be read, a column of `needed` is missing, a name stands twice in the
            header, or a row has more cells than the header.
    """
    rows = read_rows(path)
    header = rows[0][1] if rows else []
    if missing := [name for name in needed if name not in header]:
        raise InputError(f"{path}: no column {' and '.join(missing)}; its first row is {', '.join(header)}")
    if twice := [name for name, times in Counter(filter(None, header)).items() if times > 1]:
        raise InputError(f"{path}: two columns are called {twice[0]}")
    table = []
    for number, row in rows[1:]:
        if len(row) > len(header):
            cells = f"{len(row)} cells, but {len(header)} in the first row"
            raise InputError(f"{path}, line {number}: {cells}; put captions with commas in quotes")
        # A row that is too short has empty cells.
        named = zip_longest(header, row, fillvalue="")
        table.append((number, {name: cell for name, cell in named if name}))
    return [name for name in header if name], table
