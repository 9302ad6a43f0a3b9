"""How alike the tracks of two videos are: what the metrics of whole tracks are made of.

A track takes its best match among all tracks of the other video. So unrelated motion scores above 0, and a
score needs its level of chance beside it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from motionexp.errors import InputError
from motionexp.metrics.base import ABSTAINED, Measurement, Tracks

SHARED = 0.5
"""Least share of the steps in which a track, or both of a pair, must be seen."""
FLOOR = 0.1
"""Least share of the tracks that must be seen for so long, or the score abstains."""
STATIC = "nothing moves in either video: 1 by definition"


def motion_fidelity(sample: Tracks, reference: Tracks) -> Measurement:
    """Return how well the tracks that move in either video are matched by the other video's.

    Two tracks u and v are as similar as 2 sum(u . v) / sum(|u|^2 + |v|^2), over the steps in which both are
    seen: 1 for equal steps, 0 for unrelated ones or where one stands still, less for another speed
    (2k / (1 + k^2) at k times). Each moving track of one video takes its best match among all of the other's;
    the mean over those is one direction, and the score the mean of both. A direction in which nothing moves
    counts as 0; where nothing moves in either video the score is 1.

    Args:
        sample: of the generated video.
        reference: of as many frames.

    Returns:
        Value in [-1, 1]; abstains where too few points can be followed.
    """
    _check_length(sample, reference)
    usable = [each.seen_steps.mean(1) >= SHARED for each in (sample, reference)]
    if min(each.mean() for each in usable) < FLOOR:
        return Measurement(ABSTAINED, f"under {FLOOR:.0%} of the points can be followed for half of a video")
    (steps, seen), (others, others_seen) = (
        (each.steps[keep], each.seen_steps[keep])
        for each, keep in zip((sample, reference), usable, strict=True)
    )
    moves = _moves(steps, seen, sample.still), _moves(others, others_seen, reference.still)
    if not (moves[0].any() or moves[1].any()):
        return Measurement(1.0, STATIC)
    similarity = track_similarity(steps, seen, others, others_seen)
    directions = [
        float(matrix[own].max(1).mean()) if own.any() else 0.0
        for matrix, own in ((similarity, moves[0]), (similarity.T, moves[1]))
    ]
    return Measurement(float(np.mean(directions)))


def track_similarity(
    steps: np.ndarray, seen: np.ndarray, others: np.ndarray, others_seen: np.ndarray
) -> np.ndarray:
    """Return the similarity of each of N tracks with each of M; see `motion_fidelity`.

    Args:
        steps: (N, T, 2) pixels. seen: (N, T) bool.
        others: (M, T, 2) pixels. others_seen: (M, T) bool.

    Returns:
        (N, M) in [-1, 1]: 0 for pairs that share too few steps, 1 for pairs that both stand still.
    """
    u, v = steps * seen[..., None], others * others_seen[..., None]
    w, z = seen.astype(float), others_seen.astype(float)
    dot = u.reshape(len(u), -1) @ v.reshape(len(v), -1).T
    energy = (u**2).sum(-1) @ z.T + w @ (v**2).sum(-1).T
    similarity = np.divide(2 * dot, energy, out=np.ones_like(dot), where=energy > 0)
    return np.where(w @ z.T >= SHARED * steps.shape[1], np.clip(similarity, -1, 1), 0.0)


def chance(
    score: Callable[[Tracks, Tracks], Measurement], sample: Tracks, others: Sequence[Tracks]
) -> Measurement:
    """Return the mean score of a sample against other references than its own: references shuffled.

    Args:
        score: of two videos' tracks.
        sample: of the generated video.
        others: of other references, as long as the sample.
    """
    if not others:
        return Measurement(ABSTAINED, f"no other reference of {len(sample.position)} frames")
    found = [score(sample, each) for each in others]
    values = [each.value for each in found if not np.isnan(each.value)]
    return Measurement(float(np.mean(values))) if values else Measurement(ABSTAINED, found[0].reason)


def _moves(steps: np.ndarray, seen: np.ndarray, still: float) -> np.ndarray:
    """(N,) whether the root mean square of a track's seen steps is at least `still`."""
    energy = ((steps**2).sum(-1) * seen).sum(1)
    return energy >= still**2 * np.maximum(seen.sum(1), 1)


def _check_length(sample: Tracks, reference: Tracks) -> None:
    if len(sample.position) != len(reference.position):
        raise InputError(
            f"motion_fidelity compares videos of one length, not of {len(sample.position)} and"
            f" {len(reference.position)} frames: bring them to one length first"
        )
