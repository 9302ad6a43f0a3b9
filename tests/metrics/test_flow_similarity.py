import cv2
import numpy as np
import pytest

from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import edited
from motionexp.errors import InputError
from motionexp.metrics.flow_similarity import FlowSimilarity, compare_flows, flow_similarity
from motionexp.metrics.lucas_kanade import Flow, FlowSettings, flow, grid
from tests.metrics.conftest import CHANGES, make_scene, moving_texture

SETTINGS = FlowSettings()


def still(seed=0, frames=8):
    return np.repeat(moving_texture(seed, (0, 0), frames=1), frames, axis=0)


@pytest.mark.parametrize("velocity", [(1, 0), (0, -2), (3, 2), (-5, 4)])
def test_flow_of_a_moving_texture_is_its_velocity(velocity):
    found = flow(moving_texture(0, velocity), SETTINGS)
    assert found.valid.mean() > 0.6
    np.testing.assert_allclose(np.median(found.vectors[found.valid], axis=0), velocity, atol=0.02)
    assert np.abs(found.vectors[found.valid] - velocity).max(1).mean() < 0.15


def test_windows_stay_inside_and_points_that_leave_are_not_followed():
    points = grid(64, 96, SETTINGS)
    assert points.min() == SETTINGS.window // 2
    assert points[:, 0].max() < 96 - SETTINGS.window // 2
    assert points[:, 1].max() < 64 - SETTINGS.window // 2
    found = flow(moving_texture(0, (6, 0)), SETTINGS)
    leaving = grid(64, 64, SETTINGS)[:, 0] + 6 > 63
    assert leaving.any()
    assert not found.valid[:, leaving].any()


def test_dense_flow_of_another_method_agrees():
    video = moving_texture(3, (2, 1))
    found = flow(video, SETTINGS)
    xs, ys = grid(64, 64, SETTINGS).astype(int).T
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    for index in range(len(video) - 1):
        dense = cv2.calcOpticalFlowFarneback(grey[index], grey[index + 1], None, 0.5, 3, 9, 3, 5, 1.2, 0)
        valid = found.valid[index]
        difference = found.vectors[index][valid] - dense[ys, xs][valid]
        assert np.median(np.linalg.norm(difference, axis=1)) < 0.2


def slow_comparison(sample, reference, threshold):
    """The definition, point by point."""
    pairs = []
    for index in range(len(sample.vectors)):
        cosines = []
        for point in range(sample.vectors.shape[1]):
            a, b = sample.vectors[index, point], reference.vectors[index, point]
            if not (sample.valid[index, point] and reference.valid[index, point]):
                continue
            moves = [np.hypot(*a) >= threshold, np.hypot(*b) >= threshold]
            if all(moves):
                cosines.append(float(a @ b) / (np.hypot(*a) * np.hypot(*b)))
            elif any(moves):
                cosines.append(0.0)
        if cosines:
            pairs.append(np.mean(cosines))
    return np.mean(pairs)


def test_comparison_against_a_slow_loop():
    rng = np.random.default_rng(0)
    for _ in range(5):
        flows = [Flow(rng.normal(0, 0.4, (4, 30, 2)), rng.random((4, 30)) > 0.2) for _ in range(2)]
        found = compare_flows(*flows, SETTINGS)
        assert found.value == pytest.approx(slow_comparison(*flows, SETTINGS.still))
        assert found.coverage == pytest.approx((flows[0].valid & flows[1].valid).mean())


def test_anchors_on_a_texture_that_moves_everywhere():
    video = moving_texture(0, (2, 1))
    other = [flow_similarity(moving_texture(5, turned), video).value for turned in ((-1, 2), (1, -2))]
    assert flow_similarity(video, video).value == pytest.approx(1)
    assert flow_similarity(video[::-1], video).value == pytest.approx(-1, abs=0.02)
    np.testing.assert_allclose(other, 0, atol=0.02)
    assert flow_similarity(still(), video).value == 0
    assert flow_similarity(still(), video).one_still == 1


def test_speed_and_looks_do_not_count_direction_does():
    video = moving_texture(0, (2, 1))
    assert flow_similarity(moving_texture(7, (4, 2)), video).value == pytest.approx(1, abs=0.01)
    inverted = 255 - video // 2
    assert flow_similarity(inverted, video).value == pytest.approx(1, abs=0.01)
    values = [
        flow_similarity(moving_texture(7, velocity), video).value
        for velocity in ((4, 2), (3, 3), (1, 3), (-1, 2), (-2, 1), (-4, -2))
    ]
    assert np.all(np.diff(values) < 0)


