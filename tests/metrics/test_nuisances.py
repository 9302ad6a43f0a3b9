"""Background leakage against renders."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import edited
from motionexp.metrics.nuisances import (
    VALUES,
    Nuisances,
    background_similarity,
    bare_ground,
    object_nuisances,
    with_nuisances_of,
)
from tests.metrics.conftest import CHANGES, make_scene


def test_ground_similarity_is_numpy_s_correlation():
    rng = np.random.default_rng(0)
    video, ground = rng.random((3, 8, 8)), rng.random((1, 8, 8))
    uncovered = rng.random((3, 8, 8)) > 0.3
    expected = np.corrcoef(video[uncovered], np.repeat(ground, 3, axis=0)[uncovered])[0, 1]
    assert background_similarity(video, uncovered, ground) == pytest.approx(expected)
    assert background_similarity(video, uncovered, np.zeros_like(video)) == 0


def test_a_ground_moves_with_its_camera():
    assert len(bare_ground(make_scene("wander"), 16)) == 1
    panned = bare_ground(make_scene("pan_left"), 16)
    assert len(panned) == 16
    assert np.abs(panned[0].astype(int) - panned[-1]).max() > 10


def test_an_object_s_nuisances_follow_the_truth():
    scene = make_scene("wander")
    thing = replace(scene.things[0], surface="plain", shape="circle", shade=0.0)
    scene = replace(scene, things=(thing,), nuisances=replace(scene.nuisances, light=0.0))
    before = object_nuisances(render(scene))
    turned = object_nuisances(render(replace(scene, nuisances=replace(scene.nuisances, light=np.pi / 2))))
    # `Contrast.light` x a circle's 0.95, first to the right, then down.
    np.testing.assert_allclose([before.light, turned.light], [[0.095, 0], [0, 0.095]], atol=0.01)
    changed = replace(thing, shade=0.08, size=1.1 * thing.size)
    after = object_nuisances(render(replace(scene, things=(changed,))))
    assert after.shade - before.shade == pytest.approx(0.08, abs=0.01)
    assert after.size - before.size == pytest.approx(np.log(1.1), abs=0.02)


def test_what_leaks_is_above_chance_and_what_does_not_is_at_chance(inputs):
    scenes = [make_scene("wander", index) for index in range(12)]
    leaks = {"leaked": [], "fresh": []}
    for index, scene in enumerate(scenes):
        target = edited(scene, CHANGES)
        fresh = with_nuisances_of(target, make_scene("wander", 100 + index))
        for name, shown in (("leaked", target), ("fresh", fresh)):
            chance_scenes = (*scenes[:index], *scenes[index + 1 :])
            measured = Nuisances().measure(inputs(render(shown), scene, chance_scenes=chance_scenes))
            values = VALUES.values()
            leaks[name].append([measured[value].value - measured[chance].value for value, chance in values])
    # A row a scene, a column a nuisance.
    leaked, fresh = np.array(leaks["leaked"]), np.array(leaks["fresh"])
    assert (leaked[:, 0] > 0.7).all()
    assert abs(fresh[:, 0].mean()) < 0.25
    assert (leaked.mean(0) > 0.02).all()
    assert (leaked.mean(0) > fresh.mean(0) + 0.02).all()


def test_a_sample_that_shows_the_reference_s_appearance_leaks_as_one_that_shows_the_edit_s(inputs):
    scene = make_scene("wander")
    measured = Nuisances().measure(inputs(render(scene), scene))
    assert measured["nuisance_similarity"].value > 0.97
    assert min(measured[f"nuisance_{name}"].value for name in ("light", "size", "shade")) > -0.01


def test_without_other_references_there_is_no_chance_level_and_mush_has_no_object(inputs):
    measured = Nuisances().measure(inputs())
    assert measured["nuisance_similarity"].value > 0.9
    assert np.isnan(measured["nuisance_chance"].value)
    assert "no other references" in measured["nuisance_chance"].reason
    grey = np.full((16, 64, 64, 3), 90, np.uint8)
    measured = Nuisances().measure(inputs(grey, chance_scenes=(make_scene("left"),)))
    assert measured["nuisance_similarity"].value == 0
    assert "no object stands out" in measured["nuisance_light"].reason
    assert "no object stands out" in measured["nuisance_light_chance"].reason
