"""Motion at equal leakage: paired by sample, at every scale, and what is refused."""

import math
from dataclasses import replace

import pytest

from motionexp.errors import InputError
from motionexp.results.formats import NONE
from motionexp.results.layout import Decision
from motionexp.results.rows import Row
from motionexp.results.tables import build
from tests.results.test_comparisons import layout, rows  # noqa: F401 (a fixture)

EDITS = {"easy": 0.9, "hard": 0.3}


def decided(layout, own: list[Row]):  # noqa: F811
    _, decision = build(layout, layout.tables[0], own)
    return [line for block in decision.blocks for line in block.lines]


@pytest.fixture
def compared(layout):  # noqa: F811
    """Rank 4 and rank 1 at equal leakage, which is none anywhere."""
    layout.tables[0].decision = Decision("motion", ["nuisances"], [0.1], [1], ["four", "one"], ["one"])
    return layout


def two_edits() -> list[Row]:
    """Both settings move alike: an easy edit well, a hard one badly."""
    return [
        replace(
            each,
            edit_kind=kind,
            score_id=f"{each.score_id} {kind}",
            value=motion if each.metric == "velocity_similarity" else each.value,
        )
        for each in rows()
        for kind, motion in EDITS.items()
    ]


def test_a_sample_that_one_setting_lacks_is_left_out_of_both(compared):
    whole, lacking = two_edits(), []
    for each in whole:
        is_lost = each.edit_kind == "hard" and each.tau == 700 and each.settings["rank"] == 4
        lost = is_lost and each.metric == "velocity_similarity"
        lacking.append(replace(each, value=math.nan, reason="nothing moves") if lost else each)
    for own, motion, n in ((whole, 0.6, "12 (6)"), (lacking, 0.9, "6 (6)")):
        four, one = decided(compared, own)
        assert (four.n, one.n) == (n, n)
        assert four.cells[0].interval.mean == pytest.approx(motion)
        assert one.cells[0].interval.mean == pytest.approx(motion)
        assert four.cells[1].interval.mean == pytest.approx(0.0)
        assert one.cells[1] is None


def test_a_setting_that_was_not_run_is_said_and_a_scale_that_was_not_is_refused(compared):
    four, one = decided(compared, [each for each in rows() if each.settings["rank"] != 1])
    assert (four.n, one.n) == ("6 (6)", NONE)
    assert not any(one.cells)
    assert four.cells[1] is None
    compared.tables[0].decision.scales = [0.5, 1]
    with pytest.raises(InputError, match=r"setting four at adapter_scale=0\.5 lacks 6 of 6 samples"):
        decided(compared, rows())


def test_a_curve_takes_what_another_selection_has(compared):
    own = two_edits()
    four = compared.settings["four"]
    four.select["edit_kind"] = "easy"
    with pytest.raises(InputError, match="four lacks 6 of the 12 samples"):
        decided(compared, own)
    four.or_select = {"tau": "700", "edit_kind": "hard"}
    assert [line.n for line in decided(compared, own)] == ["12 (6)", "12 (6)"]
