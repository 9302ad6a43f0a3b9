import re

import numpy as np
import pytest

from motionexp.data.shapes.render import render
from motionexp.errors import InputError
from motionexp.metrics.flow_similarity import FlowSimilarity, compare_flows, flow_similarity
from motionexp.metrics.lucas_kanade import Flow, FlowSettings, flow, grid
from tests.metrics.conftest import make_scene, moving_texture

SETTINGS = FlowSettings()


def still(seed=0, frames=8):
    return np.repeat(moving_texture(seed, (0, 0), frames=1), frames, axis=0)


@pytest.mark.parametrize("velocity", [(1, 0), (0, -2), (3, 2), (-5, 4)])
def test_flow_of_a_moving_texture_is_its_velocity(velocity):
    measured = flow(moving_texture(0, velocity), SETTINGS)
    assert measured.valid.mean() > 0.6
    np.testing.assert_allclose(np.median(measured.vectors[measured.valid], axis=0), velocity, atol=0.02)
    assert np.abs(measured.vectors[measured.valid] - velocity).max(1).mean() < 0.15


def test_windows_stay_inside_and_points_that_leave_are_not_followed():
    points = grid(64, 96, SETTINGS)
    assert points.min() == SETTINGS.window // 2
    assert points[:, 0].max() < 96 - SETTINGS.window // 2
    assert points[:, 1].max() < 64 - SETTINGS.window // 2
    measured = flow(moving_texture(0, (6, 0)), SETTINGS)
    leaving = grid(64, 64, SETTINGS)[:, 0] + 6 > 63
    assert leaving.any()
    assert not measured.valid[:, leaving].any()


def slow_comparison(sample, reference, threshold):
    """The definition, point by point."""
    pairs = []
    for u, v, valid in zip(sample.vectors, reference.vectors, sample.valid & reference.valid, strict=True):
        cosines = []
        for a, b in zip(u[valid], v[valid], strict=True):
            moves = [np.hypot(*a) >= threshold, np.hypot(*b) >= threshold]
            if any(moves):
                cosines.append(float(a @ b) / (np.hypot(*a) * np.hypot(*b)) if all(moves) else 0.0)
        pairs.append(np.mean(cosines))
    return np.mean(pairs)


def test_comparison_against_a_slow_loop():
    rng = np.random.default_rng(0)
    for _ in range(5):
        flows = [Flow(rng.normal(0, 0.4, (4, 30, 2)), rng.random((4, 30)) > 0.2) for _ in range(2)]
        measured = compare_flows(*flows, SETTINGS)
        assert measured.value == pytest.approx(slow_comparison(*flows, SETTINGS.still))
        assert measured.coverage == pytest.approx((flows[0].valid & flows[1].valid).mean())


def test_only_the_direction_counts():
    video = moving_texture(0, (2, 1))
    assert flow_similarity(255 - video // 2, video).value == pytest.approx(1, abs=0.01)
    assert flow_similarity(video[::-1], video).value == pytest.approx(-1, abs=0.02)
    assert flow_similarity(still(), video).value == 0
    assert flow_similarity(still(), video).one_still == 1
    for velocity, expected in (((4, 2), 1), ((3, -1), 0.5**0.5), ((-1, 2), 0), ((-4, -2), -1)):
        value = flow_similarity(moving_texture(7, velocity), video).value
        assert value == pytest.approx(expected, abs=0.02)


def test_a_static_pair_scores_one_by_definition_and_says_so():
    measured = flow_similarity(still(0), still(1))
    assert measured.value == 1
    assert "by definition" in measured.reason
    assert measured.moving == 0


def test_what_cannot_be_followed_abstains():
    video, rng = moving_texture(0, (2, 0)), np.random.default_rng(0)
    flat = np.full_like(video, 128)
    noisy = np.clip(128 + rng.normal(0, 1, (*video.shape[:3], 1)).repeat(3, -1), 0, 255).astype(np.uint8)
    assert flow(noisy, SETTINGS).valid.mean() < 0.01  # which OpenCV's own threshold follows
    snow = rng.integers(0, 256, video.shape, dtype=np.uint8)
    for mush in (flat, noisy, snow):
        measured = flow_similarity(mush, video)
        assert np.isnan(measured.value)
        assert "can be followed" in measured.reason
        assert measured.coverage < SETTINGS.floor
    # Nothing is seen to move in either, which does not make two flat videos alike.
    assert np.isnan(flow_similarity(flat, flat).value)


def test_points_that_move_in_the_reference_must_be_seen_in_the_sample():
    """Ground that is followed in both videos does not stand in for a moving part that is lost in one."""
    vectors, valid = np.zeros((3, 100, 2)), np.ones((3, 100), bool)
    moving = vectors.copy()
    moving[:, :20] = (2, 0)
    lost = valid.copy()
    for count in (19, 20):
        lost[:, :count] = False
        measured = compare_flows(Flow(vectors, lost), Flow(moving, valid), SETTINGS)
        assert np.isnan(measured.value)
        assert "moving points" in measured.reason


@pytest.mark.parametrize("motion", ["pan_left", "zoom_in", "wander"])
def test_an_edit_that_keeps_the_motion_scores_high_in_the_bundled_world(motion, inputs):
    scene = make_scene(motion, 2)
    measured = FlowSimilarity().measure(inputs(scene=scene))
    assert measured["flow_similarity"].value > 0.6
    assert measured["flow_similarity_frozen"].value == 0
    assert measured["flow_coverage"].value > 0.15
    assert len(measured["flow_similarity"].series) == 15
    frozen = FlowSimilarity().measure(inputs(np.repeat(render(scene)[:1], 16, axis=0), scene))
    assert frozen["flow_similarity"].value == frozen["flow_similarity_frozen"].value == 0


def test_one_metric_scores_samples_of_many_references(inputs):
    metric = FlowSimilarity()
    for motion in ("pan_left", "pan_right", "pan_left"):
        scene = make_scene(motion)
        expected = flow_similarity(inputs(scene=scene).frames, render(scene)).value
        assert metric.measure(inputs(scene=scene))["flow_similarity"].value == expected


def test_videos_must_match_and_be_large_enough():
    video = moving_texture(0, (1, 0))
    for other in (video[:-1], video[:, :32], video[:1]):
        with pytest.raises(InputError, match=re.escape(str(other.shape))):
            flow_similarity(other, video if len(other) > 1 else other)
    with pytest.raises(InputError, match="16 x 16"):
        flow_similarity(video[:, :16, :16], video[:, :16, :16])


def test_larger_frames_get_larger_windows():
    assert FlowSettings.for_size(64, 96).window == 9
    assert FlowSettings.for_size(512, 288).window == 21
    assert FlowSettings.for_size(512, 512).step == 16
