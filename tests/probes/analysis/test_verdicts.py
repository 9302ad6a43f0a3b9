import numpy as np
import pytest
from scipy.stats import spearmanr

from motionexp.probes.analysis import comparisons
from motionexp.probes.analysis.boundary import boundary
from motionexp.probes.analysis.onsets import changes, onsets, shares
from motionexp.probes.analysis.rows import APPEARANCE, bootstrap_weights, interval, unpaired
from motionexp.probes.analysis.tau_sweep import read_sweeps, score_at
from motionexp.probes.timesteps import EDGES
from tests.support.made_probes import SET_AT, World, cumulative, made_probes, sweep_rows

R = 10
T = np.arange(1001.0)
LOG_SNR = 10 - 0.02 * T
"""A straight schedule."""


def changed(motion: float, appearance: float, seed: int = 0, within: float = 25.0):
    """Changes of appearance and of motion in a world where both are set in a narrow range."""
    world = World({"motion": motion, "appearance": appearance}, between=10, within=within)
    rng, weights = np.random.default_rng(seed), bootstrap_weights(R)
    return [changes(cumulative(world, name, R, 4, rng), weights) for name in ("appearance", "motion")]


def bounded(motion: float, appearance: float, seed: int = 0, within: float = 25.0):
    """The boundary of such a world."""
    of_appearance, of_motion = changed(motion, appearance, seed, within)
    return boundary({"appearance": of_appearance}, of_motion, 4 * R, R)


def verdicts(appearance, motion, clip=None):
    """The verdicts in their order, and their labels; CLIP agrees with the classifier unless it is passed."""
    effects = comparisons.PairEffects(appearance, appearance if clip is None else clip, motion, 4 * R, R)
    labelled = comparisons.pair_verdicts(effects)
    return [*labelled.values()], [*labelled]


def test_where_the_appearance_is_set_from_600_to_400_that_range_is_enough():
    (best, enough, whole, difference, gap, appearance, _), (label, *paper) = verdicts(*changed(800, 500))
    assert paper[:3] == ["600 to 400", "600 to 0", "600 to 400 minus 600 to 0"]
    assert enough["appearance"].mean == pytest.approx(1, abs=0.1)
    assert abs(enough["motion"].mean) < 0.1
    assert difference["appearance"].low <= 0 <= difference["appearance"].high
    expected = enough["appearance"].mean - whole["appearance"].mean
    assert difference["appearance"].mean == pytest.approx(expected)
    assert best["gap"].mean == pytest.approx(1, abs=0.2)
    assert best["start"].mean == int(label.split()[1])
    assert best["end"].low <= best["end"].mean <= best["end"].high
    assert gap["gap"].low < 0 < gap["gap"].high
    assert appearance["appearance"].low < 0


def test_where_the_appearance_is_set_later_it_is_not():
    (_, _, _, difference, *_), _ = verdicts(*changed(motion=800, appearance=250))
    assert difference["appearance"].high < -0.7
    assert difference["gap"].high < -0.7


def test_clip_may_gain_from_ending_above_zero_where_the_appearance_does_not():
    appearance, motion = changed(motion=800, appearance=500)
    clip = appearance.copy()
    clip[:, EDGES.index(1000), EDGES.index(100)] *= 1.5
    (*_, of_appearance, of_clip), (*_, label) = verdicts(appearance, motion, clip)
    assert label == "largest increase of CLIP by an end above 0: 1000 to 100 minus 1000 to 0"
    assert of_clip["clip"].mean == pytest.approx(0.5, abs=0.1)
    assert of_appearance["appearance"].mean < 0.1


def test_where_motion_is_set_last_ending_above_zero_helps():
    (best, *_, gap, appearance, _), _ = verdicts(*changed(motion=150, appearance=600))
    assert best["end"].low >= 200
    assert gap["gap"].low > 0.5
    assert appearance["appearance"].low < 0


def test_the_best_pair_is_the_one_that_trying_all_finds():
    appearance, motion = changed(motion=700, appearance=500, within=150)
    share = shares(appearance)[0] - shares(motion)[0]
    gaps = {(1000 - 100 * i, 1000 - 100 * j): share[10 - i, 10 - j] for j in range(11) for i in range(j)}
    (best, *_), (label, *_) = verdicts(appearance, motion)
    start, end = max(gaps, key=gaps.__getitem__)
    assert label == f"best: {start} to {end}"
    assert best["gap"].mean == pytest.approx(gaps[start, end])


def test_ranks_correlate_as_scipy_says():
    rng = np.random.default_rng(0)
    values, reference = rng.integers(0, 6, (20, 9)).astype(float), rng.integers(0, 6, 9).astype(float)
    for got, row in zip(comparisons.rank_correlation(values, reference), values, strict=True):
        assert got == pytest.approx(spearmanr(row, reference).statistic)
    assert np.isnan(comparisons.rank_correlation(np.ones((1, 4)), np.arange(4.0))[0])


