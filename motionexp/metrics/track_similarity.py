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
    if len(sample.position) != len(reference.position):
        raise InputError(
            f"motion_fidelity compares videos of one length, not of {len(sample.position)} and"
            f" {len(reference.position)} frames: bring them to one length first"
        )
    # 1. Tracks that are seen for long enough: N of the sample, M of the reference.
    usable = [tracks.seen_steps.mean(1) >= SHARED for tracks in (sample, reference)]
    if min(mask.mean() for mask in usable) < FLOOR:
        return Measurement(ABSTAINED, f"under {FLOOR:.0%} of the points can be followed for half of a video")
    (steps, seen), (other_steps, other_seen) = (
        (tracks.steps[mask], tracks.seen_steps[mask])
        for tracks, mask in zip((sample, reference), usable, strict=True)
    )
    # 2. Those of them that move.
    moves = _moves(steps, seen, sample.still), _moves(other_steps, other_seen, reference.still)
    if not (moves[0].any() or moves[1].any()):
        return Measurement(1.0, STATIC)
    # 3. The best match of every moving track, (N, M) from the sample and (M, N) from the reference.
    similarity = track_similarity(steps, seen, other_steps, other_seen)
    directions = [
        float(matrix[moving].max(1).mean()) if moving.any() else 0.0
        for matrix, moving in ((similarity, moves[0]), (similarity.T, moves[1]))
    ]
    return Measurement(float(np.mean(directions)))


def track_similarity(
    steps: np.ndarray, seen: np.ndarray, other_steps: np.ndarray, other_seen: np.ndarray
) -> np.ndarray:
    """Return the similarity of each of N tracks with each of M; see `motion_fidelity`.

    Args:
        steps: (N, T, 2) pixels. seen: (N, T) bool.
        other_steps: (M, T, 2) pixels. other_seen: (M, T) bool.

    Returns:
        (N, M) in [-1, 1]: 0 for pairs that share too few steps, 1 for pairs that both stand still.
    """
    # Unseen steps become 0, so that products over all steps sum over the shared ones. (N, T, 2), (M, T, 2)
    u, v = steps * seen[..., None], other_steps * other_seen[..., None]
    w, z = seen.astype(float), other_seen.astype(float)
    dot = u.reshape(len(u), -1) @ v.reshape(len(v), -1).T
    # |u|^2 counts only where v is seen, and |v|^2 only where u is seen: (N, M).
    energy = (u**2).sum(-1) @ z.T + w @ (v**2).sum(-1).T
    similarity = np.divide(2 * dot, energy, out=np.ones_like(dot), where=energy > 0)
    return np.where(w @ z.T >= SHARED * steps.shape[1], np.clip(similarity, -1, 1), 0.0)


def chance(
    score: Callable[[Tracks, Tracks], Measurement], sample: Tracks, chance_tracks: Sequence[Tracks]
) -> Measurement:
    """Return the mean score of a sample against other references than its own: references shuffled.

    Args:
        score: of two videos' tracks.
        sample: of the generated video.
        chance_tracks: of other references, as long as the sample.
    """
    if not chance_tracks:
        return Measurement(ABSTAINED, f"no other reference of {len(sample.position)} frames")
    scores = [score(sample, tracks) for tracks in chance_tracks]
    # A score that abstains on one reference must not silence the others.
    values = [measured.value for measured in scores if not np.isnan(measured.value)]
    return Measurement(float(np.mean(values))) if values else Measurement(ABSTAINED, scores[0].reason)


def _moves(steps: np.ndarray, seen: np.ndarray, still: float) -> np.ndarray:
    """(N,) whether the root mean square of a track's seen steps is at least `still`."""
    energy = ((steps**2).sum(-1) * seen).sum(1)
    # A track that is never seen has energy 0 and is no moving one.
    return energy >= still**2 * np.maximum(seen.sum(1), 1)
