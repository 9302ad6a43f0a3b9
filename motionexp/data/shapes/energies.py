"""Energies of the bundled world's factors, and the noise at which an ideal observer detects each.

An ideal observer separates two noisy videos that differ by D with d' = sqrt(SNR) |D|. It reaches d' = 2 (84%
right) at SNR = 4 / |D|^2. So a factor's energy |D|^2 predicts the log-SNR at which the factor is set, and
with a schedule the timestep.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import FRAMES, render
from motionexp.data.shapes.scenes import Scene, draw, draw_nuisances, edited, seeded

FACTORS = (*grammar.ATTRIBUTES, "motion", "nuisances")
KINDS = tuple(product(grammar.CONTRASTS, FACTORS))
"""(contrast, factor) of every energy."""
PAIRS = 32
"""Pairs of videos of an energy."""


@dataclass(frozen=True)
class Energy:
    """One factor's median energy over ``pairs`` pairs of videos that differ in this factor alone."""

    contrast: str
    factor: str
    energy: float
    pairs: int

    @property
    def log_snr(self) -> float:
        """Natural logarithm of 4 / energy."""
        return float(np.log(4 / self.energy))


def pairs(contrast: str, factor: str, count: int, chroma: float = 1.0) -> Iterator[tuple[Scene, Scene]]:
    """Yield ``count`` pairs of scenes of one contrast and chroma that differ in ``factor`` alone."""
    for index in range(count):
        rng = seeded("energies", contrast, factor, index)
        scene = replace(draw(rng, contrast=contrast, choices=grammar.CAPTIONED), chroma=chroma)
        if factor == "nuisances":
            yield scene, replace(scene, nuisances=draw_nuisances(rng))
            continue
        # Captioned motions alone: a probe can change no other.
        values = grammar.CAPTIONED if factor == "motion" else grammar.ATTRIBUTES[factor]
        changed = [value for value in values if value != scene.attributes[factor]]
        yield scene, edited(scene, {factor: str(rng.choice(changed))})


def in_pixels(frames: np.ndarray) -> np.ndarray:
    """Return uint8 frames as floats in [-1, 1]."""
    return frames.astype(np.float64) / 127.5 - 1


def energy_of(
    contrast: str,
    factor: str,
    encode: Callable[[np.ndarray], np.ndarray] = in_pixels,
    count: int = PAIRS,
    frames: int = FRAMES,
    chroma: float = 1.0,
) -> Energy:
    """Measure the energy of a factor in a contrast.

    Args:
        contrast: of the scenes.
        factor: one of `FACTORS`.
        encode: maps frames (F, 64, 64, 3) uint8 to the values that get the noise (pixels or latents).
        count: pairs.
        frames: F. The video of an odd F begins with that of F - 1.
        chroma: factor of the objects' colour contrast.
    """

    # 17 frames begin with the 16 in which the motion runs its course.
    def encoded(scene: Scene) -> np.ndarray:
        return encode(render(scene, frames, period=frames - frames % 2))

    scenes = pairs(contrast, factor, count, chroma)
    values = [np.square(encoded(first) - encoded(second)).sum() for first, second in scenes]
    # The median, on which a few extreme pairs have no influence.
    return Energy(contrast, factor, float(np.median(values)), count)
