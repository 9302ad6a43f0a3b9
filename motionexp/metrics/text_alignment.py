"""Do the frames show what the caption says? CLIP's logit, as the TGVE benchmark reports it."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.base import Measurement, MetricInput, VideoMetric, needed


def text_alignment(frames: Tensor, caption: Tensor, scale: float) -> np.ndarray:
    """Return exp(logit scale) x cosine of each frame and the caption; a video's score is their mean.

    TGVE's convention (`clip_score_text` of its evaluation script): about 100 x cosine with OpenAI's
    weights, not clamped at 0, without prefix. TGVE looks through OpenAI's ViT-L/14 (`ViT-L-14/openai`);
    scores through different CLIPs do not compare.

    Args:
        frames: (F, D), rows of unit length.
        caption: (D,), of unit length.
        scale: exp(logit scale), read from the model.

    Returns:
        (F,) in [-scale, scale].
    """
    return (scale * (frames.double() @ caption.double())).numpy()


class TextAlignment(VideoMetric):
    """Mean over frames of `text_alignment` with the edit's caption."""

    version = 1
    needs = ("clip", "caption")
    values: ClassVar = {"text_alignment": True}
    used_by = ("jobs", "probes")
    order = 10
    summary: ClassVar = {"text_alignment": "text alignment"}
    columns: ClassVar = {"text": {"label": "text alignment ↑", "metric": "text_alignment"}}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its edit's caption."""
        frames = needed(inputs.features.clip, "text_alignment", "clip")
        caption = needed(inputs.caption.clip, "text_alignment", "clip")
        series = text_alignment(frames, caption, inputs.caption.clip_scale)
        return {"text_alignment": Measurement(float(series.mean()), series=series)}
