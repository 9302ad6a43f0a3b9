import dataclasses
import errno
import json
import math
import multiprocessing
import os

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results import rows
from motionexp.results.rows import (
    Row,
    append_rows,
    by_subject,
    check_comparable,
    of_newest_version,
    paired_difference,
    read_rows,
    to_frame,
)


def row(**changes) -> Row:
    fields = {
        "metric": "text_alignment",
        "metric_version": 1,
        "value": 27.5,
        "suite": "shapes",
        "reference": "a",
        "edit_kind": "style",
        "seed": 0,
        "model": "tiny_latte",
        "method": "lora",
        "tau": 700.0,
        "steps": 50,
        "precision": "fp32",
        "weights_hash": "w",
    }
    return Row(**fields | changes)


def test_rows_survive_the_file_with_odd_captions_and_reasons(tmp_path):
    path = tmp_path / "cell" / "rows.jsonl"
    odd = 'a "red" ball,\n\u2028 \U0001f600 | & \\'
    rows = [
        row(edit_caption=odd, score_id="1", strata={"contrast": "motion-dominant"}),
        row(value=math.nan, reason="no valid point", score_id="2", seconds={"fit": 1.5}),
    ]
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    back = read_rows(tmp_path)
    assert back[0] == rows[0]
    assert math.isnan(back[1].value)
    assert dataclasses.replace(back[1], value=0.0) == dataclasses.replace(rows[1], value=0.0)
    assert [path.name for path in path.parent.iterdir() if not path.name.endswith(".lock")] == ["rows.jsonl"]


def test_a_score_written_again_counts_once_and_the_last_one_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(score_id="1", value=1.0), row(score_id="2"), row(score_id="1", value=3.0)])
    assert [each.value for each in read_rows(path)] == [3.0, 27.5]


def test_a_newer_version_of_a_metric_supersedes_the_older_on_the_same_sample():
    old, new = row(sample_id="a", metric_version=1), row(sample_id="a", metric_version=2, value=3.0)
    other = row(sample_id="b", metric_version=1)
    no_sample = row(metric_version=1)
    assert of_newest_version([new, old, other, no_sample]) == [new, other, no_sample]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"metric": "text', "not a row"),
        ("[]", "JSON object"),
        ('{"metric": "text_alignment"}', "missing fields"),
        (json.dumps(rows.as_json(row()) | {"extra": 1}), "unknown fields"),
        (json.dumps(rows.as_json(row()) | {"seed": "zero"}), "field seed"),
        (json.dumps(rows.as_json(row()) | {"seed": True}), "field seed"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_corrupted_file_is_named_with_its_line(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row()])
    with open(path, "ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputError, match=said) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "line 2" in str(caught.value) or said == "cannot be read"


def test_a_frame_has_the_strata_and_settings_of_rows_as_columns():
    frame = to_frame([row(strata={"contrast": "motion-dominant"}, settings={"rank": 4}), row(value=math.nan)])
    assert list(frame["value"].fillna(0)) == [27.5, 0]
    assert frame.loc[0, ["tau", "strata.contrast", "settings.rank"]].tolist() == [700, "motion-dominant", 4]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such rows"):
        read_rows(tmp_path / "nowhere")


def _append_many(path, worker):
    for index in range(20):
        append_rows(path, [row(score_id=f"{worker}-{index}")])


def test_two_processes_lose_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, worker)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(read_rows(path)) == 40


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row()])
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [".rows.jsonl.lock", "rows.jsonl"]


def test_a_paired_difference_is_tighter_than_its_parts_and_uses_shared_subjects_alone():
    random = np.random.default_rng(3)
    level = random.normal(scale=5, size=24)
    ours = {(str(index), "style", 0): float(level[index] + 1) for index in range(24)}
    theirs = {(str(index), "style", 0): float(level[index]) for index in range(23)}
    difference = paired_difference(ours, theirs)
    assert difference.mean == pytest.approx(1)
    assert difference.clusters == 23
    assert difference.high - difference.low < 1e-9


def test_two_rows_of_one_subject_are_refused():
    with pytest.raises(InputError, match="does not select"):
        by_subject([row(adapter_scale=1.0), row(adapter_scale=0.5)])


@pytest.mark.parametrize("kind", ["precision", "weights_hash", "metric_version"])
def test_what_does_not_belong_together_is_refused_unless_told(kind):
    other = row(**{kind: 2 if kind == "metric_version" else "bf16"})
    with pytest.raises(InputError, match=kind):
        check_comparable([row(), other])
    check_comparable([row(), other], allow=[kind])
    check_comparable(
        [row(), row(model="latte", weights_hash="x"), row(metric="pick_score", metric_version=2)]
    )


def test_systems_with_videos_of_other_sizes_are_compared():
    large, small = ({"frames": 4, "height": height, "width": 16} for height in (32, 16))
    rows = [row(reference_hash="l", settings=large), row(reference_hash="s", settings=small)]
    check_comparable(rows)
    with pytest.raises(InputError, match=r"reference_hash of shapes \S+ 4 16 16: other, s\."):
        check_comparable([*rows, row(reference_hash="other", settings=small)])
