import math

import numpy as np
import pytest

from motionexp.probes.analysis import boundary as boundaries
from motionexp.probes.analysis.onsets import changes
from motionexp.probes.analysis.rows import bootstrap_weights, new_appearance
from motionexp.probes.timesteps import EDGES
from tests.support.made_probes import World, cumulative, made_probes

REFERENCES = 8


def simulated(motion, appearance, rng, references=REFERENCES, **spread):
    """The boundary in a world where the appearance is set at one timestep and the motion at another."""
    world, weights = (
        World({"motion": motion, "appearance": appearance}, **spread),
        bootstrap_weights(references),
    )
    appearance, moved = (
        changes(cumulative(world, name, references, 2, rng), weights) for name in ("appearance", "motion")
    )
    return boundaries.boundary({"appearance": appearance}, moved, 2 * references, references)


@pytest.mark.parametrize(("between", "within"), [(5, 15), (40, 80)])
@pytest.mark.parametrize(("motion", "appearance"), [(750, 450), (720, 610), (830, 640)])
def test_a_planted_boundary_is_found_and_its_interval_holds_it(motion, appearance, between, within):
    rng, truth = np.random.default_rng(8), (motion + appearance) / 2
    results = [simulated(motion, appearance, rng, 12, between=between, within=within) for _ in range(40)]
    results = [result for result in results if result.found]
    ends = np.array([np.nanpercentile(result.tau[1:], [2.5, 97.5]) for result in results])
    assert ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).sum() >= 0.85 * len(results)
    assert np.mean([result.tau[0] for result in results]) == pytest.approx(
        truth, abs=12 if motion == 750 else 50
    )
    assert len(results) == 40 if motion - appearance == 300 else len(results) >= 20
    for result in results:
        assert result.gap.low > 0
        assert result.gap.mean == pytest.approx(result.gaps[0].max())


# 2.5% of 200 are 5 false boundaries; more than 12 would have a probability below one in 1,000.
@pytest.mark.parametrize(("motion", "appearance", "runs", "most"), [(600, 600, 200, 12), (450, 750, 20, 0)])
def test_where_motion_is_not_set_first_there_is_none_at_the_nominal_rate(motion, appearance, runs, most):
    rng = np.random.default_rng(1)
    verdicts = [simulated(motion, appearance, rng).verdict for _ in range(runs)]
    assert verdicts.count(boundaries.FOUND) <= most
    assert verdicts.count(boundaries.NONE) >= 0.9 * runs


APPEARANCE_FIRST = {"background": 980.0, "motion": 877.0, "shape": 816.0, "colour": 811.0, "surface": 673.0}
UNEVEN = {"motion": 700.0, "colour": 900.0, "shape": 900.0, "surface": 500.0, "background": 500.0}


@pytest.mark.parametrize("set_at", [APPEARANCE_FIRST, UNEVEN])
@pytest.mark.parametrize("spread", [{"between": 15.0, "within": 25.0}, {}])
def test_where_some_attributes_are_set_before_the_motion_and_others_after_it_there_is_none(set_at, spread):
    rng, world = np.random.default_rng(9), World(set_at, **spread)
    verdicts = [boundaries.boundary_of(made_probes(world, 12, rng, 1)).verdict for _ in range(20)]
    assert verdicts.count(boundaries.FOUND) == 0
    if spread:  # The mean of the attributes would find a boundary.
        probes, weights = made_probes(world, 12, rng, 4), bootstrap_weights(12)
        appearance = changes(new_appearance(probes["tampering"]), weights)
        moved = changes(probes["motion_tampering"].values["new_motion"], weights)
        assert boundaries.boundary({"appearance": appearance}, moved, 48, 12).found


@pytest.mark.parametrize("unchanged", ["motion", "appearance"])
def test_where_something_never_changes_it_is_undetermined(unchanged):
    rng, weights = np.random.default_rng(3), bootstrap_weights(REFERENCES)
    probe = made_probes(World(), REFERENCES, rng)["tampering"].values
    values = {"appearance": probe["new_colour"], "motion": -probe["flow_similarity"]}
    values[unchanged] = np.zeros_like(values[unchanged])
    appearance, moved = (changes(values[name], weights) for name in ("appearance", "motion"))
    result = boundaries.boundary({"appearance": appearance}, moved, 16, REFERENCES)
    assert result.verdict == f"undetermined: no detectable change of the {unchanged}"
    assert math.isnan(result.gap.mean)
    assert np.isnan(result.tau).all()


@pytest.mark.parametrize("references", [1, 2])
def test_fewer_than_three_references_tell_nothing(references):
    probes = made_probes(World(), references, np.random.default_rng(4))
    reason = f"undetermined: {references} of the 3 references that an interval needs"
    assert boundaries.boundary_of(probes).verdict == reason
    assert boundaries.in_words(boundaries.boundary_of(probes), np.zeros(1001)) == reason
    three = made_probes(World(), 3, np.random.default_rng(4))
    assert "references" not in boundaries.boundary_of(three).verdict


def test_a_boundary_is_said_in_t_and_in_log_snr_with_its_intervals():
    result, straight = simulated(750, 450, np.random.default_rng(0)), 10 - 0.02 * np.arange(1001)
    low, high = np.percentile(result.tau[1:], [2.5, 97.5])
    gap = f"gap {result.gap.mean:.2f} [{result.gap.low:.2f}, {result.gap.high:.2f}]"
    said = (
        f"t = {result.tau[0]:.0f} [{low:.0f}, {high:.0f}], log-SNR {10 - 0.02 * result.tau[0]:.1f}"
        f" [{10 - 0.02 * high:.1f}, {10 - 0.02 * low:.1f}], {gap}"
    )
    assert boundaries.in_words(result, straight).replace("\N{MINUS SIGN}", "-") == said
    none = simulated(600, 600, np.random.default_rng(1))
    assert boundaries.in_words(none, straight).startswith(f"none, gap {none.gap.mean:.2f} [")


