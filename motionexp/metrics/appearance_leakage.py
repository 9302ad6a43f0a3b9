"""Does the sample still look like the reference where the edit asked for something else?

Without ground truth through CLIP; in the bundled world by which replaced attributes are still to be seen.
Either says how it is with one sample; how much of it the tuning brought is the difference to the base
model's sample of the same edit and seed, which tables take.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from motionexp.metrics.attributes import LOOKS
from motionexp.metrics.base import ABSTAINED, Measurement, Predictions, Subject, VideoMetric, needed


def appearance_leakage(frames: Tensor, reference_caption: Tensor, edit_caption: Tensor) -> np.ndarray:
    """Return each frame's cosine with the reference's caption less its cosine with the edit's.

    A video's score is the mean.

    Args:
        frames: (F, D), rows of unit length.
        reference_caption: (D,), of unit length.
        edit_caption: (D,), of unit length.

    Returns:
        (F,) in [-2, 2]; higher is nearer to the reference's looks.
    """
    return (frames.double() @ (reference_caption.double() - edit_caption.double())).numpy()


class AppearanceLeakage(VideoMetric):
    """Mean over frames of `appearance_leakage`."""

    version = 1
    needs = frozenset({"clip"})
    values: ClassVar[Mapping[str, bool | None]] = {"appearance_leakage": False}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one sample between its reference's caption and its edit's."""
        frames = needed(subject.features.clip, "appearance_leakage", "clip")
        reference = needed(subject.reference_caption.clip, "appearance_leakage", "clip")
        edit = needed(subject.caption.clip, "appearance_leakage", "clip")
        series = appearance_leakage(frames, reference, edit)
        return {"appearance_leakage": Measurement(float(series.mean()), series=series)}


def replaced_attributes(
    predictions: Predictions, reference: Mapping[str, str], target: Mapping[str, str]
) -> dict[str, Measurement]:
    """Return how many of the attributes that an edit replaces a sample still shows as the reference has them.

    Args:
        predictions: of the sample.
        reference: {look: the reference's value}.
        target: {look: the edit's value}; a look that it lacks is not replaced.

    Returns:
        `replaced_attributes` in 0..1, where an abstention counts as not shown, and
        `replaced_attributes_abstained` in 0..1; both abstain where the edit replaces nothing.
    """
    replaced = [name for name in LOOKS if target.get(name, reference[name]) != reference[name]]
    if not replaced:
        nothing = Measurement(ABSTAINED, "the edit replaces no attribute")
        return {"replaced_attributes": nothing, "replaced_attributes_abstained": nothing}
    labels = [predictions.labels[name] for name in replaced]
    shown = np.mean([label == reference[name] for name, label in zip(replaced, labels, strict=True)])
    return {
        "replaced_attributes": Measurement(float(shown)),
        "replaced_attributes_abstained": Measurement(float(np.mean([label is None for label in labels]))),
    }


class ReplacedAttributes(VideoMetric):
    """`replaced_attributes` of the bundled world's edits."""

    version = 1
    needs = frozenset({"classifier", "truth"})
    values: ClassVar[Mapping[str, bool | None]] = {
        "replaced_attributes": False,
        "replaced_attributes_abstained": None,
    }

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one sample against the looks of its reference's scene."""
        predictions = needed(subject.predictions, "replaced_attributes", "classifier")
        return replaced_attributes(predictions, subject.scene.attributes, subject.target)
