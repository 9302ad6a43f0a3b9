"""Energies of clips without ground truth: what replaces pairs of videos that differ in one factor alone.

Two clips differ in everything. The difference of their latents is split in two: of the means over time, and
of what remains. Motion changes the second part alone. The first part stands for appearance. The two energies
add up to the squared distance of the latents.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

Pair = tuple[int, int]


def split_energy(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """(motion, appearance) energies of two clips from their latents, (C, F, h, w) both."""
    difference = first.astype(np.float64) - second
    mean = difference.mean(1, keepdims=True)
    # The mean stands in each of F frames.
    return float(np.square(difference - mean).sum()), float(np.square(mean).sum() * difference.shape[1])


def clip_energies(
    latents: Sequence[np.ndarray], captions: Sequence[str]
) -> Iterator[tuple[Pair, Mapping[str, float]]]:
    """Yield ((i, j), {motion, appearance: energy}) of each pair of clips whose captions differ.

    Clips of one caption show the same, as far as a network that reads captions is concerned.

    Args:
        latents: (C, F, h, w) of each clip.
        captions: one of each clip.
    """
    for first, second in combinations(range(len(latents)), 2):
        if captions[first] != captions[second]:
            motion, appearance = split_energy(latents[first], latents[second])
            yield (first, second), {"motion": motion, "appearance": appearance}
