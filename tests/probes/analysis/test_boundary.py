import math

import numpy as np
import pytest

from motionexp.probes.analysis.boundary import (
    FOUND,
    NONE,
    boundary,
    boundary_of,
    gap_at,
    half_width,
    in_words,
    largest_gap,
)
from motionexp.probes.analysis.onsets import changes
from motionexp.probes.analysis.rows import APPEARANCE, bootstrap_weights
from motionexp.probes.timesteps import EDGES
from tests.support.made_probes import World, cumulative, made_probes

REFERENCES = 8
APPEARANCE_AT, MOTION_AT = 450, 750


def simulated(motion: float, appearance: float, rng: np.random.Generator):
    """The boundary in a world where the appearance is set at one timestep and the motion at another."""
    world = World({"motion": motion, "appearance": appearance})
    weights = bootstrap_weights(REFERENCES)
    appearance, moved = (
        changes(cumulative(world, name, REFERENCES, 2, rng), weights) for name in ("appearance", "motion")
    )
    return boundary({"appearance": appearance}, moved, 2 * REFERENCES, REFERENCES)


def test_a_planted_boundary_is_found_and_its_interval_holds_it():
    rng, held, places = np.random.default_rng(0), 0, []
    for _ in range(50):
        result = simulated(MOTION_AT, APPEARANCE_AT, rng)
        assert result.verdict == FOUND
        low, high = np.nanpercentile(result.tau[1:], [2.5, 97.5])
        held += low <= (APPEARANCE_AT + MOTION_AT) / 2 <= high
        places.append(result.tau[0])
        assert result.gap.low > 0
        assert result.gap.mean == pytest.approx(result.gaps[0].max())
    assert held >= 45
    assert np.mean(places) == pytest.approx((APPEARANCE_AT + MOTION_AT) / 2, abs=12)


def test_where_appearance_and_motion_are_set_together_there_is_none_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    verdicts = [simulated(600, 600, rng).verdict for _ in range(200)]
    # 2.5% of 200 are 5 false boundaries; more than 12 would have a probability below one in 1,000.
    assert verdicts.count(FOUND) <= 12
    assert verdicts.count(NONE) >= 180


def test_where_appearance_are_set_first_there_is_none():
    rng = np.random.default_rng(2)
    assert {simulated(450, 750, rng).verdict for _ in range(20)} == {NONE}


@pytest.mark.parametrize(("between", "within"), [(5, 15), (40, 80)])
@pytest.mark.parametrize(("motion", "appearance"), [(720, 610), (830, 640)])
def test_the_interval_holds_a_place_between_the_grid_s_steps(motion, appearance, between, within):
    rng, weights, held, runs = np.random.default_rng(8), bootstrap_weights(12), 0, 0
    world = World({"motion": motion, "appearance": appearance}, between, within)
    for _ in range(40):
        changed = {
            name: changes(cumulative(world, name, 12, 2, rng), weights) for name in ("appearance", "motion")
        }
        result = boundary({"appearance": changed["appearance"]}, changed["motion"], 24, 12)
        low, high = np.nanpercentile(result.tau[1:], [2.5, 97.5]) if result.found else (np.nan, np.nan)
        runs += result.found
        held += low <= (motion + appearance) / 2 <= high
    assert runs >= 20
    assert held >= 0.85 * runs


APPEARANCE_FIRST = {"background": 980.0, "motion": 877.0, "shape": 816.0, "colour": 811.0, "surface": 673.0}
UNEVEN = {"motion": 700.0, "colour": 900.0, "shape": 900.0, "surface": 500.0, "background": 500.0}


@pytest.mark.parametrize("set_at", [APPEARANCE_FIRST, UNEVEN])
@pytest.mark.parametrize("spread", [{"between": 15.0, "within": 25.0}, {}])
def test_where_some_appearance_are_set_before_the_motion_and_others_after_it_there_is_none(set_at, spread):
    rng = np.random.default_rng(9)
    verdicts = [boundary_of(made_probes(World(set_at, **spread), 12, rng, 1)).verdict for _ in range(20)]
    assert verdicts.count(FOUND) == 0


@pytest.mark.parametrize("set_at", [APPEARANCE_FIRST, UNEVEN])
def test_of_such_worlds_the_mean_of_the_appearance_would_tell_otherwise(set_at):
    rng, spread = np.random.default_rng(10), {"between": 15.0, "within": 25.0}
    probes = made_probes(World(set_at, **spread), 12, rng, 4)
    appearance = np.mean([probes["tampering"].values[f"new_{name}"] for name in APPEARANCE], axis=0)
    moved = changes(probes["motion_tampering"].values["new_motion"], bootstrap_weights(12))
    assert boundary({"appearance": changes(appearance, bootstrap_weights(12))}, moved, 48, 12).found


