"""Would people prefer this for the caption? PickScore's score of each frame, before any softmax."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import Measurement, MetricInput, VideoMetric, needed


def pick_score(frames: Tensor, caption: Tensor, scale: float) -> np.ndarray:
    """Return exp(logit scale) x cosine of each frame and the caption, in the scorer's space.

    PickScore turns such scores into preferences by a softmax over the images of one caption; over one image
    that is always 1, so TGVE and we report the score itself, its mean over frames.

    Args:
        frames: (F, E), rows of unit length.
        caption: (E,), of unit length.
        scale: exp(logit scale), read from the model.

    Returns:
        (F,) in [-scale, scale].
    """
    return (scale * (frames.double() @ caption.double())).numpy()


class PickScore(VideoMetric):
    """Mean over frames of `pick_score` with the edit's caption."""

    version = 1
    needs = ("preference", "caption")
    values: ClassVar = {"pick_score": True}
    order = 30
    summary: ClassVar = {"pick_score": "pick score"}
    columns: ClassVar = {"pick": {"label": "pick score ↑", "metric": "pick_score"}}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its edit's caption."""
        frames = needed(inputs.features.preference, "pick_score", "preference")
        caption = needed(inputs.caption.preference, "pick_score", "preference")
        # The scale is the preference model's temperature, not CLIP's.
        series = pick_score(frames, caption, inputs.caption.preference_scale)
        return {"pick_score": Measurement(float(series.mean()), series=series)}
