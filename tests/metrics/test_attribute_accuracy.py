from motionexp.metrics.attribute_accuracy import AttributeAccuracy
from motionexp.metrics.base import Predictions


def test_accuracy_counts_an_abstention_as_not_found_and_says_so(inputs):
    right = inputs().target
    labels = dict(right) | {"shape": None, "surface": "plain" if right["surface"] != "plain" else "striped"}
    shown = inputs(predictions=Predictions(labels, dict.fromkeys(labels, 1.0)))
    measured = AttributeAccuracy().measure(shown)
    assert measured["attribute_accuracy"].value == 0.5
    assert measured["attribute_accuracy_colour"].value == 1
    assert measured["attribute_accuracy_shape"].value == 0
    assert measured["attribute_accuracy_shape"].reason == "the classifier abstained"
    assert set(measured) == set(AttributeAccuracy.values)
