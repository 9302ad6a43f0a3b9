"""The tracker and the velocities against ground truth, and what both must reject."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import draw, seeded
from motionexp.metrics.trajectory import (
    Track,
    Trajectory,
    position_error,
    track,
    velocity_similarity,
)
from tests.metrics.conftest import make_scene


def noisy(frames, sigma=12, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def blurred(frames, sigma=1.5):
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def mush(seed):
    rng = np.random.default_rng(seed)
    clouds = [cv2.GaussianBlur(rng.normal(size=(64, 64, 3)), (0, 0), 5) for _ in range(16)]
    return np.stack([cv2.normalize(cloud, None, 40, 200, cv2.NORM_MINMAX) for cloud in clouds]).astype(
        np.uint8
    )


def slow_similarity(shown, true):
    dot = sum(float(a @ b) for a, b in zip(shown, true, strict=True))
    return 2 * dot / sum(float(a @ a) + float(b @ b) for a, b in zip(shown, true, strict=True))


@pytest.mark.parametrize("motion", grammar.MOTIONS)
def test_every_motion_is_followed_on_clean_noisy_and_blurred_renders(motion):
    scene = make_scene(motion)
    frames, truth = render(scene), scene.truth(16)
    for shown in (frames, noisy(frames), blurred(frames)):
        tracked = track(shown)
        assert tracked.reason == ""
        assert velocity_similarity(tracked, truth).value > 0.85
        if scene.things[0].shape != "moon":  # whose centre of area is not what it grows and spins about
            assert position_error(tracked, truth, align=True).value < 0.3


@pytest.mark.parametrize("motion", ["left", "wander", "grow", "zoom_out", "spin"])
def test_positions_velocities_sizes_and_turns_are_the_truth(motion):
    scene = make_scene(motion, 1)
    tracked, truth = track(render(scene)), scene.truth(16)
    assert np.abs(np.diff(tracked.position, axis=0) - truth.velocity).mean() < 0.1
    assert np.log(tracked.size / truth.size).std() < 0.03
    if motion == "spin":  # turns are clockwise
        np.testing.assert_allclose(tracked.turn, np.diff(truth.angle), atol=0.05)


def test_similarity_against_a_slow_loop_and_its_anchors():
    truth = make_scene("zigzag").truth(16)

    def similarity(position, size=truth.size):
        return velocity_similarity(Track(position, size, np.diff(truth.angle)), truth).value

    assert similarity(truth.position + np.array([5, -9]), 2 * truth.size) == pytest.approx(1)
    assert similarity(64 - truth.position) == pytest.approx(-1)
    assert similarity(np.full((16, 2), 20.0)) == 0
    walk = np.random.default_rng(0).normal(size=(16, 2)).cumsum(0)
    assert similarity(walk) == pytest.approx(slow_similarity(np.diff(walk, axis=0), truth.velocity))


def test_speed_counts():
    truth = make_scene("left").truth(16)
    values = [
        velocity_similarity(Track(factor * truth.position, truth.size, np.zeros(15)), truth).value
        for factor in (0.25, 0.5, 1, 2, 4)
    ]
    assert values[2] == pytest.approx(1)
    assert values[0] < values[1] < values[2] > values[3] > values[4]
    assert values[1] == pytest.approx(values[3])  # half as fast is as far off as twice as fast


def test_growth_and_turn_count_only_where_the_reference_grows_or_turns():
    grows, moves = make_scene("grow").truth(16), make_scene("left").truth(16)
    constant = Track(grows.position, np.full(16, 10.0), np.zeros(15))
    assert velocity_similarity(constant, grows).value < 0.1
    growing = Track(moves.position, grows.size, np.full(15, 0.3))
    assert velocity_similarity(growing, moves).value == pytest.approx(1)


def test_errors_with_and_without_alignment():
    truth = make_scene("wander").truth(16)
    shifted = Track(truth.position + np.array([3, 4]), truth.size, np.zeros(15))
    assert position_error(shifted, truth, align=False).value == pytest.approx(5)
    assert position_error(shifted, truth, align=True).value == pytest.approx(0, abs=1e-9)


def test_a_frame_without_the_object_is_left_out():
    scene = make_scene("left")
    frames = render(scene).copy()
    frames[6] = np.median(frames, axis=(0, 1, 2)).astype(np.uint8)
    tracked = track(frames)
    assert tracked.reason == ""
    assert np.isnan(tracked.position[6]).all()
    assert np.isnan(tracked.turn[[5, 6]]).all()
    assert velocity_similarity(tracked, scene.truth(16)).value > 0.99


def test_frozen_shuffled_and_mushy_videos_are_rejected():
    rng = np.random.default_rng(0)
    scenes = [make_scene(motion, index) for motion in ("wander", "left", "hop") for index in range(4)]
    frozen = [track(np.repeat(render(scene)[:1], 16, axis=0)).reason for scene in scenes]
    assert frozen == ["the sample is frozen"] * len(scenes)
    shuffled = [bool(track(rng.permutation(render(scene))).reason) for scene in scenes]
    assert np.mean(shuffled) > 0.7
    assert np.mean([bool(track(mush(seed)).reason) for seed in range(12)]) == 1
    assert track(noisy(np.full((16, 64, 64, 3), 128, np.uint8), 40)).reason
    assert "one compact object" in track(noisy(render(scenes[0]), 60)).reason


def test_an_object_that_jitters_in_its_place_is_not_shuffled():
    frames, rng = render(make_scene("grow", 2)), np.random.default_rng(0)
    shaken = np.stack([np.roll(frame, rng.integers(-1, 2, 2), axis=(0, 1)) for frame in frames])
    assert track(shaken).reason == ""


def test_a_pixel_s_centre_is_at_a_half():
    scene = make_scene("left")
    circle = replace(scene, things=(replace(scene.things[0], shape="circle", surface="plain"),))
    assert position_error(track(render(circle)), circle.truth(16), align=False).value < 0.2


def test_an_abstention_is_counted_as_nothing_beside_its_reason(inputs):
    scene = make_scene("wander")
    tracked = Trajectory().measure(inputs(np.repeat(render(scene)[:1], 16, axis=0), scene))
    assert np.isnan(tracked["velocity_similarity"].value)
    assert tracked["velocity_similarity_counted"].value == 0
    assert tracked["velocity_similarity_counted"].reason == "the sample is frozen"
    assert np.isnan(tracked["path_error"].value)


def test_an_edit_in_the_reference_s_place_is_right_in_all(inputs):
    tracked = Trajectory().measure(inputs(scene=make_scene("hop")))
    assert tracked["velocity_similarity"].value > 0.99
    assert tracked["velocity_similarity_counted"] == tracked["velocity_similarity"]
    assert tracked["position_error"].value < 1
    assert len(tracked["velocity_similarity"].series) == 15


def test_of_two_objects_the_left_one_is_followed(inputs):
    choices = ("left", "up", "circle_clockwise")
    scene = draw(seeded("pair", 3), contrast="motion-dominant", choices=choices, objects=2)
    tracked = Trajectory().measure(inputs(render(scene), scene))
    assert tracked["velocity_similarity"].value > 0.97
    assert tracked["position_error"].value < 1.5


def test_posters_are_followed_too():
    scenes = [make_scene("wander", index, "appearance-dominant") for index in range(6)]
    assert np.mean([track(render(scene)).reason == "" for scene in scenes]) > 0.8
