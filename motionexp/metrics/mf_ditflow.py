"""Motion fidelity as DiTFlow's code computes it, for comparison with published numbers."""

from typing import ClassVar

import numpy as np

from motionexp.errors import InputError
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, Tracks, VideoMetric, needed
from motionexp.metrics.track_similarity import chance


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
    # The identity has one row a sample track and one column a reference track.
    count, reference_count = sample.position.shape[1], reference.position.shape[1]
    if count != reference_count:
        raise InputError(
            f"mf_ditflow subtracts the identity, so it needs as many tracks of both videos, not {count} and"
            f" {reference_count}: bring the videos to one size first"
        )
    shortest = min(len(sample.position), len(reference.position)) - 1
    # 1. Steps of length 1: (N, T, 2).
    ours, theirs = sample.steps[:, :shortest], reference.steps[:, :shortest]
    if not (ours.any(-1).all() and theirs.any(-1).all()):
        return Measurement(ABSTAINED, "a track stands exactly still in one step: the peers' code gives NaN")
    ours, theirs = (steps / np.linalg.norm(steps, axis=-1, keepdims=True) for steps in (ours, theirs))
    # 2. Mean cosine of every pair of tracks, (N, N), without tracks of one place; the best of every row.
    similarity = ours.reshape(count, -1) @ theirs.reshape(count, -1).T / shortest - np.eye(count)
    return Measurement(float(similarity.max(1).mean()))


class DitflowFidelity(VideoMetric):
    """`mf_ditflow` of sample and reference, and its level of chance."""

    version = 1
    needs = ("tracks",)
    values: ClassVar = {"mf_ditflow": True, "mf_ditflow_chance": None}
    order = 120
    summary: ClassVar = {
        "mf_ditflow": "DiTFlow's fidelity",
        "mf_ditflow_chance": "DiTFlow's fidelity by chance",
    }
    columns: ClassVar = {
        "ditflow": {"label": "DiTFlow's fidelity ↑", "metric": "mf_ditflow", "optional": True},
        "ditflow_chance": {
            "label": "chance level of DiTFlow's fidelity",
            "metric": "mf_ditflow_chance",
            "optional": True,
        },
    }

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its reference, and against others."""
        sample = needed(inputs.tracks, "mf_ditflow", "tracks")
        reference = needed(inputs.reference_tracks, "mf_ditflow", "tracks")
        return {
            "mf_ditflow": mf_ditflow(sample, reference),
            "mf_ditflow_chance": chance(mf_ditflow, sample, inputs.chance_tracks),
        }
