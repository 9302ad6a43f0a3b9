"""p-values against scipy and closed forms, equivalence against the 90% interval, Holm by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from motionexp.results.significance import MeasuredDifference, equal_interval, equal_p, holm, more_p


def test_holm_by_hand():
    # Sorted: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_p_value_is_students_two_sided_and_one_in_the_wrong_direction():
    random = np.random.default_rng(1)
    for n in (5, 9, 18):
        means = random.normal(0.3, 0.4, size=n)
        assert more_p(means) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
        assert more_p(-means) == 1.0
    # One degree of freedom is Cauchy's distribution: t = 2 of the values 1 and 3.
    assert more_p(np.array([1.0, 3.0])) == pytest.approx(1 - 2 / math.pi * math.atan(2))


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    random, outcomes = np.random.default_rng(2), []
    for n, sd, shift in random.uniform((5, 0.02, -0.06), (20, 0.2, 0.06), size=(200, 3)):
        means = random.normal(shift, sd, size=int(n))
        low, high = stats.t.interval(0.9, len(means) - 1, np.mean(means), stats.sem(means))
        outcomes.append(equal_p(means, 0.05) <= 0.05)
        assert outcomes[-1] == (low > -0.05 and high < 0.05)
        assert equal_interval(means) == pytest.approx((low, high))
        above = stats.ttest_1samp(means, -0.05, alternative="greater").pvalue
        below = stats.ttest_1samp(means, 0.05, alternative="less").pvalue
        assert equal_p(means, 0.05) == pytest.approx(max(above, below))
    assert 20 < sum(outcomes) < 180


def test_references_that_agree_leave_no_doubt():
    assert more_p(np.full(5, 0.25)) == 0
    assert more_p(np.zeros(5)) == 1
    assert equal_p(np.zeros(5), 0.05) == 0
    # At the margin itself nothing is shown.
    assert equal_p(np.full(5, 0.25), 0.25) == 0.5


def test_a_difference_is_of_the_subjects_in_both_and_a_reference_counts_once():
    ours = {("a", "style", 0): 1.0, ("a", "object", 0): 3.0, ("b", "style", 0): 1.0, ("c", "style", 0): 9.0}
    theirs = {
        ("a", "style", 0): 0.0,
        ("a", "object", 0): 0.0,
        ("b", "style", 0): math.nan,
        ("d", "style", 0): 1.0,
    }
    measured = MeasuredDifference.of(ours, theirs)
    assert measured.means.tolist() == [2.0]
    assert (measured.interval.mean, measured.interval.n, measured.interval.missing) == (2.0, 2, 1)