@pytest.mark.parametrize("unchanged", ["motion", "appearance"])
def test_where_something_never_changes_it_is_undetermined(unchanged):
    rng, weights = np.random.default_rng(3), bootstrap_weights(REFERENCES)
    probe = made_probes(World(), REFERENCES, rng)["tampering"].values
    values = {"appearance": probe["new_colour"], "motion": -probe["flow_similarity"]}
    values[unchanged] = np.zeros_like(values[unchanged])
    appearance, moved = (changes(values[name], weights) for name in ("appearance", "motion"))
    result = boundary({"appearance": appearance}, moved, 16, REFERENCES)
    assert result.verdict == f"undetermined: no detectable change of the {unchanged}"
    assert math.isnan(result.gap.mean)
    assert np.isnan(result.tau).all()


@pytest.mark.parametrize("references", [1, 2])
def test_fewer_than_three_references_tell_nothing(references):
    probes = made_probes(World(), references, np.random.default_rng(4))
    reason = f"undetermined: {references} of the 3 references that an interval needs"
    assert boundary_of(probes).verdict == reason
    assert in_words(boundary_of(probes), np.zeros(1001)) == reason
    assert "references" not in boundary_of(made_probes(World(), 3, np.random.default_rng(4))).verdict


def test_a_boundary_is_said_in_t_and_in_log_snr_with_its_intervals():
    result, straight = (
        simulated(MOTION_AT, APPEARANCE_AT, np.random.default_rng(0)),
        10 - 0.02 * np.arange(1001),
    )
    low, high = np.percentile(result.tau[1:], [2.5, 97.5])
    gap = f"gap {result.gap.mean:.2f} [{result.gap.low:.2f}, {result.gap.high:.2f}]"
    assert in_words(result, straight) == (
        f"t = {result.tau[0]:.0f} [{low:.0f}, {high:.0f}], log-SNR {10 - 0.02 * result.tau[0]:.1f}"
        f" [{10 - 0.02 * high:.1f}, {10 - 0.02 * low:.1f}], {gap}"
    )
    none = simulated(600, 600, np.random.default_rng(1))
    assert in_words(none, straight).startswith(f"none, gap {none.gap.mean:.2f} [")


def test_without_motion_tampering_the_lost_flow_stands_for_the_motion():
    probes = made_probes(World(), REFERENCES, np.random.default_rng(5))
    with_motion = boundary_of(probes)
    alone = boundary_of({"tampering": probes["tampering"]})
    assert alone.verdict == with_motion.verdict == FOUND
    assert alone.tau[0] == pytest.approx(with_motion.tau[0], abs=60)
    assert not np.array_equal(alone.motion, with_motion.motion)


def test_between_edges_the_largest_gap_is_the_parabola_s():
    gaps = np.interp(EDGES, [0, 300, 500, 1000], [0, 0.5, 0.9, 0])[None]
    fitted = np.polyfit([400, 500, 600], gaps[0, 4:7], 2)
    assert largest_gap(gaps)[0] == pytest.approx(-fitted[1] / (2 * fitted[0]))


def test_of_equal_gaps_it_is_the_middle_and_nan_stays():
    gaps = np.zeros((3, 11))
    gaps[0, 3:7], gaps[1, 2:4], gaps[2] = 1, 1, np.nan
    np.testing.assert_array_equal(largest_gap(gaps), [450, 250, np.nan])


def test_a_gap_is_linear_between_edges():
    gaps = np.random.default_rng(6).normal(size=(4, 11))
    t = np.array([0.0, 123.0, 999.0, 1000.0])
    expected = [np.interp(at, EDGES, row) for at, row in zip(t, gaps, strict=True)]
    np.testing.assert_allclose(gap_at(gaps, t), expected)
    assert np.isnan(gap_at(gaps[:1], np.array([np.nan]))[0])


def test_the_band_holds_all_means_at_once_as_often_as_it_says():
    rng, held = np.random.default_rng(7), 0
    weights = bootstrap_weights(20)
    for _ in range(200):
        values = rng.normal(size=(20, 9))
        held += np.abs(values.mean(0)).max() <= half_width(weights @ values, 20)
    assert 178 <= held <= 199
