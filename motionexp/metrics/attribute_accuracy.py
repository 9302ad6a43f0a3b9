"""Does the classifier read the attributes that the edit asks for? (bundled world)"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.metrics.attribute_classifier import agreement
from motionexp.metrics.base import Measurement, MetricInput, Predictions, VideoMetric, needed


def attributes_found(predictions: Predictions, target: Mapping[str, str]) -> dict[str, Measurement]:
    """Return for every attribute of the target whether the classifier finds it.

    Args:
        predictions: of the sample.
        target: {attribute: the value that the edit asks for}.

    Returns:
        {attribute: 1 or 0}; an abstention counts as 0 and its reason says so.
    """
    return {name: agreement(predictions.labels[name], value) for name, value in target.items()}


class AttributeAccuracy(VideoMetric):
    """Which of the edit's attributes the classifier finds in a sample, one by one, and their mean."""

    version = 1
    needs = ("classifier", "reference_truth", "edit_truth")
    values: ClassVar = {
        "attribute_accuracy": True,
        "attribute_accuracy_colour": True,
        "attribute_accuracy_surface": True,
        "attribute_accuracy_shape": True,
        "attribute_accuracy_background": True,
    }
    order = 70
    summary: ClassVar = {"attribute_accuracy": "edit right"}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """See `attributes_found`."""
        predictions = needed(inputs.predictions, "attribute_accuracy", "classifier")
        target = {name: inputs.target[name] for name in ATTRIBUTES}
        measured = attributes_found(predictions, target)
        mean = Measurement(float(np.mean([measurement.value for measurement in measured.values()])))
        return {"attribute_accuracy": mean} | {
            f"attribute_accuracy_{name}": measurement for name, measurement in measured.items()
        }