def test_a_static_pair_scores_one_by_definition_and_says_so():
    found = flow_similarity(still(0), still(1))
    assert found.value == 1
    assert "by definition" in found.reason
    assert found.moving == 0


def test_what_cannot_be_followed_abstains():
    video, rng = moving_texture(0, (2, 0)), np.random.default_rng(0)
    flat = np.full_like(video, 128)
    noisy = np.clip(128 + rng.normal(0, 1, video.shape), 0, 255).astype(np.uint8)
    snow = rng.integers(0, 256, video.shape, dtype=np.uint8)
    for mush in (flat, noisy, snow):
        found = flow_similarity(mush, video)
        assert np.isnan(found.value)
        assert "can be followed" in found.reason
        assert found.coverage < SETTINGS.floor


def test_points_that_move_in_the_reference_must_be_seen_in_the_sample():
    """Ground that is followed in both videos does not stand in for a moving part that is lost in one."""
    vectors, valid = np.zeros((3, 100, 2)), np.ones((3, 100), bool)
    moving = vectors.copy()
    moving[:, :20] = (2, 0)
    lost = valid.copy()
    lost[:, :19] = False
    found = compare_flows(Flow(vectors, lost), Flow(moving, valid), SETTINGS)
    assert np.isnan(found.value)
    assert "moving points" in found.reason


def test_the_weakest_texture_is_what_noise_cannot_imitate():
    """OpenCV's own threshold follows the noise of a flat area."""
    noise = np.clip(128 + np.random.default_rng(0).normal(0, 1, (6, 64, 64, 1)), 0, 255).astype(np.uint8)
    video = np.repeat(noise, 3, axis=-1)
    assert flow(video, SETTINGS).valid.mean() < 0.01
    assert flow(video, FlowSettings(min_eigenvalue=1e-4)).valid.mean() > 0.1


@pytest.mark.parametrize("motion", ["pan_left", "zoom_in", "wander", "hop", "circle_clockwise"])
def test_an_edit_that_keeps_the_motion_scores_high_in_the_bundled_world(motion, inputs):
    scene = make_scene(motion, 2)
    kept = FlowSimilarity().measure(inputs(scene=scene))
    assert kept["flow_similarity"].value > 0.6
    assert kept["flow_similarity_frozen"].value == 0
    assert kept["flow_coverage"].value > 0.15
    assert len(kept["flow_similarity"].series) == 15
    frozen = FlowSimilarity().measure(inputs(np.repeat(render(scene)[:1], 16, axis=0), scene))
    assert frozen["flow_similarity"].value == frozen["flow_similarity_frozen"].value == 0


def test_unrelated_and_reversed_motion_in_the_bundled_world():
    pan, zoom = make_scene("pan_left"), make_scene("zoom_in")
    assert flow_similarity(render(edited(pan, CHANGES))[::-1], render(pan)).value < -0.9
    assert flow_similarity(render(edited(zoom, CHANGES))[::-1], render(zoom)).value < -0.7
    unrelated = [
        flow_similarity(render(make_scene("wander", index)), render(make_scene("stop_and_go", index))).value
        for index in range(8)
    ]
    assert abs(np.mean(unrelated)) < 0.1


def test_one_metric_scores_samples_of_many_references(inputs):
    metric = FlowSimilarity()
    for motion in ("pan_left", "pan_right", "pan_left"):
        scene = make_scene(motion)
        expected = flow_similarity(inputs(scene=scene).frames, render(scene)).value
        assert metric.measure(inputs(scene=scene))["flow_similarity"].value == expected


def test_videos_must_match_and_be_large_enough():
    video = moving_texture(0, (1, 0))
    for other in (video[:-1], video[:, :32], video[:1]):
        with pytest.raises(InputError, match="one length and size"):
            flow_similarity(other, video if len(other) > 1 else other)
    with pytest.raises(InputError, match="too small"):
        flow_similarity(video[:, :16, :16], video[:, :16, :16])


def test_larger_frames_get_larger_windows():
    assert FlowSettings.for_size(64, 96).window == 9
    assert FlowSettings.for_size(512, 288).window == 21
    assert FlowSettings.for_size(512, 512).step == 16
