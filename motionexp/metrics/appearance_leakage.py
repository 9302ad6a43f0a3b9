"""Does CLIP see the reference's caption in the sample where the edit asked for something else?

The score is of one sample. How much of it comes from tuning is the difference to the base model's sample of
the same edit and seed.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import Measurement, MetricInput, VideoMetric, needed


def appearance_leakage(frames: Tensor, reference_caption: Tensor, edit_caption: Tensor) -> np.ndarray:
    """Return each frame's cosine with the reference's caption minus its cosine with the edit's.

    A video's score is the mean.

    Args:
        frames: (F, D), rows of unit length.
        reference_caption: (D,), of unit length.
        edit_caption: (D,), of unit length.

    Returns:
        (F,) in [-2, 2]; higher is nearer to the reference's appearance.
    """
    # Double precision: the difference of two cosines is much smaller than either. (F, D) @ (D,)
    return (frames.double() @ (reference_caption.double() - edit_caption.double())).numpy()


class AppearanceLeakage(VideoMetric):
    """Mean over frames of `appearance_leakage`."""

    version = 1
    needs = ("clip", "caption", "reference_caption")
    values: ClassVar = {"appearance_leakage": False}
    order = 100
    summary: ClassVar = {"appearance_leakage": "CLIP leakage"}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample between its reference's caption and its edit's."""
        frames = needed(inputs.features.clip, "appearance_leakage", "clip")
        reference = needed(inputs.reference_caption.clip, "appearance_leakage", "clip")
        edit = needed(inputs.caption.clip, "appearance_leakage", "clip")
        series = appearance_leakage(frames, reference, edit)
        return {"appearance_leakage": Measurement(float(series.mean()), series=series)}
