"""Rows under every old name are read as the new ones, and selections by new names find them."""

import json
import shutil
from dataclasses import asdict, replace

import pytest

from motionexp.config.renames import METHODS, STRATA, STRATUM_VALUES
from motionexp.files import ROOT
from motionexp.results.published import read_published, to_published
from motionexp.results.rows import read_rows
from motionexp.results.selection import matches
from tests.support.made_rows import rank_row

RENAMED = [
    *({"method": (old, new)} for old, new in METHODS.items()),
    *({f"strata.{old}": ("1", "1")} for old in STRATA),
    *({f"strata.{name}": pair} for name, values in STRATUM_VALUES.items() for pair in values.items()),
]


def old_row(renamed: dict[str, tuple[str, str]]) -> tuple[dict[str, object], dict[str, str]]:
    """A row as JSON under an old name, and the selection by new names that has to find it."""
    ((name, (old, new)),) = renamed.items()
    plain = asdict(rank_row("text_alignment", 0, sample_id="a sample", score_id="a score"))
    field, _, stratum = name.partition(".")
    plain[field] = {stratum: old} if stratum else old
    return plain, {STRATA.get(stratum, stratum) or field: new}


@pytest.mark.parametrize("renamed", RENAMED, ids=str)
def test_a_row_under_an_old_name_is_found_by_the_new_one(renamed, tmp_path):
    plain, select = old_row(renamed)
    (tmp_path / "rows.jsonl").write_text(json.dumps(plain) + "\n")
    (row,) = read_rows(tmp_path)
    assert matches(row, select)
    assert not row.strata.keys() & STRATA.keys()
    assert row.method not in METHODS


@pytest.mark.parametrize("renamed", RENAMED, ids=str)
def test_published_rows_under_an_old_name_are_found_by_the_new_one(renamed, tmp_path):
    plain, select = old_row(renamed)
    row = rank_row("text_alignment", 0, sample_id="a sample")
    old = replace(row, method=plain["method"], strata=plain["strata"])
    (tmp_path / "mine.jsonl").write_text(to_published([old]))
    (published,) = read_published(tmp_path / "mine.jsonl")
    assert matches(published, select)


def test_old_settings_of_scoring_are_read_under_their_new_name(tmp_path):
    plain = asdict(rank_row("text_alignment", 0))
    plain["settings"]["scoring"] = {"anchors": True, "pairs": "consecutive"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(plain) + "\n")
    (row,) = read_rows(tmp_path)
    assert row.settings["scoring"] == {"sanity_baselines": True, "pairs": "consecutive"}


def test_rows_of_the_first_release_have_no_old_name(tmp_path):
    shutil.copytree(ROOT / "tests" / "golden" / "cells", tmp_path / "cells")
    text = "".join(path.read_text() for path in tmp_path.rglob("rows.jsonl"))
    assert '"method":"direct"' in text
    assert '"contrast":"natural"' in text
    rows = read_rows(tmp_path)
    new_values = {name: {*values.values()} for name, values in STRATUM_VALUES.items()}
    for row in rows:
        assert row.method not in METHODS
        assert all(
            row.strata.get(name) in values for name, values in new_values.items() if name in row.strata
        )
    select = {"method": "full_rank", "contrast": "motion-dominant", "motion": "uncaptioned"}
    assert [row for row in rows if matches(row, select)]
