"""Edits of the motion's words alone: the looks kept, another motion named."""

from collections.abc import Iterator

import numpy as np

from motionexp.data.base import Edit
from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene, edited, seeded

MOST_ALIKE = 0.3
"""Cosine of the velocities below which another motion is a clear change."""


def other_motions(scene: Scene, frames: int = 16) -> Iterator[str]:
    """Yield the nameable motions of objects that are clearly other than the scene's and can be seen on it."""
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
