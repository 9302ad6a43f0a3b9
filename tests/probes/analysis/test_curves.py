from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.probes.analysis import onsets as curves
from motionexp.probes.analysis.rows import bootstrap_weights
from motionexp.probes.timesteps import EDGES
from tests.support.made_probes import SET_AT, World, made_probes

MOTION, COLOUR = curves.ATTRIBUTES[0], curves.ATTRIBUTES[1]


def step_world(t: float) -> np.ndarray:
    """(3, 11, 11): everything is set at t exactly, in every sample."""
    edges = np.array(EDGES)
    hit = (edges[:, None] > t) & (edges[None] <= t)
    return np.repeat(hit[None].astype(float), 3, axis=0)


@pytest.mark.parametrize("t", [30, 250, 699, 950])
def test_both_curves_rise_between_the_edges_around_the_timestep_at_which_all_is_set(t):
    share = curves.shares(curves.changes(step_world(t), bootstrap_weights(3)))
    for rising in (curves.from_below(share), curves.from_above(share)):
        np.testing.assert_array_equal(rising[0], np.array(EDGES) > t)
        assert curves.half_point(rising)[0] == 100 * (t // 100) + 50


def test_a_half_point_is_linear_between_edges_or_the_middle_of_the_first_and_the_last_crossing():
    linear = np.interp(EDGES, [0, 300, 400, 1000], [0, 0.2, 0.7, 1])
    rising = np.stack([linear, [0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1.0], np.full(11, np.nan)])
    np.testing.assert_allclose(curves.half_point(rising), [360, (250 + 650) / 2, np.nan])


def test_a_share_is_a_quotient_of_means_and_not_a_mean_of_quotients():
    values = step_world(450) * np.array([1.0, 0.5, 0.0])[:, None, None]
    values[2, 8:, 0] = 0.3
    changed = curves.changes(values + 0.2, bootstrap_weights(3))
    assert curves.shares(changed)[0, 5, 0] == pytest.approx((1 + 0.5) / (1 + 0.5 + 0.3))


def test_draws_are_what_computing_everything_anew_from_the_drawn_references_gives():
    probe = made_probes(World(), 5, np.random.default_rng(1))["tampering"]
    weights = bootstrap_weights(5)
    changed = curves.changes(probe.values["new_colour"], weights)
    share = curves.shares(changed)
    below, above = curves.half_point(curves.from_below(share)), curves.half_point(curves.from_above(share))
    for number in (1, 7, 30):
        drawn = [r for r, count in enumerate(np.rint(weights[number] * 5).astype(int)) for _ in range(count)]
        mean = probe.values["new_colour"][drawn].mean(0)
        whole = mean[10, 0] - mean[0, 0]
        rising = [(mean[i, 0] - mean[0, 0]) / whole for i in range(11)]
        falling = [1 - (mean[10, j] - mean[0, 0]) / whole for j in range(11)]
        assert changed[number, 10, 0] == pytest.approx(whole)
        assert below[number] == pytest.approx(by_walking(rising))
        assert above[number] == pytest.approx(by_walking(falling))


def test_draws_are_moved_by_up_to_half_a_step_and_the_estimate_is_not():
    world = World(between=0, within=0, mistakes=0)
    result = curves.onset(made_probes(world, 5, np.random.default_rng(1))["tampering"], COLOUR)
    moved = result.below[1:] - result.below[0]
    assert np.abs(moved).max() <= 50
    assert np.std(moved) == pytest.approx(100 / np.sqrt(12), rel=0.1)
    assert np.abs(np.corrcoef(result.below[1:], result.above[1:])[0, 1]) < 0.2


def by_walking(curve: list[float]) -> float:
    """The half point, edge by edge."""
    ups = [100 * (k + (0.5 - a) / (b - a)) for k, (a, b) in enumerate(pairwise(curve)) if a < 0.5 <= b]
    return (ups[0] + ups[-1]) / 2


def test_onsets_are_where_the_world_sets_things():
    rng, world = np.random.default_rng(2), World()
    held = dict.fromkeys(SET_AT, 0)
    for _ in range(20):
        for result in curves.onsets(made_probes(world, 12, rng)):
            low, high = np.nanpercentile(result.t[1:], [2.5, 97.5])
            held[result.factor.name] += low <= SET_AT[result.factor.name] <= high
            assert result.t[0] == pytest.approx(SET_AT[result.factor.name], abs=90)
            assert (result.samples, result.references) == (24, 12)
    assert min(held.values()) >= 15


def test_what_needs_no_classifier_tells_the_same():
    results = curves.onsets(made_probes(World(), 12, np.random.default_rng(3)), curves.CONTINUOUS)
    at = {result.factor.name: result.t[0] for result in results}
    assert set(at) == {
        factor.name for factor in curves.CONTINUOUS if not factor.metric.startswith("velocity")
    }
    assert at["flow lost, new motion"] == pytest.approx(SET_AT["motion"], abs=60)
    assert at["flow lost, new appearance"] == pytest.approx(SET_AT["motion"], abs=60)
    assert min(SET_AT.values()) < at["CLIP, new appearance"] < SET_AT["shape"]


def test_of_a_motion_that_never_changes_nothing_is_determined():
    probe = made_probes(World(), 8, np.random.default_rng(4))["motion_tampering"]
    still = replace(probe, values={**probe.values, "new_motion": 0 * probe.values["new_motion"]})
    result = curves.onset(still, MOTION)
    assert np.isnan(result.t).all()
    assert result.effect[0] == 0


def test_both_probes_are_compared_on_the_references_that_they_share():
    probes = made_probes(World(), 4, np.random.default_rng(5))
    key, motion = ("m", "motion-dominant"), probes["motion_tampering"].of(["01", "03"])
    both = {"tampering": {key: probes["tampering"]}, "motion_tampering": {key: motion}}
    shared = curves.tampering_probes(both, key)
    assert [probe.references for probe in shared.values()] == [("01", "03")] * 2
    assert curves.tampering_probes(both, ("other", "motion-dominant")) == {}
    both["tampering"] = {key: probes["tampering"].of(["00", "02"])}
    with pytest.raises(InputError, match="tampering and motion_tampering"):
        curves.tampering_probes(both, key)


def test_a_replicate_without_the_effect_has_no_shares():
    changed = np.ones((101, 11, 11))
    changed[-2:] = -1  # 2 of 100: the effect is detectable
    share = curves.shares(changed)
    assert np.isnan(share[-2:]).all()
    np.testing.assert_array_equal(share[:-2], 1)
    changed[-4:] = -1  # more than 2.5%: it is not
    assert np.isnan(curves.shares(changed)).all()
