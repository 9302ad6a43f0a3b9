"""Energies of the bundled world's factors, and where an ideal observer says that each is set.

Two noisy videos that differ by D are told apart with d' = sqrt(SNR) |D|; d' = 2 (84% right) is reached at
SNR = 4 / |D|^2. So a factor's energy |D|^2 predicts the log-SNR, and by a schedule the timestep, at which it
is set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import FRAMES, render
from motionexp.data.shapes.scenes import Scene, draw, draw_nuisances, edited, seeded

FACTORS = (*grammar.ATTRIBUTES, "motion", "nuisances")


@dataclass(frozen=True)
class Energy:
    """One factor's median energy over pairs that differ in it alone, and where it is told apart."""

    contrast: str
    factor: str
    energy: float
    pairs: int

    @property
    def log_snr(self) -> float:
        """Natural logarithm of 4 / energy."""
        return float(np.log(4 / self.energy))


def _other(scene: Scene, factor: str, rng: np.random.Generator) -> Scene:
    """Return the scene with one factor replaced by another value."""
    if factor == "nuisances":
        return replace(scene, nuisances=draw_nuisances(rng))
    values = grammar.CAPTIONED if factor == "motion" else grammar.ATTRIBUTES[factor]
    others = [value for value in values if value != scene.attributes[factor]]
    return edited(scene, {factor: str(rng.choice(others))})


def pairs(contrast: str, factor: str, count: int) -> Iterator[tuple[Scene, Scene]]:
    """Yield ``count`` pairs of scenes of one contrast that differ in ``factor`` alone."""
    for index in range(count):
        rng = seeded("energies", contrast, factor, index)
        scene = draw(rng, contrast=contrast, choices=grammar.CAPTIONED)
        yield scene, _other(scene, factor, rng)


def in_pixels(frames: np.ndarray) -> np.ndarray:
    """Return uint8 frames as floats in [-1, 1]."""
    return frames.astype(np.float64) / 127.5 - 1


def energies(
    encode: Callable[[np.ndarray], np.ndarray] = in_pixels, count: int = 32, frames: int = FRAMES
) -> list[Energy]:
    """Measure the energy of every factor in both contrasts.

    Args:
        encode: maps frames (F, 64, 64, 3) uint8 to what the noise is added to (pixels or latents).
        count: pairs a factor.
        frames: F; an odd one is the even one's video and a frame more.
    """

    def encoded(scene: Scene) -> np.ndarray:
        return encode(render(scene, frames, period=frames - frames % 2))

    rows = []
    for contrast in grammar.CONTRASTS:
        for factor in FACTORS:
            values = [
                float(np.square(encoded(first) - encoded(second)).sum())
                for first, second in pairs(contrast, factor, count)
            ]
            rows.append(Energy(contrast, factor, float(np.median(values)), count))
    return rows
