"""Does the sample keep of the reference what no caption says?

A sample is compared with renders of the scene that the edit describes: once with the reference's own
nuisances, as if all of them had leaked, and with those of other references, which is the level of chance. A
sample may show the reference's appearance too, so every render is made with the edit's appearance and with
the reference's, and the nearer one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np

from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import Scene, edited
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric
from motionexp.metrics.foreground import foreground

VALUES = {
    "background": ("nuisance_similarity", "nuisance_chance"),
    "light": ("nuisance_light", "nuisance_light_chance"),
    "size": ("nuisance_size", "nuisance_size_chance"),
    "shade": ("nuisance_shade", "nuisance_shade_chance"),
}
"""{nuisance: (name of the similarity to the reference's, name of the level of chance)}."""


@dataclass(frozen=True)
class ObjectNuisances:
    """What is uncaptioned about an object.

    Attributes:
        light: (2,) gradient of the luminance over one radius, x and y, in [-1, 1] units.
        size: logarithm of the square root of area over pi, pixels.
        shade: luminance at its centre, in [-1, 1].
    """

    light: np.ndarray
    size: float
    shade: float


def with_nuisances_of(scene: Scene, other: Scene) -> Scene:
    """Return the scene with the background, distractors, light, object size and shade of the other scene."""
    theirs = other.things[0]
    first = replace(scene.things[0], size=theirs.size, shade=theirs.shade)
    return replace(scene, things=(first, *scene.things[1:]), nuisances=other.nuisances)


def bare_ground(scene: Scene, frames: int) -> np.ndarray:
    """Render the scene without its objects: (F, 64, 64, 3) uint8, F = 1 for a camera at rest."""
    truth = scene.truth(frames)
    at_rest = not (np.ptp(truth.pan) or np.ptp(truth.zoom))
    # Far outside the frame; a scene needs one object.
    away = replace(scene.things[0], centre=(-1e4, -1e4))
    return render(replace(scene, things=(away,)), frames, select=[0] if at_rest else None)


def background_similarity(luminance: np.ndarray, uncovered: np.ndarray, background: np.ndarray) -> float:
    """Return the correlation of a video and a background, where no object covers the background.

    Args:
        luminance: (F, H, W) of the video, in any unit.
        uncovered: (F, H, W) bool, the pixels without objects.
        background: (F, H, W) or (1, H, W), luminance of a background without objects, same camera.

    Returns:
        Pearson's correlation over all uncovered pixels of all frames, in [-1, 1]; 0 where one does not vary.
    """
    first, second = luminance[uncovered], np.broadcast_to(background, luminance.shape)[uncovered]
    first, second = first - first.mean(), second - second.mean()
    # Pearson's correlation of centred vectors; the floor keeps a flat video at 0.
    return float(first @ second / max(np.sqrt((first @ first) * (second @ second)), 1e-6))


def object_nuisances(frames: np.ndarray) -> ObjectNuisances | None:
    """Fit a plane to the object's luminance, mean over frames; None where no frame shows an object."""
    seen = foreground(frames)
    planes, sizes = [], []
    for frame, piece in zip(frames, seen.pieces, strict=True):
        if piece is not None:
            radius = np.sqrt(piece.sum() / np.pi)
            # At the rim the background shines through, more of it where the object is bright.
            inner = cv2.erode(piece.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            ys, xs = np.nonzero(inner)
            # Radii from the centre, and 1 for the plane's height: (N, 3).
            places = np.stack([(xs - xs.mean()) / radius, (ys - ys.mean()) / radius, np.ones(len(xs))], 1)
            planes.append(np.linalg.lstsq(places, frame[inner].mean(-1) / 127.5 - 1, rcond=None)[0])
            sizes.append(np.log(radius))
    if not planes:
        return None
    plane = np.mean(planes, axis=0)
    return ObjectNuisances(plane[:2], float(np.mean(sizes)), float(plane[2]))


def object_similarities(sample: ObjectNuisances, expected: ObjectNuisances) -> dict[str, float]:
    """Return minus the distance of two objects in light (between the gradients), in size and in shade."""
    # Minus, so that higher is more alike, as for every similarity.
    return {
        "light": -float(np.linalg.norm(sample.light - expected.light)),
        "size": -abs(sample.size - expected.size),
        "shade": -abs(sample.shade - expected.shade),
    }


@lru_cache(maxsize=512)
def _expected(scene: Scene, frames: int) -> tuple[np.ndarray, ObjectNuisances | None]:
    """What a video of the scene shows. Kept: all samples of one edit are compared with the same scenes."""
    # Light, size and shade are means over frames: four frames give them as well as all.
    some = np.unique(np.linspace(0, frames - 1, 4).round().astype(int)).tolist()
    background = bare_ground(scene, frames).mean(-1, dtype=np.float32)
    return background, object_nuisances(render(scene, frames, select=some))


def nuisance_similarities(frames: np.ndarray, scenes: Sequence[Scene]) -> list[dict[str, float]]:
    """Compare a video with scenes: one {nuisance: similarity} a scene.

    `background` is a `background_similarity`, the rest are `object_similarities`, if an object is found.

    Args:
        frames: (F, 64, 64, 3) uint8 RGB.
        scenes: what to compare with.
    """
    shown, luminance = object_nuisances(frames), frames.mean(-1, dtype=np.float32)
    # Left out: objects, and the ring around them where object and background are mixed. (F, H, W)
    nothing, square = np.zeros(frames.shape[1:3], bool), np.ones((3, 3), np.uint8)
    pieces = [nothing if piece is None else piece for piece in foreground(frames).pieces]
    uncovered = np.stack([cv2.dilate(piece.astype(np.uint8), square) == 0 for piece in pieces])
    similarities = []
    for scene in scenes:
        background, expected = _expected(scene, len(frames))
        similarities.append({"background": background_similarity(luminance, uncovered, background)})
        # Two objects, or none found: the background alone can be compared.
        if shown is not None and expected is not None:
            similarities[-1] |= object_similarities(shown, expected)
    return similarities


class Nuisances(VideoMetric):
    """Similarity of the sample's nuisances to the reference's, and beside each that to other references'.

    The latter is the level of chance. Tables show the difference: what leaked.
    `nuisance_similarity` is the background's (phase, orientation and distractors, by pixels), a correlation;
    `nuisance_light` and `nuisance_shade` are minus distances in luminance ([-1, 1]), `nuisance_size` in
    logarithms.
    """

    version = 2
    needs = ("reference_truth", "edit_truth")
    values: ClassVar = {
        "nuisance_similarity": False,
        "nuisance_light": False,
        "nuisance_size": False,
        "nuisance_shade": False,
        "nuisance_chance": None,
        "nuisance_light_chance": None,
        "nuisance_size_chance": None,
        "nuisance_shade_chance": None,
    }
    order = 90
    summary: ClassVar = {"nuisance_similarity": "background leakage"}
    columns: ClassVar = {
        "nuisances": {
            "label": "background leakage ↓",
            "metric": "nuisance_similarity",
            "minus": "nuisance_chance",
        }
    }

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its reference's scene and `inputs.chance_scenes`."""
        # 1. Scenes with the reference's and with others' nuisances, in the edit's appearance and in the old.
        owners = (inputs.scene, *inputs.chance_scenes)
        # A sample without leakage shows the reference's scene with the edit's appearance.
        target = {name: value for name, value in inputs.target.items() if name in ATTRIBUTES}
        appearances = (edited(inputs.scene, target), inputs.scene)
        scenes = [with_nuisances_of(scene, owner) for scene in appearances for owner in owners]
        # 2. Of both appearances the nearer one.
        similarities = nuisance_similarities(inputs.frames, scenes)
        half = len(owners)
        nearest = [
            {name: max(value, old[name]) for name, value in new.items() if name in old}
            for new, old in zip(similarities[:half], similarities[half:], strict=True)
        ]
        # 3. The reference's, and the mean of the others': chance.
        of_reference, *of_chance = nearest
        measured = {}
        for nuisance, (name, chance) in VALUES.items():
            level = [similarity[nuisance] for similarity in of_chance if nuisance in similarity]
            measured[name] = measured[chance] = Measurement(ABSTAINED, "no object stands out from the ground")
            if nuisance in of_reference:
                measured[name] = Measurement(of_reference[nuisance])
                measured[chance] = Measurement(ABSTAINED, "no other references were given")
            if level:
                measured[chance] = Measurement(float(np.mean(level)))
        return measured
