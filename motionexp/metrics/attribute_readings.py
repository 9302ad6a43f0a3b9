"""Which attributes of the edit and of the reference does the classifier read? (bundled world, probes)"""

from typing import ClassVar

from motionexp.data.shapes.grammar import ATTRIBUTES, OUT_OF_DISTRIBUTION, UNCAPTIONED
from motionexp.metrics.attribute_classifier import agreement
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric, needed

WITHOUT_WORDS = (*UNCAPTIONED, *OUT_OF_DISTRIBUTION)


class AttributeReadings(VideoMetric):
    """Whether the classifier reads the edit's and the reference's value of each attribute, motion included.

    `new_NAME` is 1 or 0, and abstains where the edit leaves the attribute as it is; `old_NAME` is 1 or 0.
    Both abstain where the value has no name (a wandering path). An abstention of the classifier counts as 0.
    """

    version = 1
    needs = ("classifier", "reference_truth", "edit_truth")
    values: ClassVar = {
        "new_colour": None,
        "old_colour": None,
        "new_surface": None,
        "old_surface": None,
        "new_shape": None,
        "old_shape": None,
        "new_background": None,
        "old_background": None,
        "new_motion": None,
        "old_motion": None,
    }
    used_by = ("probes",)

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its reference's scene and its edit's attributes."""
        predictions = needed(inputs.predictions, "attribute_readings", "classifier")
        measured = {}
        for name in (*ATTRIBUTES, "motion"):
            label, old, new = predictions.labels[name], inputs.scene.attributes[name], inputs.target[name]
            measured[f"old_{name}"] = _reading(label, old)
            # Where old and new agree, one label would count for both.
            measured[f"new_{name}"] = (
                Measurement(ABSTAINED, "the edit leaves it as it is") if new == old else _reading(label, new)
            )
        return measured


def _reading(label: str | None, value: str) -> Measurement:
    if value in WITHOUT_WORDS:
        return Measurement(ABSTAINED, f"{value} has no name that the classifier knows")
    return agreement(label, value)
