"""Where tuning does best, on made rows with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.probes.analysis.boundary import boundary_of, peak
from motionexp.probes.analysis.rows import interval
from motionexp.probes.analysis.tau_sweep import (
    TauComparison,
    TauSweep,
    compare,
    lost_at,
    read_sweeps,
    score_at,
)
from motionexp.probes.timesteps import EDGES
from tests.support.made_probes import PEAK, World, made_probes, sweep_rows

KEY = ("tiny_latte", "motion-dominant")


def test_the_best_tau_is_found_between_the_grids_steps():
    sweep = read_sweeps(sweep_rows())[KEY]
    assert (sweep.references, sweep.samples) == (10, 20)
    expected = 0.8 - ((np.array(EDGES) - PEAK) / 500) ** 2 - 0.1
    np.testing.assert_allclose(sweep.scores[0], expected, atol=0.02)
    tau = interval(peak(sweep.scores, ends=True), sweep.samples, sweep.references)
    assert tau.low - 10 <= PEAK <= tau.high + 10
    assert tau.high - tau.low < 60


def test_other_scales_and_methods_are_no_part_of_the_sweep():
    rows = sweep_rows()
    loud = replace(rows[0], value=100.0, adapter_scale=1.5)
    probed = replace(rows[0], value=100.0, method="tampering")
    assert np.array_equal(read_sweeps([*rows, loud, probed])[KEY].motion, read_sweeps(rows)[KEY].motion)


def test_a_value_that_is_missing_is_left_out_and_a_tau_that_is_missing_is_named():
    rows = sweep_rows()
    rows[0] = replace(rows[0], value=float("nan"))
    assert np.isfinite(read_sweeps(rows)[KEY].motion).all()
    with pytest.raises(InputError, match=r"tiny_latte motion-dominant .* tau=0,100"):
        read_sweeps(sweep_rows(taus=(0, 500, 1000)))


@pytest.fixture
def boundary():
    return boundary_of(made_probes(World(), 12, np.random.default_rng(1)))


@pytest.mark.parametrize(("shift", "agrees"), [(0.0, True), (-250.0, False)])
def test_a_boundary_is_compared_with_the_best_tau(boundary, shift, agrees):
    compared = compare(read_sweeps(sweep_rows(boundary.tau[0] + shift))[KEY], boundary)
    difference = interval(compared.difference, 20, 10)
    assert (difference.low < 0 < difference.high) == agrees
    assert difference.mean == pytest.approx(-shift, abs=25)
    assert compared.lost[0] == pytest.approx((shift / 500) ** 2, abs=0.05)


def test_the_boundary_s_references_are_independent_of_the_sweep_s():
    draws = np.random.default_rng(3).normal(500, 50, 2001)
    difference = TauComparison(draws, draws, draws).difference
    assert difference[0] == 0
    # The variances add; paired, equal replicates would have no difference at all.
    assert difference[1:].std() == pytest.approx(50 * 2**0.5, rel=0.1)


def test_tuning_at_all_timesteps_may_be_best(boundary):
    assert compare(read_sweeps(sweep_rows(0))[KEY], boundary).best[0] == 0


def test_no_tau_is_best_by_chance_alone(boundary):
    rng = np.random.default_rng(2)
    sweeps = [TauSweep(rng.normal(size=(10, 11)), np.zeros((10, 11)), 10) for _ in range(40)]
    assert abs(np.mean([lost_at(sweep, boundary.tau)[0] for sweep in sweeps])) < 0.15


def test_a_sweep_over_two_references_is_not_compared(boundary):
    assert compare(read_sweeps(sweep_rows(references=2))[KEY], boundary) is None


def test_a_score_between_two_taus_is_on_the_line_between_theirs():
    sweep = read_sweeps(sweep_rows())[KEY]
    at = score_at(sweep, np.full(len(sweep.scores), 340.0))
    np.testing.assert_allclose(at, 0.6 * sweep.scores[:, 3] + 0.4 * sweep.scores[:, 4])


def test_without_a_boundary_nothing_is_compared():
    world = World(dict.fromkeys(World().set_at, 500.0))
    none = boundary_of(made_probes(world, 12, np.random.default_rng(1)))
    compared = compare(read_sweeps(sweep_rows())[KEY], none)
    assert np.isnan(compared.lost).all()
    assert np.isnan(compared.difference).all()
