"""How alike a video's frames are to CLIP, under both pairings.

A frozen video scores 100, so a score of motion has to stand beside it.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric, needed


def frame_consistency_pairs(frames: Tensor) -> np.ndarray:
    """Return 100 x each frame's mean cosine with all other frames; a video's score is their mean.

    TGVE's convention (`clip_score_frame` of its evaluation script): all ordered pairs of different frames.
    It falls as clips get longer, so scores of clips of different lengths do not compare.

    Args:
        frames: (F, D), rows of unit length, F >= 2.

    Returns:
        (F,) in [-100, 100].
    """
    vectors = frames.double()
    # The sum over all frames, less the cosine of a frame with itself: F x F cosines at the cost of F.
    total = vectors @ vectors.sum(0) - (vectors * vectors).sum(1)
    return (100 * total / (len(frames) - 1)).numpy()


def frame_consistency_consecutive(frames: Tensor) -> np.ndarray:
    """Return 100 x the cosine of each frame and the next; a video's score is their mean.

    The convention of most papers, the two on timesteps among them.

    Args:
        frames: (F, D), rows of unit length, F >= 2.

    Returns:
        (F - 1,) in [-100, 100].
    """
    vectors = frames.double()
    return (100 * (vectors[:-1] * vectors[1:]).sum(1)).numpy()


class FrameConsistency(VideoMetric):
    """Mean of `frame_consistency_pairs` and of `frame_consistency_consecutive`, each under its name."""

    version = 1
    needs = ("clip",)
    values: ClassVar = {
        "frame_consistency_pairs": True,
        "frame_consistency_consecutive": True,
    }
    order = 20
    summary: ClassVar = {
        "frame_consistency_consecutive": "frame consistency",
        "frame_consistency_pairs": "frame consistency",
    }
    columns: ClassVar = {"consistency": {"label": "consistency ↑", "metric": "frame_consistency_consecutive"}}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample; abstains on a single frame."""
        frames = needed(inputs.features.clip, "frame_consistency", "clip")
        if len(frames) < 2:
            return dict.fromkeys(self.values, Measurement(ABSTAINED, "a single frame has no pairs"))
        pairs, consecutive = frame_consistency_pairs(frames), frame_consistency_consecutive(frames)
        return {
            "frame_consistency_pairs": Measurement(float(pairs.mean()), series=pairs),
            "frame_consistency_consecutive": Measurement(float(consecutive.mean()), series=consecutive),
        }
