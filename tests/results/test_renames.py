"""Rows under every old name are read as the new ones, and selections by new names find them."""

import json
import shutil
from dataclasses import asdict, replace

import pytest

from motionexp.config.renames import METHODS, STRATA, STRATUM_VALUES
from motionexp.files import ROOT
from motionexp.results.published import read_published
from motionexp.results.rows import read_rows
from motionexp.results.selection import matches
from tests.support.made_rows import rank_row
from tests.support.published_lines import to_published

RENAMED = [
    *({"method": (old, new)} for old, new in METHODS.items()),
    *({f"strata.{old}": ("1", "1")} for old in STRATA),
    *({f"strata.{name}": pair} for name, values in STRATUM_VALUES.items() for pair in values.items()),
]


@pytest.mark.parametrize("renamed", RENAMED, ids=str)
def test_rows_under_an_old_name_are_found_by_the_new_one(renamed, tmp_path):
    ((name, (old, new)),) = renamed.items()
    field, _, stratum = name.partition(".")
    row = rank_row("text_alignment", 0, sample_id="a sample")
    row = replace(row, **{field: {stratum: old} if stratum else old})
    (tmp_path / "rows.jsonl").write_text(json.dumps(asdict(row)) + "\n")
    (tmp_path / "mine.jsonl").write_text(to_published([row]))
    for row in (*read_rows(tmp_path), *read_published(tmp_path / "mine.jsonl")):
        assert matches(row, {STRATA.get(stratum, stratum) or field: new})
        assert not row.strata.keys() & STRATA.keys()
        assert row.method not in METHODS


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
    for row in rows:
        assert row.method not in METHODS
        for name, values in STRATUM_VALUES.items():
            assert row.strata.get(name) not in values
    select = {"method": "full_rank", "contrast": "motion-dominant", "motion": "uncaptioned"}
    assert [row for row in rows if matches(row, select)]
