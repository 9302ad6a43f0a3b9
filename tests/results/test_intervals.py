import dataclasses
import math

import numpy as np
import pytest

from motionexp.results.intervals import Curve, mean_interval, motion_at_equal_leakage


def test_the_interval_is_students_over_references_and_not_over_samples():
    random = np.random.default_rng(1)
    clusters = [str(index // 4) for index in range(80)]
    level = random.normal(size=20)
    values = [float(level[index // 4] + 0.1 * random.normal()) for index in range(80)]
    ours = mean_interval(values, clusters)
    means = [np.mean(values[4 * index : 4 * index + 4]) for index in range(20)]
    half = 2.0930 * np.std(means, ddof=1) / math.sqrt(20)
    assert ours.mean == pytest.approx(np.mean(means))
    assert (ours.n, ours.clusters, ours.missing) == (80, 20, 0)
    assert [ours.low - ours.mean, ours.high - ours.mean] == pytest.approx([-half, half], abs=0.05 * half)
    # Against samples taken as independent: four of one reference say little more than one does.
    assert ours.high - ours.low > 1.5 * 2 * 1.96 * np.std(values) / np.sqrt(80)


@pytest.mark.parametrize("references", [5, 8, 30])
def test_the_interval_covers_the_truth_nineteen_times_in_twenty(references):
    """Draws of as many references as there are would cover 84% of 5, 88% of 8 and 94% of 30."""
    random = np.random.default_rng(2)
    intervals = [
        mean_interval(random.normal(size=references).tolist(), range(references)) for _ in range(600)
    ]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.975


def test_the_interval_depends_neither_on_order_nor_on_missing_values():
    values, clusters = [1.0, 2.0, 4.0, 8.0], ["a", "a", "b", "c"]
    ours = mean_interval(values, clusters)
    assert mean_interval(values[::-1], clusters[::-1]) == ours
    assert ours.mean == pytest.approx((1.5 + 4 + 8) / 3)
    with_missing = mean_interval([*values, math.nan], [*clusters, "a"])
    assert with_missing == dataclasses.replace(ours, missing=1)


def test_draws_without_motion_at_a_level_are_counted():
    leakage = np.array([[0.0, 0.0, 0.0, 0.0, 1.0], [1.0] * 5])
    motion = motion_at_equal_leakage(Curve(np.array([[0.0] * 5, [1.0] * 5]), leakage), 0.3)
    # Of draws of two, those with the last reference leak 0.5 or 1 from the start: 9 of 25.
    assert motion.undefined == pytest.approx(9 / 25, abs=0.02)
    assert motion.mean == pytest.approx((0.3 - 0.2) / 0.8)
    assert math.isnan(motion.low)


def test_few_references_have_their_range_one_has_no_interval_and_none_has_no_mean():
    for values in ([1.0, 8.0], [1.0, 2.0, 8.0], [1.0, 2.0, 5.0, 8.0]):
        few = mean_interval(values, range(len(values)))
        assert (few.mean, few.low, few.high) == (pytest.approx(sum(values) / len(values)), 1.0, 8.0)
    one, none = mean_interval([1.0, 3.0], "aa"), mean_interval([math.nan], "a")
    assert (one.mean, one.low, none.mean) == pytest.approx((2.0, math.nan, math.nan), nan_ok=True)
    assert (none.n, none.missing) == (0, 1)


def test_motion_at_a_level_interpolates_between_scales():
    curve = Curve(np.array([[0.0], [0.4], [0.8]]), np.array([[0.0], [0.1], [0.5]]))
    motion = [curve.at(level, np.eye(1))[0] for level in (0.3, 0.1, 0.05, 0.9, -0.1)]
    assert motion == pytest.approx([0.6, 0.4, 0.2, 0.8, math.nan], nan_ok=True)


def test_motion_at_a_level_agrees_with_a_fine_grid_on_curves_that_turn_back():
    random = np.random.default_rng(4)
    motion, leakage = random.normal(size=(2, 7, 50))
    leakage[0] = 0
    place, exact = np.linspace(0, 6, 6001), Curve(motion, leakage).at(0.2, np.eye(50))
    for index in range(50):
        fine_motion = np.interp(place, range(7), motion[:, index])
        fine_leakage = np.interp(place, range(7), leakage[:, index])
        slow = fine_motion[fine_leakage <= 0.2].max()
        assert exact[index] == pytest.approx(slow, abs=0.01)


def test_a_curve_that_carries_more_at_equal_leakage_wins_with_an_interval():
    random = np.random.default_rng(5)
    scales = np.linspace(0, 1.5, 7)[:, None]
    reference = random.normal(scale=0.3, size=24)
    noise = 0.02 * random.normal(size=(2, 7, 24))
    windowed = Curve(scales * 0.6 + reference + noise[0], scales * 0.2 * np.ones(24))
    everywhere = Curve(scales * 0.6 + reference + noise[1], scales * 0.4 * np.ones(24))
    difference = motion_at_equal_leakage(windowed, 0.2, everywhere)
    assert difference.mean == pytest.approx(0.3, abs=0.03)
    assert 0.25 < difference.low < difference.mean < difference.high < 0.35
    alone = motion_at_equal_leakage(windowed, 0.2)
    assert alone.mean == pytest.approx(0.6 + reference.mean(), abs=0.03)
    # The references differ much more than the methods do: pairing is what shows the difference.
    assert alone.high - alone.low > 3 * (difference.high - difference.low)