def test_without_motion_tampering_the_lost_flow_stands_for_the_motion():
    probes = made_probes(World(), REFERENCES, np.random.default_rng(5))
    with_motion = boundaries.boundary_of(probes)
    alone = boundaries.boundary_of({"tampering": probes["tampering"]})
    assert alone.verdict == with_motion.verdict == boundaries.FOUND
    assert alone.tau[0] == pytest.approx(with_motion.tau[0], abs=60)
    assert not np.array_equal(alone.motion, with_motion.motion)


@pytest.mark.parametrize("ends", [False, True])
def test_a_peak_is_the_parabola_s_or_in_the_middle_of_equal_values_and_nan_stays(ends):
    curves = np.zeros((4, 11))
    curves[0] = np.interp(EDGES, [0, 300, 500, 1000], [0, 0.5, 0.9, 0])
    curves[1, 3:7], curves[2, 2:4], curves[3] = 1, 1, np.nan
    fitted = np.polyfit([400, 500, 600], curves[0, 4:7], 2)
    expected = [-fitted[1] / (2 * fitted[0]), 450, 250, np.nan]
    np.testing.assert_allclose(boundaries.peak(curves, ends=ends), expected)
    edges = [-np.arange(11.0), np.arange(11.0)]
    assert boundaries.peak(np.stack(edges), ends=ends).tolist() == ([0, 1000] if ends else [100, 900])


def test_a_gap_is_linear_between_edges():
    gaps = np.random.default_rng(6).normal(size=(4, 11))
    t = np.array([0.0, 123.0, 999.0, 1000.0])
    expected = [np.interp(at, EDGES, row) for at, row in zip(t, gaps, strict=True)]
    np.testing.assert_allclose(boundaries.gap_at(gaps, t), expected)
    assert np.isnan(boundaries.gap_at(gaps[:1], np.array([np.nan]))[0])


def test_the_band_holds_all_means_at_once_as_often_as_it_says():
    rng, held = np.random.default_rng(7), 0
    weights = bootstrap_weights(20)
    for _ in range(200):
        values = rng.normal(size=(20, 9))
        held += np.abs(values.mean(0)).max() <= boundaries.half_width(weights @ values, 20)
    assert 178 <= held <= 199
    # At one place alone it is Student's interval.
    alone = rng.normal(size=(20, 1))
    half = 2.0930 * alone.std(ddof=1) / math.sqrt(20)
    assert boundaries.half_width(weights @ alone, 20) == pytest.approx(half, rel=0.07)


def test_the_gap_is_that_of_the_attribute_that_is_set_first():
    set_at = {"motion": 850.0, "background": 650.0} | dict.fromkeys(("colour", "shape", "surface"), 250.0)
    world = World(set_at, between=10, within=20)
    result = boundaries.boundary_of(made_probes(world, 12, np.random.default_rng(10), 2))
    assert result.found
    assert result.tau[0] == pytest.approx(750, abs=60)
    # At t = 500 the background is set, and so there is no gap.
    assert result.gaps[0, EDGES.index(500)] == pytest.approx(0, abs=0.15)


def test_the_largest_value_has_the_band_of_all_places():
    values = bootstrap_weights(20) @ np.random.default_rng(8).normal(size=(20, 9))
    place, largest = boundaries.largest(values, 40, 20)
    top, half = values[0].max(), boundaries.half_width(values, 20)
    assert values[0, place] == top
    assert (largest.mean, largest.low, largest.high) == pytest.approx((top, top - half, top + half))
    assert (largest.n, largest.clusters) == (40, 20)


def test_the_p_of_a_gap_is_the_share_of_draws_that_reach_zero():
    # Two attributes over 11 timesteps: a gap of 0.5 at one of them, and draws that deviate by as much.
    motion = np.zeros((20, 11))
    first, second = np.zeros((20, 11)), np.zeros((20, 11))
    first[:, 4], second[:, 4] = 0.5, 0.5
    first[1:4, 7], second[1:6, 2] = 0.5, 0.75
    second[6:, 2] = 0.4
    gap = boundaries.Interval(0.5, 0.1, 0.9, 8, 8)
    found = boundaries.Boundary("found", motion[:, 0], gap, motion, {"a": first, "b": second}, motion)
    # Of the 19 draws 3 and 5 deviate by 0.5; the worse attribute decides, and the estimate counts as a draw.
    assert boundaries.gap_p(found) == pytest.approx(6 / 20)
    first[0, 4] = 0.0
    assert boundaries.gap_p(found) == 1


def test_a_boundary_is_found_where_the_p_of_its_gap_is_at_most_a_twentieth():
    rng, outcomes = np.random.default_rng(3), []
    for apart in np.linspace(0, 300, 24):
        result = simulated(700, 700 - apart, rng, between=60, within=60)
        # The band is a percentile between two draws.
        if abs((p := boundaries.gap_p(result)) - 0.05) > 0.001:
            outcomes.append(result.found)
            assert result.found == (p <= 0.05)
    assert 5 < sum(outcomes) < 19
