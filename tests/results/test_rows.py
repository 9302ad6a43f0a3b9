import dataclasses
import errno
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.comparisons import mean_of
from motionexp.results.rows import append_rows, as_json, read_rows, to_frame
from motionexp.results.subjects import by_subject, paired_difference
from motionexp.results.versions import check_comparable, of_newest_version
from tests.support.made_rows import made_row as row


def test_rows_survive_the_file_with_odd_captions_and_reasons(tmp_path):
    path = tmp_path / "cell" / "rows.jsonl"
    odd = 'a "red" ball,\n\u2028 \U0001f600 | & \\'
    first = row(edit_caption=odd, score_id="1", strata={"contrast": "motion-dominant"})
    second = row(value=math.nan, reason="no valid point", score_id="2", seconds={"fit": 1.5})
    append_rows(path, [first])
    append_rows(path, [second])
    back = read_rows(tmp_path)
    assert back[0] == first
    assert math.isnan(back[1].value)
    assert dataclasses.replace(back[1], value=0.0) == dataclasses.replace(second, value=0.0)
    assert [path.name for path in path.parent.iterdir() if not path.name.endswith(".lock")] == ["rows.jsonl"]


def test_a_score_written_again_counts_once_and_the_last_one_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(score_id="1", value=1.0), row(score_id="2"), row(score_id="1", value=3.0)])
    assert [entry.value for entry in read_rows(path)] == [3.0, 27.5]


def test_a_newer_version_of_a_metric_supersedes_the_older_on_the_same_sample():
    old, new = row(sample_id="a", metric_version=1), row(sample_id="a", metric_version=2, value=3.0)
    another, no_sample = row(sample_id="b", metric_version=1), row(metric_version=1)
    assert of_newest_version([new, old, another, no_sample]) == [new, another, no_sample]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"metric": "text', "line 2"),
        ("[]", "line 2: .* list"),
        ('{"metric": "text_alignment"}', "line 2: .*reference"),
        (json.dumps(as_json(row()) | {"extra": 1}), "line 2: .*extra"),
        (json.dumps(as_json(row()) | {"seed": "zero"}), "line 2: .*seed .*'zero'"),
        (json.dumps(as_json(row()) | {"seed": True}), "line 2: .*seed .*True"),
        ("\udcff", "rows.jsonl"),
        ("[" * 100_000, "line 2"),
        ('{"a":' * 30 + "1" + "}" * 30, "line 2"),
        ("9" * 5000, "line 2"),
        ('{"value": NaN}', "line 2: .*NaN"),
        ('{"metric": "\\ud800"}', "line 2"),
        *(
            (json.dumps(as_json(row()) | {name: value}), f"line 2: .*{name}")
            for name, value in (
                *(("tau", 10**400), ("seed", 10**30), ("strata", {"a": None}), ("packages", {"a": 1})),
                *(("seconds", {"fit": "1"}), ("settings", None), ("settings", {"model": None})),
                *(("settings", {"scoring": "anchors"}), ("strata", None), ("tau", None), ("method", [])),
            )
        ),
        ('{"value": 1e999}', "line 2: .*value"),
        ('{"metric": "a", "suite": "b", "metric": "c"}', "line 2: .*'metric' stands twice"),
        ('{"metric": "a", "settings": {"rank": 1, "rank": 2}}', "line 2: .*'rank' stands twice"),
        ('{"a":1}{"a":2}', "line 2: .*Extra data"),
        (json.dumps({"new" * 1000: 1}), "line 2: .*unknown fields .{1,80}$"),
        *(
            (json.dumps(as_json(row()) | {name: value}), f"line 2: .*field {name} .* from 0")
            for name, value in (
                *(("seed", -1), ("steps", -1), ("peak_memory", -5), ("tau", -0.5), ("tau", 1000.5)),
                *(("metric_version", -1), ("train_steps", "10"), ("adapter_steps", 2.0)),
            )
        ),
        (
            json.dumps(as_json(row(score_id="1", metric="pick_score"))),
            "line 2: .*'1' .*metric 'text_alignment'",
        ),
    ],
)
def test_a_corrupted_file_is_named_with_its_line(tmp_path, line, named):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(score_id="1")])
    with open(path, "ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InputError, match=named) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=str(tmp_path / "nowhere")):
        read_rows(tmp_path / "nowhere")


def test_a_file_of_rows_that_is_too_long_is_not_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)  # takes no room on the disk
    with pytest.raises(InputError, match=r"rows\.jsonl: more than 2 GB"):
        read_rows(path)
    with pytest.raises(InputError, match="/dev/zero"):
        read_rows(Path("/dev/zero"))


def test_a_frame_has_the_strata_and_settings_of_rows_as_columns():
    frame = to_frame([row(strata={"contrast": "motion-dominant"}, settings={"rank": 4}), row(value=math.nan)])
    assert list(frame["value"].fillna(0)) == [27.5, 0]
    assert frame.loc[0, ["tau", "strata.contrast", "settings.rank"]].tolist() == [700, "motion-dominant", 4]


