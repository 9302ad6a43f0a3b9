"""Motion at equal leakage: paired by sample, at every scale, and what is refused."""

import math
from dataclasses import replace

import pytest

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import NONE
from motionexp.results.layout import EqualLeakage
from motionexp.results.rows import Row
from motionexp.results.tables import build
from tests.support.made_rows import rank_rows

EDITS = {"easy": 0.9, "hard": 0.3}


def decided(layout, rows: list[Row]):
    _, equal = build(Comparison(layout, rows), layout.tables[0])
    return [line for block in equal.blocks for line in block.lines]


@pytest.fixture
def compared(ranks):
    """Rank 4 and rank 1 at equal leakage, which is none anywhere."""
    ranks.tables[0].equal_leakage = EqualLeakage(
        "motion", ["nuisances"], [0.1], [1], ["four", "one"], ["one"]
    )
    return ranks


def two_edits() -> list[Row]:
    """Both settings move alike: an easy edit well, a hard one badly."""
    return [
        replace(
            row,
            edit_kind=kind,
            score_id=f"{row.score_id} {kind}",
            value=motion if row.metric == "velocity_similarity" else row.value,
        )
        for row in rank_rows()
        for kind, motion in EDITS.items()
    ]


def test_a_sample_that_one_setting_lacks_is_left_out_of_both(compared):
    whole, lacking = two_edits(), []
    for row in whole:
        is_lost = (row.edit_kind, row.tau, row.metric) == ("hard", 700, "velocity_similarity")
        is_lost &= row.settings["rank"] == 4
        lacking.append(replace(row, value=math.nan, reason="nothing moves") if is_lost else row)
    for rows, motion, n in ((whole, 0.6, "12 (6)"), (lacking, 0.9, "6 (6)")):
        four, one = decided(compared, rows)
        assert (four.n, one.n) == (n, n)
        assert [line.cells[0].interval.mean for line in (four, one)] == pytest.approx([motion, motion])
        assert four.cells[1].interval.mean == pytest.approx(0.0)
        assert one.cells[1] is None


def test_a_setting_that_was_not_run_is_said_and_a_scale_that_was_not_is_refused(compared):
    four, one = decided(compared, [row for row in rank_rows() if row.settings["rank"] != 1])
    assert (four.n, one.n) == ("6 (6)", NONE)
    assert not any(one.cells)
    assert four.cells[1] is None
    compared.tables[0].equal_leakage.scales = [0.5, 1]
    with pytest.raises(InputError, match=r" four .*adapter_scale=0\.5 .* 6 .* 6 "):
        decided(compared, rank_rows())


def test_a_curve_takes_what_another_selection_has(compared):
    rows = two_edits()
    four = compared.settings["four"]
    four.select["edit_kind"] = "easy"
    with pytest.raises(InputError, match=r" four .* 6 .* 12 "):
        decided(compared, rows)
    four.or_select = {"tau": "700", "edit_kind": "hard"}
    assert [line.n for line in decided(compared, rows)] == ["12 (6)", "12 (6)"]
