"""Dominance at measured points: the rule by hand, and the table of the toy experiment."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.dominance import (
    DOMINATES,
    EQUIVALENT,
    IS_DOMINATED,
    TRADE_OFF,
    UNDECIDED,
    verdict_of,
)
from motionexp.results.layout import Dominance
from motionexp.results.significance import MeasuredDifference
from motionexp.results.tables import build
from tests.support.made_rows import toy_rows


def difference(*means: float) -> MeasuredDifference:
    ours = {(str(number), "style", 0): mean for number, mean in enumerate(means)}
    return MeasuredDifference.of(ours, dict.fromkeys(ours, 0.0))


UP, DOWN = difference(0.1, 0.1, 0.2, 0.2, 0.3), difference(-0.1, -0.1, -0.2, -0.2, -0.3)
NEAR, FAR = difference(-0.01, 0.0, 0.0, 0.01, 0.01), difference(-0.3, -0.1, 0.0, 0.2, 0.3)


@pytest.mark.parametrize(
    ("motion", "leakage", "verdict"),
    [
        (UP, DOWN, DOMINATES),
        (DOWN, UP, IS_DOMINATED),
        (UP, UP, TRADE_OFF),
        (DOWN, DOWN, TRADE_OFF),
        (NEAR, NEAR, EQUIVALENT),
        (NEAR, DOWN, UNDECIDED),
        (UP, FAR, UNDECIDED),
        (NEAR, FAR, UNDECIDED),
    ],
)
def test_a_verdict_needs_both_differences(motion, leakage, verdict):
    assert verdict_of(motion, leakage, 0.05, 0) == verdict


def test_nothing_is_equivalent_without_a_margin_and_nothing_decided_on_few_references():
    assert verdict_of(NEAR, NEAR, 0.0, 0) == UNDECIDED
    assert verdict_of(UP, DOWN, 0.05, 6) == UNDECIDED
    four = difference(0.1, 0.1, 0.2, 0.2), difference(-0.1, -0.1, -0.2, -0.2)
    assert verdict_of(*four, 0.05, 0) == UNDECIDED


@pytest.fixture
def rows():
    """Two copies of each reference, and half as much leakage again at all timesteps."""
    return [
        replace(
            row,
            reference=f"{row.reference}-{copy}",
            score_id=f"{row.score_id}-{copy}",
            value=row.value * (1.5 if row.tau == 0 and row.metric == "replaced_attributes" else 1),
        )
        for row in toy_rows()
        for copy in range(2)
    ]


@pytest.fixture
def compared(toy):
    toy.tables[0] = replace(
        toy.tables[0],
        settings=[],
        equal_leakage=None,
        dominance=Dominance("motion", "leak", ["window"], ["every"], [1, 0.5]),
        groups=toy.tables[0].groups[:1],
    )
    return toy


def test_all_pairs_of_scales_are_compared_and_counted(compared, rows):
    (table,) = build(Comparison(compared, rows), compared.tables[0])
    (block,) = table.blocks
    pairs = {tuple(line.labels[1:4:2]): line for line in block.lines}
    assert list(pairs) == [("0.5", "0.5"), ("0.5", "1"), ("1", "0.5"), ("1", "1")]
    # By hand: motion 0.5 a scale in both; leakage 0.2 a scale, and 0.0625 + 0.6 a scale.
    line = pairs["1", "0.5"]
    assert [cell.interval.mean for cell in line.cells] == pytest.approx([0.25, 0.2 - 0.3625])
    verdicts = {scales: line.labels[-1] for scales, line in pairs.items()}
    assert verdicts["1", "0.5"] == DOMINATES
    assert verdicts["0.5", "1"] == TRADE_OFF
    assert f"{DOMINATES} at 1 and {IS_DOMINATED} at 0 of 4 pairs" in block.title
    assert line.n == "24 (6)"


def test_a_point_without_all_samples_is_refused(compared, rows):
    gap = next(row for row in rows if row.tau == 700 and row.adapter_scale == 0.5 and "r1" in row.reference)
    rest = [row for row in rows if (row.sample_id, row.reference) != (gap.sample_id, gap.reference)]
    with pytest.raises(InputError, match=r"adapter_scale=0\.5 lacks 1 of the 24 samples.*r1-0"):
        build(Comparison(compared, rest), compared.tables[0])


def test_few_references_decide_nothing_whatever_the_experiment_asks(compared):
    (table,) = build(Comparison(compared, toy_rows()), compared.tables[0])
    assert {line.labels[-1] for line in table.lines} == {UNDECIDED}
    assert np.all([cell.interval.clusters == 3 for line in table.lines for cell in line.cells])
