"""Does the subject look alike in all frames? VBench's subject consistency, by DINO (if it is named)."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric, needed


def subject_consistency(frames: Tensor) -> np.ndarray:
    """Return of each frame but the first the mean of its cosines with the first and the previous frame.

    A cosine below 0 counts as 0 (`vbench/subject_consistency.py`, 03c285a, read on 2026-11-30). VBench's
    score of a video is the mean over these frames. A frozen video has 1.

    Args:
        frames: (F, D), rows of unit length, F >= 2.

    Returns:
        (F - 1,) in [0, 1].
    """
    vectors = frames.double()
    to_previous = (vectors[1:] * vectors[:-1]).sum(1).clamp(min=0)
    to_first = (vectors[1:] @ vectors[0]).clamp(min=0)
    return ((to_previous + to_first) / 2).numpy()


class SubjectConsistency(VideoMetric):
    """Mean over frames of `subject_consistency`."""

    version = 1
    needs = ("dino",)
    only_named = True
    values: ClassVar = {"subject_consistency": True}
    summary: ClassVar = {"subject_consistency": "subject consistency"}
    columns: ClassVar = {
        "subject": {"label": "subject consistency ↑", "metric": "subject_consistency", "optional": True}
    }

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample; abstains on a single frame."""
        frames = needed(inputs.features.dino, "subject_consistency", "dino")
        if len(frames) < 2:
            return {
                "subject_consistency": Measurement(ABSTAINED, "one frame has no other to be compared with")
            }
        series = subject_consistency(frames)
        return {"subject_consistency": Measurement(float(series.mean()), series=series)}
