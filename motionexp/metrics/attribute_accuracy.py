"""Does the classifier read the attributes that the edit asks for? (bundled world)"""

from typing import ClassVar

import numpy as np

from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.metrics.attribute_classifier import agreement
from motionexp.metrics.base import Measurement, MetricInput, VideoMetric, needed


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
    summary: ClassVar = {"attribute_accuracy": "edit accuracy"}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample; an abstention of the classifier counts as 0 and its reason says so."""
        predictions = needed(inputs.predictions, "attribute_accuracy", "classifier")
        measured = {name: agreement(predictions.labels[name], inputs.target[name]) for name in ATTRIBUTES}
        # The mean is of the edit's four attributes; those that the edit leaves as they are count too.
        mean = Measurement(float(np.mean([measurement.value for measurement in measured.values()])))
        return {"attribute_accuracy": mean} | {
            f"attribute_accuracy_{name}": measurement for name, measurement in measured.items()
        }
