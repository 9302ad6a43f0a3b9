"""Published rows: a few megabytes in the repository from which every table is built again."""

import math
import os
import reprlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from motionexp.errors import InputError
from motionexp.results.columns import Columns, read_columns, to_table, write_columns
from motionexp.results.layout import Layout
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import (
    EDIT_FIELDS,
    METRIC_FIELDS,
    RUN_FIELDS,
    SAMPLE_FIELDS,
    Row,
    checked_fields,
    dump_line,
    read_lines,
    score_id_of,
)

# Of JSON lines: fields that many rows share stand once and are numbered; a sample's line refers to them.
SHARED = {"metric": METRIC_FIELDS, "run": RUN_FIELDS, "edit": EDIT_FIELDS}


def write_published(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a Parquet file, with values of six significant digits and without score ids.

    Score ids follow from the other fields. The order is fixed: the same rows give the same bytes.
    """
    # Shorter than the 17 digits of a float, and enough for every table.
    rounded = [replace(row, value=float(f"{row.value:.6g}")) for row in rows]
    write_columns(path, to_table(sorted(rounded, key=_order), without=["score_id"]))


def _order(row: Row) -> tuple[str, ...]:
    """Rows of one run, edit and sample follow each other, so that columns are long repetitions."""
    parts = (RUN_FIELDS, EDIT_FIELDS, SAMPLE_FIELDS, METRIC_FIELDS)
    return tuple(dump_line([getattr(row, name) for name in names]) for names in parts)


def read_published(path: Path) -> list[Row]:
    """The rows that `write_published` wrote, their score ids computed again; also those in JSON lines.

    Raises:
        InputError: no such file, no rows in it, a corrupted file, or a score that stands twice; the error
            names the file, and of JSON lines the line.
    """
    if not path.exists():
        raise InputError(f"{path}: no rows are published there; `python -m motionexp.results.publish` does")
    rows = _read_lines(path) if path.suffix == ".jsonl" else _read_table(path)
    if not rows:
        raise InputError(f"{path}: it has no rows; publish them again")
    return rows


def _read_table(path: Path) -> list[Row]:
    columns = Columns(read_columns(path), str(path))
    columns.add_score_ids()
    rows, seen = columns.rows(), set()
    for run, row in zip(columns.groups(RUN_FIELDS).tolist(), rows, strict=True):
        if row.score_id and (run, row.score_id) in seen:
            raise InputError(
                f"{path}: the {row.metric} of sample {row.sample_id} stands twice; publish again"
            )
        seen.add((run, row.score_id))
    return rows


def _read_lines(path: Path) -> list[Row]:
    """Of JSON lines: each metric, run and edit once, then samples with their values by metric's number."""
    # A field is checked once for all rows that share it: there are a hundred thousand rows in some files.
    shared: dict[str, list[dict[str, Any]]] = {kind: [] for kind in SHARED}
    rows: list[Row] = []
    # By run: scores of two runs are named where they are mixed, with the setting in which they differ.
    score_ids: dict[int, set[str]] = defaultdict(set)
    for number, line in read_lines(path):
        try:
            match line:
                case {"sample": dict(sample), "run": run, "edit": edit, "values": dict(values)} if (
                    len(line) == 4
                ):
                    # One line holds all metrics of a sample; its other fields are shared by number.
                    common = _numbered(shared, "run", run) | _numbered(shared, "edit", edit)
                    common |= _part_fields("sample", sample, SAMPLE_FIELDS)
                    rows_of_line = [
                        _row(common | _numbered(shared, "metric", _metric_number(key)), value)
                        for key, value in values.items()
                    ]
                    _check_scores(rows_of_line, score_ids[run])
                    rows += rows_of_line
                case {"metric": dict(part)} | {"run": dict(part)} | {"edit": dict(part)} if len(line) == 1:
                    kind = next(iter(line))
                    shared[kind].append(_part_fields(kind, part, SHARED[kind]))
                case _:
                    raise InputError("neither a metric, nor a run, an edit or a sample")
        except (ValueError, TypeError, KeyError) as error:  # KeyError: a field that an id needs is missing
            raise InputError(
                f"{path}, line {number}: not published rows ({error}); publish them again"
            ) from error
    return rows


def _part_fields(kind: str, part: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The checked fields of a part. A field of another part would replace that part's, so it is an error."""
    fields = checked_fields(part)
    if not fields.keys() <= set(names):
        raise InputError(f"a {kind} has no {', '.join(sorted(fields.keys() - set(names)))}")
    return fields


def _metric_number(key: str) -> int | None:
    return int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else None


def _numbered(shared: dict[str, list[dict[str, Any]]], kind: str, number: Any) -> dict[str, Any]:
    """The part of this number. Raises InputError for no number of a line before; -1 is none."""
    parts = shared[kind]
    if type(number) is not int or not 0 <= number < len(parts):
        raise InputError(
            f"{kind} {reprlib.repr(number)} is none of the {len(parts)} lines of a {kind} before it"
        )
    return parts[number]


def _check_scores(rows: Sequence[Row], score_ids: set[str]) -> None:
    """Adds the ids of a line's scores. Raises InputError for one that is there already, or for no score."""
    if not rows:
        raise InputError("a sample without values")
    for row in rows:
        if row.score_id in score_ids:
            raise InputError(f"the {row.metric} of sample {row.sample_id} stands twice")
        if row.score_id:
            score_ids.add(row.score_id)


def _row(fields: dict[str, Any], value: Any) -> Row:
    """The row of checked `fields` and of a published value; a missing field is a TypeError."""
    if type(value) is float and math.isfinite(value):  # as most are: no need for the slow check
        fields["value"] = value
    else:
        value, reason = value if isinstance(value, list) else (value, "")
        fields |= checked_fields({"value": value, "reason": reason})
    if sample := fields.get("sample_id"):
        # Rows without a sample have no score id.
        version, model = fields["metric_version"], fields.get("metric_model", "")
        fields["score_id"] = score_id_of(sample, fields["metric"], version, model)
    return Row(**fields)


def root_of(path: Path) -> Path:
    """ROOT of a layout's `path`, which is ROOT/experiments/NAME.yaml."""
    return path.resolve().parent.parent


def is_published(path: Path, layout: Layout) -> bool:
    """Whether the rows of the layout in `path` are published; if not, prints that on stderr.

    For commands over all experiments, which then leave the layout out. A layout that is named needs its rows.
    """
    if not (exists := (root_of(path) / layout.rows).exists()):
        print(f"{path}: no rows published yet ({layout.rows}); skipped", file=sys.stderr)
    return exists


def published_layouts(names: Sequence[str]) -> Iterator[tuple[Path, Layout]]:
    """(path, layout) of the named layouts, or of all in experiments/ whose rows are published."""
    for path in map(Path, names or sorted(map(str, Path("experiments").glob("*.yaml")))):
        layout = read_layout(path)
        if layout.rows and (names or is_published(path, layout)):
            yield path, layout


def print_files(files: Iterable[Path]) -> int:
    """Runs a command that yields the files that it writes, and prints them; returns the exit code.

    An InputError goes to stderr and gives the exit code 2.
    """
    try:
        for file in files:
            print(os.path.relpath(file))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
