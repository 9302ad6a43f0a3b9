"""Which condition holds at which timestep, and for which pairs."""

import pytest

from motionexp.errors import InputError
from motionexp.probes.interventions import CONTROL, intervention, partial_guidance, tampering
from motionexp.probes.timesteps import PAIRS
from motionexp.probes.tree import Condition, Trajectory

OWN, NEW, EMPTY = Condition("own", 4.0), Condition("new", 4.0), Condition("new", 0.0)


def test_the_grid_has_55_pairs():
    grid = range(0, 1001, 100)
    assert set(PAIRS) == {(start, end) for start in grid for end in grid if end < start}
    assert len(PAIRS) == 55


def test_tampering_swaps_the_captions_inside_the_range_alone():
    trajectories = tampering("own", "new", 4.0)
    assert set(trajectories) == {CONTROL, *PAIRS}
    assert trajectories[CONTROL] == Trajectory(1000, (OWN,) * 10)
    assert trajectories[700, 400].conditions == (OWN,) * 3 + (NEW,) * 3 + (OWN,) * 4
    assert {trajectory.start for trajectory in trajectories.values()} == {1000}


def test_partial_guidance_starts_at_the_pair_and_ends_without_guidance():
    trajectories = partial_guidance("new", 4.0)
    assert set(trajectories) == set(PAIRS)
    assert trajectories[600, 400] == Trajectory(600, (NEW,) * 2 + (EMPTY,) * 4)


@pytest.mark.parametrize("pair", [(400, 400), (400, 600), (450, 0), (1100, 0), (500, -100), CONTROL])
def test_a_range_that_is_none_is_refused(pair):
    with pytest.raises(InputError, match=f"tau_start={pair[0]}, tau_end={pair[1]}: "):
        intervention(pair, 1000, inside=NEW, outside=OWN)


@pytest.mark.parametrize("scale", [0.5, float("inf"), float("nan")])
def test_a_guidance_scale_that_is_none_is_refused(scale):
    with pytest.raises(InputError, match="guidance_scale"):
        tampering("own", "new", scale)
