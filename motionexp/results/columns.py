"""Rows as columns: Parquet files, which hold a million rows in a few megabytes, and selections by column.

A column has a field of `Row`; an object is JSON text. What few rows differ in is stored once and numbered: a
selection looks at each of a column's distinct values, and only the selected rows become `Row`s.
"""

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motionexp.errors import DAMAGE, InputError
from motionexp.files import BLANK_SEAL, read_sealed, seal, write_whole
from motionexp.results.rows import (
    ENTRIES,
    FIELDS,
    MOST_BYTES,
    TEXT_FIELDS,
    Row,
    checked_fields,
    decoded,
    score_id_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 50_000_000
MOST_IN_MEMORY = 64_000_000_000
"""Bytes of a file's columns, decompressed and without their dictionaries."""
MANY = 50_000
SEAL = "motionexp.seal"
LEVEL = 9  # of zstd: a third smaller than its first level, and still seconds for a million rows
DEFAULTS: dict[str, Any] = {
    name: entry.default if entry.default_factory is MISSING else entry.default_factory()
    for name, entry in FIELDS.items()
    if (entry.default, entry.default_factory) != (MISSING, MISSING)
}
FREE_TEXTS = TEXT_FIELDS - {"method"}  # which had other names
SETTERS = [getattr(Row, name).__set__ for name in FIELDS]


def to_table(rows: Sequence[Row], without: Sequence[str] = ()) -> "pa.Table":
    """The columns of rows, but some of them."""
    import pyarrow as pa  # only here: the import takes a third of a second

    columns = {}
    for name in (name for name in FIELDS if name not in without):
        values: list[Any] = [getattr(row, name) for row in rows]
        if name in ENTRIES:
            texts: dict[int, str] = {}
            # Rows that were read share their objects.
            for value in values:
                if id(value) not in texts:
                    texts[id(value)] = json.dumps(value, allow_nan=False, separators=(",", ":"))
            values = [texts[id(value)] for value in values]
        columns[name] = pa.array(values, _type_of(name))
    return pa.table(columns, pa.schema([(name, column.type) for name, column in columns.items()]))


def _type_of(name: str) -> "pa.DataType":
    import pyarrow as pa

    kind: Any = FIELDS[name].type
    if name in ENTRIES or kind is str:
        return pa.dictionary(pa.int32(), pa.string())
    return (
        pa.float64()
        if kind in (float, float | None)
        else pa.bool_()
        if kind in (bool, bool | None)
        else pa.int64()
    )


def write_columns(path: Path, table: "pa.Table", metadata: Mapping[str, str] | None = None) -> None:
    """Write a Parquet file whole or not at all, sealed against damage; equal rows give equal bytes.

    Raises OSError where it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = table.replace_schema_metadata(None)
    memory = pa.BufferOutputStream()
    with pq.ParquetWriter(
        memory, table.schema, compression="zstd", compression_level=LEVEL, store_schema=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**(metadata or {}), SEAL: BLANK_SEAL})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, seal(memory.getvalue().to_pybytes()))


def read_columns(path: Path) -> "pa.Table":
    """The table in a Parquet file of rows; columns of texts are dictionaries.

    Raises:
        InputError: the file is damaged, of other columns, or larger than any file of rows; one line.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"more than {MOST_BYTES // 1_000_000_000} GB")
        sealed = read_sealed(path)
        content = path.read_bytes() if sealed is None else sealed
        about = pq.read_metadata(pa.BufferReader(content))
        sizes = [about.row_group(number).total_byte_size for number in range(about.num_row_groups)]
        if not 0 <= about.num_rows <= MOST_ROWS or not 0 <= sum(sizes) <= MOST_IN_MEMORY:
            raise InputError("it says that it has more rows than memory holds")
        names = about.schema.to_arrow_schema().names
        if unknown := sorted({*names} - {*FIELDS}) or len({*names}) < len(names):
            raise InputError(f"its columns are not the fields of rows: {unknown}")
        texts = [name for name in names if name in TEXT_FIELDS or name in ENTRIES]
        table = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts).read()
        if sealed is None:  # another program's: nothing has said yet that it is whole
            table.validate(full=True)
        return table.cast(pa.schema([(name, _type_of(name)) for name in names], about.metadata))
    except (*DAMAGE, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as rows ({reason})") from error


class Columns:
    """A table of rows, whose columns are looked at by their distinct values.

    Args:
        table: as `to_table` makes or `read_columns` reads.
        source: of the table, for errors.
    """

    def __init__(self, table: "pa.Table", source: str) -> None:
        # A table of one part has one dictionary a column already.
        parts = max((column.num_chunks for column in table.columns), default=0)
        self.table = table if parts < 2 else table.unify_dictionaries().combine_chunks()
        self.source = source
        self._coded: dict[str, tuple[np.ndarray, list[Any]]] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def coded(self, name: str) -> tuple[np.ndarray, list[Any]]:
        """A column as numbers, and the checked values that they stand for, which rows share.

        Raises:
            InputError: a value has the wrong type, or is out of its range.
        """
        if name not in self._coded:
            try:
                self._coded[name] = self._read(name)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.source}: not rows ({error})") from error
        return self._coded[name]

    def _read(self, name: str) -> tuple[np.ndarray, list[Any]]:
        if name not in self.table.column_names:
            if name not in DEFAULTS:
                raise InputError(f"there is no column {name}")
            return np.zeros(len(self), int), [DEFAULTS[name]]
        column = self.table.column(name).combine_chunks()
        if not hasattr(column, "dictionary"):
            column = column.dictionary_encode("encode")
        if column.indices.null_count:
            raise InputError(f"field {name} has no value in {column.indices.null_count} rows")
        values = column.dictionary.to_pylist()
        if name in ENTRIES:
            values = [decoded((text or "{}").encode()) for text in values]
        if name in FREE_TEXTS or name == "value":
            # Millions of values: text is text, and a number is one unless it is infinite.
            if None in values or (name == "value" and np.isinf(np.array(values)).any()):
                raise InputError(f"field {name} has a value that is none")
        else:
            values = [checked_fields({name: value})[name] for value in values]
        return column.indices.to_numpy(zero_copy_only=False), values

    def where(self, select: Mapping[str, str]) -> np.ndarray:
        """(N,) whether each row has the selected values, as `selection.matches`."""
        chosen = np.ones(len(self), bool)
        for name, values in select.items():
            chosen &= self._stratum_in(name, values.split("|"))
        return chosen

    def _stratum_in(self, name: str, texts: Sequence[str]) -> np.ndarray:
        """(N,) whether `Row.stratum` of a name is one of some texts."""
        if name in FIELDS:
            codes, values = self.coded(name)
            return np.array([_text(value) in texts for value in values], bool)[codes]
        (strata, of_strata), (settings, of_settings) = self.coded("strata"), self.coded("settings")
        in_strata = np.array([name in value for value in of_strata], bool)[strata]
        by_strata = np.array([_text(value.get(name, "")) in texts for value in of_strata], bool)[strata]
        by_settings = np.array([_text(value.get(name, "")) in texts for value in of_settings], bool)[settings]
        return np.where(in_strata, by_strata, by_settings)

    def groups(self, names: Sequence[str]) -> np.ndarray:
        """(N,) a number for each combination of the values of some columns."""
        numbers = np.zeros(len(self), np.int64)
        for name in names:
            codes, values = self.coded(name)
            _, numbers = np.unique(numbers * len(values) + codes, return_inverse=True)
        return numbers

    def add_score_ids(self) -> None:
        """Compute the score ids, in place of stored ones; rows without a sample have none."""
        names = ("sample_id", "metric", "metric_version", "metric_model")
        columns = [[values[code] for code in codes] for codes, values in map(self.coded, names)]
        ids = [score_id_of(*about) if about[0] else "" for about in zip(*columns, strict=True)]
        self._coded["score_id"] = np.arange(len(ids)), ids

    def rows(self, chosen: np.ndarray | None = None) -> list[Row]:
        """The rows, or those that a mask chooses, in order."""
        columns = []
        for name in FIELDS:
            codes, values = self.coded(name)
            distinct = np.empty(len(values), object)
            distinct[:] = values
            columns.append(distinct[codes if chosen is None else codes[chosen]].tolist())
        with _without_collection():
            rows = [_row(values) for values in zip(*columns, strict=True)]
        if len(rows) >= MANY:
            gc.freeze()  # nobody looks through them for garbage later: rows refer to no other rows
        return rows


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(values: Sequence[Any]) -> Row:
    """A row of checked values in the order of its fields; half of the time of the class's own function."""
    row = object.__new__(Row)
    for set_field, value in zip(SETTERS, values, strict=True):
        set_field(row, value)
    return row


@contextmanager
def _without_collection() -> Iterator[None]:
    """A million new objects would be looked through again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
