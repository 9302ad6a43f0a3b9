"""Which of the attributes that the edit replaces does the sample still show? (bundled world)

The score is of one sample. How much of it comes from tuning is the difference to the base model's sample of
the same edit and seed, which tables take.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, Predictions, VideoMetric, needed


def replaced_attributes(
    predictions: Predictions, reference: Mapping[str, str], target: Mapping[str, str]
) -> dict[str, Measurement]:
    """Return the share of the replaced attributes that a sample still shows as the reference has them.

    Args:
        predictions: of the sample.
        reference: {attribute: the reference's value}.
        target: {attribute: the edit's value}; an attribute that it lacks is not replaced.

    Returns:
        `replaced_attributes` in 0..1, where an abstention counts as not shown, and
        `replaced_attributes_abstained` in 0..1; both abstain where the edit replaces nothing.
    """
    replaced = [name for name in ATTRIBUTES if target.get(name, reference[name]) != reference[name]]
    if not replaced:
        nothing = Measurement(ABSTAINED, "the edit replaces no attribute")
        return {"replaced_attributes": nothing, "replaced_attributes_abstained": nothing}
    labels = [predictions.labels[name] for name in replaced]
    # None equals no value, so an abstention counts as not shown.
    shown = np.mean([label == reference[name] for name, label in zip(replaced, labels, strict=True)])
    return {
        "replaced_attributes": Measurement(float(shown)),
        "replaced_attributes_abstained": Measurement(float(np.mean([label is None for label in labels]))),
    }


class ReplacedAttributes(VideoMetric):
    """`replaced_attributes` of the bundled world's edits."""

    version = 1
    needs = ("classifier", "reference_truth", "edit_truth")
    values: ClassVar = {
        "replaced_attributes": False,
        "replaced_attributes_abstained": None,
    }
    order = 80
    summary: ClassVar = {"replaced_attributes": "edited-attribute leakage"}
    columns: ClassVar = {
        "replaced": {"label": "edited-attribute leakage ↓", "metric": "replaced_attributes", "minus": "base"}
    }

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against the appearance of its reference's scene."""
        predictions = needed(inputs.predictions, "replaced_attributes", "classifier")
        return replaced_attributes(predictions, inputs.scene.attributes, inputs.target)