def test_two_writers_lose_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    # Threads stand for processes: a lock is held by an opened file.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda index: append_rows(path, [row(score_id=str(index))]), range(40)))
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
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.jsonl"]


def test_a_paired_difference_is_tighter_than_its_parts_and_uses_shared_subjects_alone():
    random = np.random.default_rng(3)
    level = random.normal(scale=5, size=24)
    ours = {(str(index), "style", 0): float(level[index] + 1) for index in range(24)}
    theirs = {(str(index), "style", 0): float(level[index]) for index in range(23)}
    difference = paired_difference(ours, theirs)
    assert difference.mean == pytest.approx(1)
    assert difference.clusters == 23
    assert difference.high - difference.low < 1e-9


@pytest.mark.parametrize("kind", ["precision", "weights_hash", "metric_version", "reference_hash"])
def test_what_does_not_belong_together_is_refused_unless_told(kind):
    first, second = (row(**{kind: value}) for value in ((1, 2) if kind == "metric_version" else "xy"))
    with pytest.raises(InputError, match=kind):
        check_comparable([first, second])
    check_comparable([first, second], allow=[kind])


def test_a_newer_version_of_a_stage_supersedes_the_older_on_the_same_setting():
    """Rows of the first release hold no versions, no training seed, and fewer settings."""
    old = row(adapter_id="o", sample_id="o", train_steps=9, settings={"rank": 4})
    rank = row(adapter_id="r", sample_id="r", train_steps=9, settings={"rank": 8})
    base = row(adapter_id="b", sample_id="b", method="base", settings={"rank": 4})
    versions = {"training": 2, "sampling": 1}
    new = [
        row(adapter_id=f"n{seed}", sample_id=f"n{seed}", train_steps=9, settings={"rank": 4, "later": 1},
            training_seed=seed, versions=versions)
        for seed in (0, 1)
    ]  # fmt: skip
    assert of_newest_version([old, rank, base, *new]) == [rank, base, *new]
    check_comparable([base, *new])
    with pytest.raises(InputError, match=r"training_version: 1, 2"):
        check_comparable([rank, *new])
    check_comparable([rank, *new], allow=["training_version"])
    with pytest.raises(InputError, match=r"sampling_version: 1, 2"):
        check_comparable([base, row(adapter_id="s", method="base", versions={"sampling": 2})])


def by_training_seed(values):
    """Rows of one edit, from {reference: [value of training seed 0, 1, ...]}."""
    return [
        row(reference=reference, training_seed=seed, value=value)
        for reference, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def test_training_seeds_are_nested_in_references():
    values = by_subject(by_training_seed({"a": [0.0, 2.0, math.nan], "b": [-7.0, 13.0, 3.0]}))
    assert values == {("a", "style", 0): 1.0, ("b", "style", 0): 3.0}
    interval = mean_of(values)
    # The interval of two references is their range, whatever their training seeds' spread.
    assert (interval.mean, interval.low, interval.high, interval.n) == (2.0, 1.0, 3.0, 2)
    with pytest.raises(InputError, match=r"training_seed: b has no rows of 1"):
        by_subject(by_training_seed({"a": [0.0, 2.0], "b": [1.0]}))
    with pytest.raises(InputError, match="two rows"):
        by_subject([*by_training_seed({"a": [0.0]}), *by_training_seed({"a": [1.0]})])


def test_intervals_over_references_contain_the_spread_over_training_seeds():
    """Of normal values the variance of the mean is (between + within / seeds) / references."""
    random = np.random.default_rng(0)
    references, seeds, between, within = 8, 3, 0.5, 1.0
    widths, hits = [], 0
    for _ in range(200):
        levels = random.normal(scale=between, size=(references, 1))
        drawn = levels + random.normal(scale=within, size=(references, seeds))
        interval = mean_of(by_subject(by_training_seed({str(i): list(of) for i, of in enumerate(drawn)})))
        widths.append(interval.high - interval.low)
        hits += interval.low <= 0 <= interval.high
    error = math.sqrt((between**2 + within**2 / seeds) / references)
    # Student's t at 7 degrees of freedom is 2.365; a sample's deviation is 0.965 of the true one in the mean.
    assert np.mean(widths) == pytest.approx(2 * 2.365 * 0.965 * error, rel=0.06)
    assert hits >= 180


def test_other_models_metrics_splits_and_sizes_are_compared():
    large, small = ({"frames": 4, "height": height, "width": 16} for height in (32, 16))
    rows = [
        row(reference_hash="l", settings=large),
        row(reference_hash="s", settings=small),
        row(reference_hash="t", settings=small, strata={"split": "test"}),
        row(model="latte", weights_hash="x"),
        row(metric="pick_score", metric_version=2),
        row(precision="", weights_hash=""),  # videos of another system
    ]
    check_comparable(rows)
    with pytest.raises(InputError, match=r"reference_hash of shapes \S+ 4 16 16: another, s\."):
        check_comparable([*rows, row(reference_hash="another", settings=small)])


def test_a_row_after_a_last_line_without_its_end_is_a_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(score_id="1")])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_rows(path, [row(score_id="2")])
    assert [entry.score_id for entry in read_rows(path)] == ["1", "2"]
