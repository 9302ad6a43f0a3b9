"""Rows as columns: they come back, are selected as rows are, are compacted; damage is one line."""

import math
import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from motionexp.errors import InputError
from motionexp.files import locked
from motionexp.results import columns
from motionexp.results.columns import Columns, read_columns, to_table, write_columns
from motionexp.results.compaction import COMPACTED, compact
from motionexp.results.rows import FIELDS, Row, append_rows, read_rows
from motionexp.results.selection import matches
from tests.support.kept_results import plain
from tests.support.made_rows import made_row, rank_rows, toy_rows

ODD = made_row(
    value=math.nan,
    reason="no object\nseen",
    seed=None,
    training_seed=3,
    off_t=687.5,
    off_log_snr=-0.25,
    higher_is_better=False,
    strata={"motion": "captioned", "Ünï": "|"},
    settings={"rank": 4, "model": {"height": 8}, "lists": [1, [2.5]], "none": None},
    packages={"torch": "2"},
    seconds={"fit": 0.1},
    dirty=True,
    score_id="odd",
)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [ODD, *toy_rows(), replace(ODD, score_id="", value=1e-300, higher_is_better=None, off_t=0.0)]
    path = tmp_path / "rows.parquet"
    write_columns(path, to_table(rows))
    assert plain(read_rows(path)) == plain(rows)
    before = path.read_bytes()
    write_columns(path, to_table(rows))
    assert path.read_bytes() == before
    # Other programs read it too.
    frame = pq.read_table(path).to_pandas()
    assert frame["value"].tolist()[1:-1] == [row.value for row in toy_rows()]
    # Rows share the objects that few of them differ in.
    read = read_rows(path)
    assert len({id(row.settings) for row in read}) <= 4
    write_columns(path, to_table([]))
    assert read_rows(path) == []


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"tau": "700|1000", "contrast": "motion-dominant"},
        {"rank": "4", "adapter_scale": "0.5"},
        {"motion": "|captioned", "metric": "text_alignment"},
        {"nothing": ""},
        {"seed": "None"},
        {"model": "another"},
        {"higher_is_better": "False", "dirty": "True"},
    ],
)
def test_columns_are_selected_as_rows_are(select, tmp_path):
    rows = [*toy_rows(), ODD, *rank_rows()]
    found = Columns(to_table(rows), "here").rows(Columns(to_table(rows), "here").where(select))
    assert plain(found) == plain([row for row in rows if matches(row, select)])
    append_rows(tmp_path / "cell" / "rows.jsonl", rows)
    assert plain(read_rows(tmp_path, select)) == plain(found)


def test_no_flipped_bit_of_a_file_passes(tmp_path):
    path, draw = tmp_path / "rows.parquet", random.Random(0)
    write_columns(path, to_table(toy_rows()[:40]))
    whole = path.read_bytes()
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        # Of the seal's own letters alone a flip makes a file without a seal, whose rows are whole.
        with suppress(InputError):
            assert read_rows(path) == toy_rows()[:40]
    for content in (b"", b"PAR1", whole[:-9], whole[9:], b"no rows"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"rows\.parquet"):
            read_rows(path)


@pytest.mark.parametrize(
    ("name", "column", "problem"),
    [
        ("tau", pa.array([-1.0]), "tau is -1"),
        ("tau", pa.array([math.nan]), "tau is nan"),
        ("value", pa.array([math.inf]), "value"),
        ("value", pa.array([None], pa.float64()), "value"),
        ("metric", pa.array([None], pa.string()), "metric"),
        ("steps", pa.array([-3]), "steps is -3"),
        ("settings", pa.array(["{"]), "settings|JSON|Expecting"),
        ("settings", pa.array(["[" * 10_000]), "rows"),
        ("settings", pa.array(['{"model": 3}']), "settings has model"),
        ("strata", pa.array(['{"contrast": 3}']), "strata"),
        ("steps", pa.array(["many"]), "rows"),
        ("unknown", pa.array([1]), "unknown"),
        ("model", None, "no column model"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_file(name, column, problem, tmp_path):
    table = to_table([made_row()])
    if name in table.column_names:
        table = table.drop_columns([name])
    if column is not None:
        table = table.append_column(name, column)
    path = tmp_path / "mine.parquet"
    pq.write_table(table, path)  # as another program writes it
    with pytest.raises(InputError, match=problem) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_rows_than_memory_holds_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_columns(path, to_table(toy_rows()))
    monkeypatch.setattr(columns, "MOST_ROWS", 10)
    with pytest.raises(InputError, match="more rows"):
        read_columns(path)


# compaction


def cells(folder: Path) -> list[list[Row]]:
    """Three cells with rows, of which the second wrote a score twice."""
    rows = toy_rows()
    parts = [rows[:50], [*rows[50:70], replace(rows[50], value=9.0)], rows[70:]]
    for number, part in enumerate(parts):
        append_rows(folder / f"cell{number}" / "rows.jsonl", part)
    return parts


def test_compacted_cells_are_read_as_before_and_changed_ones_from_their_own_files(tmp_path):
    folder = tmp_path / "shapes" / "tiny"
    cells(folder)
    before = read_rows(tmp_path)
    compact(folder)
    assert not (folder / COMPACTED).exists()  # so few rows are read as fast
    compact(folder, least_bytes=0)
    originals = [path.read_bytes() for path in sorted(folder.glob("*/rows.jsonl"))]
    assert plain(read_rows(tmp_path)) == plain(read_rows(folder)) == plain(before)
    # They do come from the columns.
    for path, content in zip(sorted(folder.glob("*/rows.jsonl")), originals, strict=True):
        state = path.stat()
        path.write_bytes(b"x" * len(content))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert plain(read_rows(tmp_path)) == plain(before)
    # A changed time or size, also where a clock jumped back: the cell's own file.
    for path, content in zip(sorted(folder.glob("*/rows.jsonl")), originals, strict=True):
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
    append_rows(folder / "cell0" / "rows.jsonl", [ODD])
    assert {row.score_id for row in read_rows(tmp_path)} == {row.score_id for row in before} | {"odd"}
    compact(folder, least_bytes=0)
    assert len(pq.read_table(folder / COMPACTED)) == len(before) + 1
    assert len(read_rows(tmp_path, {"reason": "no object\nseen"})) == 1


def test_what_is_damaged_or_in_work_is_not_compacted(tmp_path):
    folder = tmp_path / "shapes" / "tiny"
    parts = cells(folder)
    (folder / "cell0" / "rows.jsonl").write_text("no row\n")
    with locked(folder / "cell1" / ".lock"):
        compact(folder, least_bytes=0)
    assert len(pq.read_table(folder / COMPACTED)) == len(parts[2])
    with pytest.raises(InputError, match=r"cell0.rows\.jsonl, line 1"):
        read_rows(tmp_path)
    (folder / "cell0" / "rows.jsonl").unlink()
    assert len(read_rows(tmp_path)) == len(parts[1]) - 1 + len(parts[2])
    # A damaged copy is named, and written again by the next job.
    (folder / COMPACTED).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="delete it"):
        read_rows(tmp_path)
    compact(folder, least_bytes=0)
    assert len(read_rows(tmp_path)) == len(parts[1]) - 1 + len(parts[2])


def test_a_million_rows_share_what_they_can():
    assert not hasattr(made_row(), "__dict__")
    assert {*FIELDS} == {*Row.__slots__}
    assert np.isnan(ODD.value)