def test_the_fit_tells_order_error_and_bias_apart():
    measured = [np.array([1.0, 1.5]), np.array([2.0, 2.5]), np.array([4.0, 1.0])]
    agreement = comparisons.onset_agreement(measured, [0.0, 1.0, 5.0])
    np.testing.assert_allclose(agreement.correlation, [1, -0.5])
    np.testing.assert_allclose(agreement.error, [1, (1.5 + 1.5 + 4) / 3])
    np.testing.assert_allclose(agreement.bias, [1 / 3, (1.5 + 1.5 - 4) / 3])
    assert comparisons.onset_agreement(measured[:2], [0.0, 1.0]) is None


def differences(set_at, seed=1, **spread):
    probes = made_probes(World({**SET_AT, **set_at}, **spread), R, np.random.default_rng(seed))
    return comparisons.onset_differences(onsets(probes), LOG_SNR)


def test_motion_before_appearance_is_positive_in_t_and_negative_in_log_snr():
    *rows, earliest = differences({})
    assert [row.attribute for row in rows] == [*APPEARANCE]
    for row in rows:
        assert row.t[0] == pytest.approx(SET_AT["motion"] - SET_AT[row.attribute], abs=110)
        np.testing.assert_allclose(row.log_snr, -0.02 * row.t)
    assert earliest.attribute == comparisons.EARLIEST
    np.testing.assert_allclose(earliest.t, np.min([row.t for row in rows], axis=0))


def test_motion_is_not_before_appearance_of_which_one_is_set_first():
    *rows, earliest = differences({"background": 950.0, "motion": 700.0}, seed=6, between=15, within=25)
    assert np.mean([row.t[0] for row in rows]) > 0
    assert interval(earliest.t, R, R).high < 0


def test_one_contrast_s_order_less_another_s_is_not_paired():
    first, second = (differences({"motion": motion}, seed=7)[-1] for motion in (850.0, 650.0))
    difference = comparisons.contrast_difference(first, second)
    assert difference.t[0] == pytest.approx(200, abs=60)
    assert difference.references == 2 * R
    alone = np.std(first.t[1:]) ** 2 + np.std(second.t[1:]) ** 2
    assert np.std(difference.t[1:]) ** 2 == pytest.approx(alone, rel=0.25)


def test_the_excess_over_the_control_is_the_gap_that_the_control_has_not():
    ours, silent = bounded(motion=800, appearance=300, seed=1), bounded(motion=500, appearance=500, seed=2)
    excess = comparisons.excess_over_control(ours, silent)
    assert silent.verdict == "none"
    assert excess[0] == pytest.approx(ours.gap.mean - silent.gap.mean)
    assert interval(excess, R, R).low > 0.5
    same = interval(comparisons.excess_over_control(ours, bounded(motion=800, appearance=300, seed=3)), R, R)
    assert same.low < 0 < same.high
    # Of one and the same model, taken as independent of itself.
    spread = bounded(motion=700, appearance=500, within=150)
    assert np.ptp(comparisons.excess_over_control(spread, spread)[1:]) > 0


def test_without_the_motion_s_onset_there_is_no_order():
    appearance_alone = {"tampering": made_probes(World(), R, np.random.default_rng(2))["tampering"]}
    assert comparisons.onset_differences(onsets(appearance_alone), LOG_SNR) == []


def test_between_schedules_that_are_shifted_a_boundary_transfers_in_log_snr():
    shift = 200
    ours = bounded(motion=800, appearance=600, seed=1, within=80)
    theirs = bounded(motion=800 - shift, appearance=600 - shift, seed=2, within=80)
    shifted = 10 - 0.02 * (T + shift)
    loss = comparisons.transfer_loss(theirs, shifted, ours, LOG_SNR)
    assert loss[1, 0] < 0.1
    assert loss[0, 0] > 0.5
    np.testing.assert_allclose(loss[2], loss[0] - loss[1])
    assert np.percentile(loss[2, 1:], 2.5) > 0
    at_home = comparisons.transfer_loss(ours, LOG_SNR, ours, LOG_SNR)
    assert at_home[0, 0] < 0.1
    assert (at_home[0] > -1e-9).all()
    np.testing.assert_allclose(at_home[1], at_home[0], atol=1e-9)


def test_tuning_loses_by_a_boundary_that_is_transferred_in_t():
    target, source = bounded(motion=700, appearance=500, seed=1), bounded(motion=900, appearance=700, seed=2)
    shifted = 10 - 0.02 * (T + 200)
    sweep = read_sweeps(sweep_rows(target.tau[0]))["tiny_latte", "motion-dominant"]
    loss = comparisons.transfer_loss(target, shifted, source, LOG_SNR, sweep)
    assert loss[0, 0] == pytest.approx((200 / 500) ** 2, abs=0.06)
    assert abs(loss[1, 0]) < 0.03
    best, at_t = (score_at(sweep, unpaired(boundary.tau)) for boundary in (target, source))
    np.testing.assert_allclose(loss[0], best - at_t)


def test_without_a_boundary_nothing_is_transferred():
    none, some = bounded(motion=500, appearance=800), bounded(motion=800, appearance=500)
    assert comparisons.transfer_loss(none, LOG_SNR, some, LOG_SNR) is None
    assert comparisons.transfer_loss(some, LOG_SNR, none, LOG_SNR) is None
