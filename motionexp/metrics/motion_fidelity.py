"""Do the sample's points move as the reference's do, wherever they are? Two scores of whole tracks.

`mf_ditflow` is the peers' score as their code computes it, for comparison with their numbers.
`motion_fidelity` is ours, without that score's faults. Both look for the best match among all tracks, so that
unrelated motion scores above 0: each has its level of chance beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from motionexp.errors import InputError
from motionexp.metrics.base import ABSTAINED, Measurement, Subject, Tracks, VideoMetric, needed

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


def mf_ditflow(sample: Tracks, reference: Tracks) -> Measurement:
    """Return motion fidelity as DiTFlow's code computes it (`eval/motion_fidelity_score.py`, 4db379b).

    Every step of every track is divided by its own length, seen or not; the similarity of two tracks is the
    mean dot product over the steps of the shorter clip. The identity is subtracted from the matrix of sample
    by reference; the score is the mean over the sample's tracks of the largest entry in their row. So tracks
    of one place in the grid are kept from matching, speed is ignored, and one step of length 0 makes all of
    it undefined: the measurement then abstains.

    Args:
        sample: N tracks of the generated video.
        reference: N tracks.

    Raises:
        InputError: different numbers of tracks.
    """
    count, others = sample.position.shape[1], reference.position.shape[1]
    if count != others:
        raise InputError(
            f"mf_ditflow subtracts the identity, so it needs as many tracks of both videos, not {count} and"
            f" {others}: bring the videos to one size first"
        )
    shortest = min(len(sample.position), len(reference.position)) - 1
    steps, wanted = sample.steps[:, :shortest], reference.steps[:, :shortest]
    if not (steps.any(-1).all() and wanted.any(-1).all()):
        return Measurement(ABSTAINED, "a track stands exactly still in one step: the peers' code gives NaN")
    steps, wanted = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (steps, wanted))
    similarity = steps.reshape(count, -1) @ wanted.reshape(count, -1).T / shortest - np.eye(count)
    return Measurement(float(similarity.max(1).mean()))


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


class MotionFidelity(VideoMetric):
    """`motion_fidelity` of sample and reference, its level of chance, and the share of usable tracks."""

    version = 1
    needs = frozenset({"tracks"})
    values: ClassVar[Mapping[str, bool | None]] = {
        "motion_fidelity": True,
        "motion_fidelity_chance": None,
        "track_coverage": None,
    }

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one sample against its reference, and against others."""
        sample = needed(subject.tracks, "motion_fidelity", "tracks")
        reference = needed(subject.reference_tracks, "motion_fidelity", "tracks")
        shares = [float((each.seen_steps.mean(1) >= SHARED).mean()) for each in (sample, reference)]
        return {
            "motion_fidelity": motion_fidelity(sample, reference),
            "motion_fidelity_chance": chance(motion_fidelity, sample, subject.other_tracks),
            "track_coverage": Measurement(min(shares)),
        }


class DitflowFidelity(VideoMetric):
    """`mf_ditflow` of sample and reference, and its level of chance."""

    version = 1
    needs = frozenset({"tracks"})
    values: ClassVar[Mapping[str, bool | None]] = {"mf_ditflow": True, "mf_ditflow_chance": None}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one sample against its reference, and against others."""
        sample = needed(subject.tracks, "mf_ditflow", "tracks")
        reference = needed(subject.reference_tracks, "mf_ditflow", "tracks")
        return {
            "mf_ditflow": mf_ditflow(sample, reference),
            "mf_ditflow_chance": chance(mf_ditflow, sample, subject.other_tracks),
        }


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
