"""Background leakage against renders."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import edited
from motionexp.metrics.nuisances import (
    Nuisances,
    bare_ground,
    ground_similarity,
    object_nuisances,
    with_nuisances_of,
)
from tests.metrics.conftest import CHANGES, make_scene


def test_ground_similarity_is_numpy_s_correlation():
    rng = np.random.default_rng(0)
    video, ground = rng.random((3, 8, 8)), rng.random((1, 8, 8))
    uncovered = rng.random((3, 8, 8)) > 0.3
    expected = np.corrcoef(video[uncovered], np.repeat(ground, 3, axis=0)[uncovered])[0, 1]
    assert ground_similarity(video, uncovered, ground) == pytest.approx(expected)
    assert ground_similarity(video, uncovered, np.zeros_like(video)) == 0


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
    assert before.light[0] == pytest.approx(0.095, abs=0.01)  # `Contrast.light` x a circle's 0.95
    assert before.light[1] == pytest.approx(0.0, abs=0.01)
    turned = object_nuisances(render(replace(scene, nuisances=replace(scene.nuisances, light=np.pi / 2))))
    assert turned.light[1] == pytest.approx(0.095, abs=0.01)
    brighter = object_nuisances(render(replace(scene, things=(replace(thing, shade=0.08),))))
    assert brighter.shade - before.shade == pytest.approx(0.08, abs=0.01)
    larger = object_nuisances(render(replace(scene, things=(replace(thing, size=1.1 * thing.size),))))
    assert larger.size - before.size == pytest.approx(np.log(1.1), abs=0.02)


def test_what_leaks_is_above_chance_and_what_does_not_is_at_chance(inputs):
    scenes = [make_scene("wander", index) for index in range(12)]
    leaks: dict[str, list[float]] = {"leaked": [], "fresh": []}
    for index, scene in enumerate(scenes):
        others = tuple(scene for position, scene in enumerate(scenes) if position != index)
        target = edited(scene, CHANGES)
        fresh = with_nuisances_of(target, make_scene("wander", 100 + index))
        for name, shown in (("leaked", target), ("fresh", fresh)):
            found = Nuisances().measure(inputs(render(shown), scene, chance_scenes=others))
            leaks[name].append(
                [
                    found[value].value
                    - found[f"{value}_chance" if value != "nuisance_similarity" else "nuisance_chance"].value
                    for value in ("nuisance_similarity", "nuisance_light", "nuisance_size", "nuisance_shade")
                ]
            )
    leaked, fresh = np.array(leaks["leaked"]), np.array(leaks["fresh"])
    assert (leaked[:, 0] > 0.7).all()
    assert abs(fresh[:, 0].mean()) < 0.25
    assert (leaked.mean(0) > 0.02).all()
    assert (leaked.mean(0) > fresh.mean(0) + 0.02).all()


def test_without_other_references_there_is_no_chance_level_and_mush_has_no_object(inputs):
    found = Nuisances().measure(inputs())
    assert found["nuisance_similarity"].value > 0.9
    assert np.isnan(found["nuisance_chance"].value)
    assert "no other references" in found["nuisance_chance"].reason
    grey = np.full((16, 64, 64, 3), 90, np.uint8)
    found = Nuisances().measure(inputs(grey, chance_scenes=(make_scene("left"),)))
    assert found["nuisance_similarity"].value == 0
    assert "no object stands out" in found["nuisance_light"].reason
    assert "no object stands out" in found["nuisance_light_chance"].reason
