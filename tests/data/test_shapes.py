"""The bundled world: what it promises of its pixels, its words, its splits and its energies."""

import itertools

import numpy as np
import pytest

from motionexp.data.shapes import energies, grammar, motions, render, scenes, splits
from motionexp.errors import InputError


def lone(motion: str, index: int = 0, contrast: str = "motion-dominant") -> scenes.Scene:
    return scenes.draw(scenes.seeded("test", motion, index), contrast=contrast, choices=(motion,))


def centroid(video: np.ndarray) -> np.ndarray:
    """Centre of what is brighter than half-way between background and object, per frame, in pixels."""
    weight = (video.astype(float).mean(-1) > 127.5 * 1.05).astype(float)
    grid = np.arange(64) + 0.5
    total = weight.sum((1, 2))
    return np.stack([(weight.sum(1) * grid).sum(1) / total, (weight.sum(2) * grid).sum(1) / total], 1)


def test_a_seed_gives_the_same_pixels_again() -> None:
    first, second = (render.render(scenes.pretraining_scene(7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, render.render(scenes.pretraining_scene(8)))


@pytest.mark.parametrize("motion", [m for m in grammar.MOTIONS if m not in grammar.CAMERA_PHRASES])
def test_the_object_is_where_the_truth_says(motion: str) -> None:
    # A circle's centroid is its centre, which is not so of a moon or a triangle.
    rng = scenes.seeded("test circle", motion)
    appearance = {"colour": "cyan", "surface": "plain", "shape": "circle", "background": "sand"}
    scene = scenes.Scene(
        (scenes.draw_thing(rng, appearance, motion),), "sand", "motion-dominant", scenes.draw_nuisances(rng)
    )
    truth = scene.truth(16)
    assert np.abs(centroid(render.render(scene)) - truth.position).max() < 0.6
    assert np.allclose(np.diff(truth.position, axis=0), truth.velocity)
    inside = (truth.position - truth.size[:, None] > -2) & (truth.position + truth.size[:, None] < 66)
    assert inside.all(), "the object leaves the frame"


@pytest.mark.parametrize(("motion", "direction"), [("pan_left", 1), ("pan_right", -1)])
def test_a_panning_camera_moves_background_and_object_the_other_way(motion: str, direction: int) -> None:
    scene = lone(motion)
    background = render.render(scene)[:, :12].astype(float).mean(-1)
    shifts = []
    for before, after in itertools.pairwise(background):
        errors = [np.square(before[:, 4:60] - after[:, at : at + 56]).mean() for at in range(9)]
        shifts.append(np.argmin(errors) - 4)
    velocity = scene.truth(16).velocity[:, 0]
    assert np.sign(velocity.mean()) == direction
    assert np.mean(shifts) == pytest.approx(velocity.mean(), abs=0.5)


def test_directions_are_what_the_words_say() -> None:
    for name, axis, sign in (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("arc_left", 0, -1)):
        offset = motions.path(name, 16, 0).offset
        assert np.sign(offset[-1, axis] - offset[0, axis]) == sign
    x, y = motions.path("circle_clockwise", 64, 0).offset.T
    # With y downwards, clockwise turns from x to y.
    assert (x[:-1] * np.diff(y) - y[:-1] * np.diff(x)).sum() > 0
    assert motions.path("grow", 16, 0).scale[-1] > 1.5 > motions.path("shrink", 16, 0).scale[-1]
    assert motions.path("zoom_in", 16, 0).zoom[-1] > 1 > motions.path("zoom_out", 16, 0).zoom[-1]


def test_seventeen_frames_begin_with_the_sixteen() -> None:
    reader = splits.ShapesReferences("tuning")
    name = reader.names()[0]
    longer, usual = reader.read(name, 17), reader.read(name, 16)
    assert np.array_equal(longer.frames[:16], usual.frames)
    assert (longer.scored_frames, usual.scored_frames) == (16, None)
    assert reader.read(name, 32).frames.shape == (32, 64, 64, 3)


def test_only_the_chosen_frames_are_rendered() -> None:
    scene = lone("circle_clockwise")
    assert np.array_equal(render.render(scene, select=[3, 11]), render.render(scene)[[3, 11]])


def test_the_grammar_is_as_large_as_promised_and_closed() -> None:
    assert [len(values) for values in grammar.ATTRIBUTES.values()] == [8, 4, 6, 6]
    assert len(grammar.CAPTIONED) == 17
    words = set(grammar.vocabulary())
    for index in range(300):
        scene = scenes.pretraining_scene(index)
        assert set(scene.caption.split()) | set(scene.still_caption.split()) <= words
    for split in splits.SPLITS:
        for entry in splits.entries(split):
            assert all(set(scene.caption.split()) <= words for scene in entry.edits.values())


def test_colours_have_equal_luminance() -> None:
    directions = np.stack([render.hue(degrees) for degrees in range(0, 360, 45)])
    np.testing.assert_allclose(directions.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)


def test_pretraining_never_shows_held_out_attributes_or_out_of_distribution_motions() -> None:
    preferred = []
    for scene in map(scenes.pretraining_scene, range(1500)):
        for thing in scene.things:
            assert not grammar.is_held_out(thing.colour, thing.surface, thing.shape, scene.background)
            assert thing.motion not in grammar.OUT_OF_DISTRIBUTION
            assert (thing.shape, thing.motion) != ("circle", "spin")
            if thing.motion in grammar.CAPTIONED:
                preferred.append(thing.motion == grammar.MANNERS[thing.shape])
    combinations = itertools.product(*grammar.ATTRIBUTES.values())
    assert np.mean([grammar.is_held_out(*values) for values in combinations]) == pytest.approx(0.1, abs=0.02)
    assert np.mean(preferred) == pytest.approx(grammar.COUPLING + 0.5 / 17, abs=0.05)


def test_the_benchmark_has_tgves_form_and_shares_nothing_with_the_tuning_split() -> None:
    tuning, benchmark = splits.entries("tuning"), splits.entries("benchmark")
    assert (len(tuning), len(benchmark)) == (12, 76)
    scenes_of_both = [entry.scene for entry in (*tuning, *benchmark)]
    appearances = {tuple(scene.attributes[name] for name in grammar.ATTRIBUTES) for scene in scenes_of_both}
    assert len(appearances) == 88
    assert len({entry.name for entry in (*tuning, *benchmark)}) > 80
    uncaptioned = [entry for entry in benchmark if entry.scene.attributes["motion"] not in grammar.CAPTIONED]
    assert len(uncaptioned) > 76 / 2, "most motions are ones that no pretraining caption names"
    for entry in (*tuning, *benchmark):
        assert tuple(entry.edits) == ("style", "object", "background", "multiple")
        for kind, scene in entry.edits.items():
            before, after = entry.scene.attributes, scene.attributes
            assert {name for name in before if before[name] != after[name]} == set(splits.EDIT_CHANGES[kind])
            assert not grammar.is_held_out(*(after[name] for name in grammar.ATTRIBUTES))


def test_the_nearest_captioned_motion_of_a_captioned_one_is_itself() -> None:
    for motion in ("left", "down", "arc_right", "circle_clockwise", "sway"):
        assert splits.nearest_captioned(lone(motion)) == motion


def test_the_nearest_caption_replaces_the_generic_phrase_alone() -> None:
    reader = splits.ShapesReferences("tuning")
    reference = reader.read(reader.names()[0])
    edit = reference.edits[0]
    phrase = grammar.OBJECT_PHRASES[splits.nearest_captioned(reference.truth)]
    caption = splits.caption_of_nearest_motion(reference, edit)
    assert edit.caption != caption == edit.caption.replace("is moving", phrase)


def test_energies_are_in_the_order_that_each_contrast_asks_for() -> None:
    rows = {kind: energies.energy_of(*kind, count=8).log_snr for kind in energies.KINDS}
    motion = rows["motion-dominant", "motion"]
    for factor, least in (("colour", 2), ("surface", 2), ("background", 0.8), ("shape", 0.8)):
        assert rows["motion-dominant", factor] - motion > least, factor
    # The background of an appearance-dominant video is set before its motion.
    assert rows["appearance-dominant", "background"] < rows["appearance-dominant", "motion"]
    assert rows["appearance-dominant", "colour"] - rows["appearance-dominant", "motion"] < 1


def test_a_pair_of_scenes_differs_in_its_factor_alone() -> None:
    for first, second in energies.pairs("motion-dominant", "colour", 4):
        differing = {name for name, value in first.attributes.items() if second.attributes[name] != value}
        assert differing == {"colour"}
        assert first.nuisances == second.nuisances


@pytest.mark.parametrize(
    ("split", "name", "size", "named"),
    [("training", "", 64, "training"), ("tuning", "no-such", 64, "no-such"), ("tuning", "", 512, "512")],
)
def test_what_the_world_does_not_have_is_an_error_that_names_it(split, name, size, named) -> None:
    with pytest.raises(InputError, match=named):
        splits.ShapesReferences(split).read(name, 16, size, size)
