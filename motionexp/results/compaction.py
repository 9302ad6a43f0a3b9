"""The rows of finished cells in one columnar file: `OUTPUT/SUITE/MODEL/rows.parquet`.

The rows of a cell stay in its `rows.jsonl`, which is small and written whole. The columnar file is a copy,
from which a million rows are read in seconds. It knows the size and the time of each cell's file: where they
differ, or the cell is new, the cell's own file is read.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from motionexp.config.json_file import parse_json
from motionexp.errors import InputError
from motionexp.files import is_locked, locked
from motionexp.results.columns import Columns, read_columns, to_table, write_columns
from motionexp.results.rows import ROWS_NAME, Row, read_file

if TYPE_CHECKING:
    import pyarrow as pa

COMPACTED = "rows.parquet"
CELLS = "motionexp.cells"
LEAST_BYTES = 2_000_000
LEAST_SHARE = 0.2
"""A folder is compacted again if its new rows have this many bytes, and this share of all."""


class _Entry(NamedTuple):
    """A cell in a columnar file: size and time of its rows file, its first row and the number of its rows."""

    size: int
    time: int
    first: int
    rows: int


class Compacted:
    """A columnar file: its table, and its cells by the names of their folders.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.table = read_columns(path)
        except InputError as error:
            raise InputError(f"{error}; delete it: it is a copy of the cells' rows") from error
        cells = parse_json((self.table.schema.metadata or {}).get(CELLS.encode(), b"{}").decode(), str(path))
        damaged = InputError(f"{path}: its list of cells is damaged; delete it: it is a copy of their rows")
        if not isinstance(cells, dict):
            raise damaged
        self.cells: dict[str, _Entry] = {}
        for name, numbers in cells.items():
            if not (
                isinstance(numbers, list) and len(numbers) == 4 and all(type(one) is int for one in numbers)
            ):
                raise damaged
            entry = _Entry(*numbers)
            if not 0 <= entry.first <= entry.first + entry.rows <= self.table.num_rows:
                raise damaged
            self.cells[name] = entry

    def has(self, file: Path) -> bool:
        """Whether the rows of a cell's file are those that were compacted."""
        entry = self.cells.get(file.parent.name)
        return entry is not None and file.exists() and entry[:2] == _state(file)

    def of(self, name: str) -> "pa.Table":
        """The rows of a cell."""
        entry = self.cells[name]
        return self.table.slice(entry.first, entry.rows)

    def rows(self) -> dict[str, list[Row]]:
        """The rows of each cell, by its name."""
        rows = Columns(self.table, COMPACTED).rows()
        return {name: rows[entry.first : entry.first + entry.rows] for name, entry in self.cells.items()}

    def of_all(self, names: Sequence[str]) -> "pa.Table":
        """The rows of cells in order: one slice of the table where they follow each other in it."""
        import pyarrow as pa

        entries = [self.cells[name] for name in names]
        ends = [entry.first + entry.rows for entry in entries]
        if [entry.first for entry in entries[1:]] == ends[:-1]:
            return self.table.slice(entries[0].first, ends[-1] - entries[0].first)
        return pa.concat_tables([self.of(name) for name in names])


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def compacted_in(folder: Path) -> Compacted | None:
    """The columnar file of a folder; None if it has none. Raises InputError where it is damaged."""
    path = folder / COMPACTED
    return Compacted(path) if path.exists() else None


def compact(folder: Path, *, least_bytes: int = LEAST_BYTES) -> None:
    """Bring the columnar file of a folder OUTPUT/SUITE/MODEL up to date, if there are many new rows.

    Cells that a process works on, and damaged ones, are left out.
    """
    files = sorted(folder.glob(f"*/{ROWS_NAME}"))
    if sum(file.stat().st_size for file in files) < least_bytes:
        return
    with locked(folder / f".{COMPACTED}.lock"):
        before = None
        with suppress(InputError):  # a damaged copy is written again
            before = compacted_in(folder)
        new = [file for file in files if before is None or not before.has(file)]
        new_bytes, all_bytes = (sum(file.stat().st_size for file in of) for of in (new, files))
        if new and new_bytes >= max(least_bytes, LEAST_SHARE * all_bytes):
            _write(folder, files, before)


def _write(folder: Path, files: list[Path], before: Compacted | None) -> None:
    import pyarrow as pa

    tables, cells, first = [], {}, 0
    for file in files:
        if is_locked(file.parent / ".lock"):
            continue
        if before is not None and before.has(file):
            table, state = before.of(file.parent.name), before.cells[file.parent.name][:2]
        else:
            state = _state(file)
            try:
                rows = {row.score_id or number: row for number, row in enumerate(read_file(file))}
            except InputError:
                continue  # whoever reads the cell says what is wrong with it
            table = to_table([*rows.values()])
        tables.append(table.replace_schema_metadata(None))
        cells[file.parent.name] = (*state, first, table.num_rows)
        first += table.num_rows
    if tables:
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        write_columns(folder / COMPACTED, table, {CELLS: json.dumps(cells)})


def read_parts(folder: Path) -> Iterator[Columns | Path]:
    """The rows below a folder in the order of their files: of compacted cells as columns, else their files.

    Raises:
        InputError: a columnar file is damaged.
    """
    compacted = {path.parent: Compacted(path) for path in folder.rglob(COMPACTED)}
    files = sorted(folder.rglob(ROWS_NAME))

    def place_of(file: Path) -> Path | None:
        of_folder = compacted.get(file.parent.parent)
        return file.parent.parent if of_folder is not None and of_folder.has(file) else None

    for place, group in groupby(files, key=place_of):
        if place is None:
            yield from group
        else:
            names = [file.parent.name for file in group]
            yield Columns(compacted[place].of_all(names), str(place / COMPACTED))
