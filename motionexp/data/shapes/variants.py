"""Variants of a reference: its motion in another appearance, and its appearance in another motion."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from motionexp.data.base import Edit
from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene, draw_nuisances, draw_thing, edited, seeded

MOST_EXTRA_REFERENCES = min(map(len, grammar.ATTRIBUTES.values())) - 1
"""With more, the attribute with the fewest values would show a value twice."""
LARGEST_COSINE = 0.3
"""A motion whose velocities have a smaller cosine with the reference's is a clear change."""


def extra_scenes(scene: Scene, count: int, *seed: str) -> list[Scene]:
    """Scenes in which another object moves along the same path on another background.

    The motion and its seed are the reference's. Colour, surface, shape and background differ between all
    scenes and from the reference. What no caption names (place, size, shade, tilt, background texture,
    distractors, light) is drawn anew. A larger `count` appends scenes and changes none.

    Args:
        scene: of one object.
        count: from 0 to `MOST_EXTRA_REFERENCES`.
        seed: what the draws depend on.
    """
    motion = scene.attributes["motion"]
    shown = {name: [value] for name, value in scene.attributes.items() if name in grammar.ATTRIBUTES}
    scenes = []
    for index in range(count):
        # The seed has its first release's word; see `scenes.SEED_WORDS`.
        rng = seeded("companion", *seed, index)
        # Draw until the motion is visible and pretraining may show the combination.
        while True:
            appearance = {
                name: str(rng.choice([value for value in values if value not in shown[name]]))
                for name, values in grammar.ATTRIBUTES.items()
            }
            visible = grammar.is_visible(appearance["shape"], motion)
            if visible and not grammar.is_held_out(**appearance):
                break
        # The path depends on the motion's seed alone, so that all scenes share it.
        thing = replace(draw_thing(rng, appearance, motion), motion_seed=scene.things[0].motion_seed)
        moved = replace(scene, things=(thing,), nuisances=draw_nuisances(rng))
        scenes.append(edited(moved, {"background": appearance["background"]}))
        for name, value in appearance.items():
            shown[name].append(value)
    return scenes


def velocity_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine between two sequences of velocities, (F - 1, 2) each; 0 where one is all zero."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / norm if norm > 0 else 0.0


def other_motions(scene: Scene, frames: int = 16) -> Iterator[str]:
    """Yield the captioned motions of objects that clearly differ from the scene's and are visible on it."""
    first, velocity = scene.things[0], scene.truth(frames).velocity
    for motion in grammar.OBJECT_PHRASES:
        cosine = velocity_cosine(edited(scene, {"motion": motion}).truth(frames).velocity, velocity)
        visible = grammar.is_visible(first.shape, motion)
        if motion != first.motion and cosine < LARGEST_COSINE and visible:
            yield motion


def motion_edit(scene: Scene, *seed: str) -> Edit:
    """The edit that names another motion and keeps the appearance; the motion depends on `seed` alone."""
    motion = str(seeded("motion edit", *seed).choice(list(other_motions(scene))))
    target = edited(scene, {"motion": motion})
    return Edit("motion", target.caption, target.attributes)
