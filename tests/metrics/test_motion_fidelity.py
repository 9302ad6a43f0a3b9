"""Scores of whole tracks against slow loops over their definitions, and against closed forms."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.metrics.base import Tracks
from motionexp.metrics.mf_ditflow import DitflowFidelity, mf_ditflow
from motionexp.metrics.motion_fidelity import MotionFidelity
from motionexp.metrics.track_similarity import motion_fidelity, track_similarity
from motionexp.metrics.tracks import LucasKanadeTracker
from tests.metrics.conftest import TRACK_FRAMES, TRACK_POINTS, moving_texture, walk


def moved(tracks, function):
    return replace(tracks, position=function(tracks.position))


def slow_steps(tracks):
    """(F - 1, 2) steps of every track seen for long enough, NaN where it is not seen before and after."""
    position = np.where(tracks.visible[..., None], tracks.position, np.nan)
    steps = [np.diff(position[:, n], axis=0) for n in range(position.shape[1])]
    return [track for track in steps if np.mean(~np.isnan(track[:, 0])) >= 0.5]


def slow_similarity(u, v):
    shared = ~np.isnan(u + v).any(1)
    if np.mean(shared) < 0.5:
        return 0.0
    u, v = u[shared], v[shared]
    return 2 * np.sum(u * v) / np.sum(u * u + v * v)


def slow_fidelity(a, b):
    directions = []
    for first, second in ((a, b), (b, a)):
        moving = [u for u in slow_steps(first) if np.nanmean((u**2).sum(1)) >= first.still**2]
        best = [max(slow_similarity(u, v) for v in slow_steps(second)) for u in moving]
        directions.append(np.mean(best) if best else 0.0)
    return np.mean(directions)


def test_motion_fidelity_is_its_definition():
    for seed in range(4):
        a, b = walk(seed, 9, hidden=0.15, still=0.9), walk(seed + 10, 12, hidden=0.15, still=0.9)
        assert motion_fidelity(a, b).value == pytest.approx(slow_fidelity(a, b))
        assert motion_fidelity(b, a).value == pytest.approx(motion_fidelity(a, b).value)


def test_same_motion_anywhere_scores_one_and_another_speed_its_closed_form():
    a = walk(0)
    rng = np.random.default_rng(1)
    elsewhere = moved(a, lambda position: position[:, rng.permutation(TRACK_POINTS)] + 40)
    assert motion_fidelity(a, elsewhere).value == pytest.approx(1)
    one = walk(0, points=1)
    for k in (0.5, 2, 3):
        faster = moved(one, lambda position, k=k: k * position)
        assert motion_fidelity(one, faster).value == pytest.approx(2 * k / (1 + k * k))
    assert motion_fidelity(one, moved(one, lambda position: -position)).value == pytest.approx(-1)


def test_static_points_neither_help_nor_hurt():
    a, b = walk(0), walk(1)

    def with_still(tracks):
        still = np.full((TRACK_FRAMES, 200, 2), 7.0)
        position = np.concatenate([tracks.position, still], 1)
        return Tracks(position, np.ones(position.shape[:2], bool), tracks.still)

    assert motion_fidelity(with_still(a), with_still(a)).value == pytest.approx(1)
    among_still = motion_fidelity(with_still(a), with_still(b)).value
    assert among_still == pytest.approx(motion_fidelity(a, b).value, abs=0.02)
    frozen = moved(a, np.zeros_like)
    assert motion_fidelity(frozen, a).value == 0
    assert motion_fidelity(a, frozen).value == 0
    both = motion_fidelity(frozen, frozen)
    assert (both.value, "by definition" in both.reason) == (1, True)


def test_a_hidden_stretch_does_not_count():
    a = walk(0)
    jumping = moved(a, np.copy)
    jumping.position[-2:] += np.random.default_rng(5).normal(0, 30, (2, TRACK_POINTS, 2))
    assert motion_fidelity(a, jumping).value < 0.6
    hidden = np.repeat(np.arange(TRACK_FRAMES)[:, None] < TRACK_FRAMES - 2, TRACK_POINTS, axis=1)
    assert motion_fidelity(a, replace(jumping, visible=hidden)).value == pytest.approx(1)
    assert "can be followed" in motion_fidelity(a, replace(a, visible=~a.visible)).reason


def test_track_similarity_of_two_that_stand_still_is_one_and_of_too_few_shared_steps_zero():
    steps, seen = np.zeros((1, 4, 2)), np.ones((1, 4), bool)
    assert track_similarity(steps, seen, steps, seen) == 1
    late = np.array([[False, False, False, True]])
    assert track_similarity(steps, seen, steps, late) == 0


def test_chance_is_the_mean_over_other_references_and_stands_beside(inputs):
    a, b, unrelated = walk(0), walk(1), (walk(2), walk(3))
    shown = inputs(tracks=a, reference_tracks=b, chance_tracks=unrelated)
    for metric, score in ((MotionFidelity(), motion_fidelity), (DitflowFidelity(), mf_ditflow)):
        name = next(iter(metric.values))
        measured = metric.measure(shown)
        assert measured[name].value == score(a, b).value
        expected = np.mean([score(a, tracks).value for tracks in unrelated])
        assert measured[f"{name}_chance"].value == pytest.approx(expected)
        alone = metric.measure(inputs(tracks=a, reference_tracks=b))
        assert alone[f"{name}_chance"].reason == f"no other reference of {len(a.position)} frames"
        with pytest.raises(InputError, match=f"{name} .*tracks"):
            metric.measure(inputs())
    unseen = MotionFidelity().measure(inputs(tracks=a, reference_tracks=walk(1, hidden=1.0)))
    assert unseen["track_coverage"].value == 0
    # A reference that nobody can follow silences no other.
    with_lost = inputs(tracks=a, reference_tracks=b, chance_tracks=(walk(4, hidden=1.0), *unrelated))
    expected = np.mean([motion_fidelity(a, tracks).value for tracks in unrelated])
    assert MotionFidelity().measure(with_lost)["motion_fidelity_chance"].value == pytest.approx(expected)


def test_videos_that_move_alike_and_videos_that_do_not():
    track = LucasKanadeTracker()
    velocities = enumerate([(2, 0), (2, 0), (-2, 0), (0, 0)])
    right, also_right, left, still = (track(moving_texture(*moving)) for moving in velocities)
    assert motion_fidelity(right, also_right).value > 0.95
    assert motion_fidelity(right, left).value < 0
    assert motion_fidelity(right, still).value == pytest.approx(0, abs=0.02)
    with pytest.raises(InputError, match=r" 18 .* 16 x 16"):
        track(np.zeros((4, 16, 16, 3), np.uint8))
    with pytest.raises(InputError, match=" 8 and 5 "):
        motion_fidelity(right, track(moving_texture(0, (2, 0), frames=5)))
