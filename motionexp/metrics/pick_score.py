"""Would people prefer this for the caption? PickScore's score of each frame, before any softmax."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import Measurement, Subject, VideoMetric, needed


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
    needs = frozenset({"scorer"})
    values: ClassVar[Mapping[str, bool | None]] = {"pick_score": True}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one sample against its edit's caption."""
        frames = needed(subject.features.scorer, "pick_score", "scorer")
        caption = needed(subject.caption.scorer, "pick_score", "scorer")
        series = pick_score(frames, caption, subject.caption.scorer_scale)
        return {"pick_score": Measurement(float(series.mean()), series=series)}
