"""Videos of a reference's motion in other looks: what one adapter can be tuned on beside the reference."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from motionexp.data.base import Edit
from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene, draw_nuisances, draw_thing, edited, seeded

MOST_COMPANIONS = min(map(len, grammar.ATTRIBUTES.values())) - 1
"""As many as the attribute with the fewest values has others: no look is shown twice."""


def companions(scene: Scene, count: int, *seed: str) -> list[Scene]:
    """Scenes in which another object on another ground moves along the same path.

    Motion and its seed are the reference's. Colour, surface, shape and ground differ from the reference's and
    from each other's; what no caption names (place, size, shade, tilt, phase, distractors, light) is drawn
    anew. A companion's first ones are the same whatever `count`.

    Args:
        scene: of one object.
        count: from 0 to `MOST_COMPANIONS`.
        seed: what the draws depend on.
    """
    shown = {name: [value] for name, value in scene.attributes.items() if name in grammar.ATTRIBUTES}
    found = []
    for index in range(count):
        rng = seeded("companion", *seed, index)
        while True:
            looks = {
                name: str(rng.choice([value for value in values if value not in shown[name]]))
                for name, values in grammar.ATTRIBUTES.items()
            }
            motion = scene.attributes["motion"]
            visible = grammar.is_visible(looks["shape"], looks["surface"], motion)
            if visible and not grammar.is_held_out(**looks):
                break
        thing = draw_thing(rng, looks, motion)
        thing = replace(thing, motion_seed=scene.things[0].motion_seed)
        moved = replace(scene, things=(thing,), nuisances=draw_nuisances(rng))
        found.append(edited(moved, {"background": looks["background"]}))
        for name, value in looks.items():
            shown[name].append(value)
    return found


MOST_ALIKE = 0.3
"""Cosine of the velocities below which another motion is a clear change."""


def other_motions(scene: Scene, frames: int = 16) -> Iterator[str]:
    """Yield the captioned motions of objects that clearly differ from the scene's and are visible on it."""
    first, own = scene.things[0], scene.truth(frames).velocity
    for motion in grammar.OBJECT_PHRASES:
        velocity = edited(scene, {"motion": motion}).truth(frames).velocity
        norm = float(np.linalg.norm(velocity) * np.linalg.norm(own))
        alike = float((velocity * own).sum()) / norm if norm > 0 else 0.0
        visible = grammar.is_visible(first.shape, first.surface, motion)
        if motion != first.motion and alike < MOST_ALIKE and visible:
            yield motion


def motion_edit(scene: Scene, *seed: str) -> Edit:
    """Name another motion and keep every look; which one depends on `seed` alone."""
    motion = str(seeded("motion edit", *seed).choice(list(other_motions(scene))))
    target = edited(scene, {"motion": motion})
    return Edit("motion", target.caption, target.attributes)
