"""The bundled world's references with edits of their motion words alone: looks kept, another motion named."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import FRAMES, SIZE
from motionexp.data.shapes.scenes import Scene, edited, seeded
from motionexp.data.shapes.splits import ShapesReferences

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


class MotionEdits(ShapesReferences):
    """`ShapesReferences` with one edit each, of kind `motion`: another motion named, every look kept.

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference; which motion its edit names depends on its name alone."""
        reference = super().read(name, frames, height, width)
        assert isinstance(reference.truth, Scene)
        motions = list(other_motions(reference.truth))
        motion = str(seeded("motion edit", self.split, name).choice(motions))
        target = edited(reference.truth, {"motion": motion})
        return replace(reference, edits=(Edit("motion", target.caption, target.attributes),))
