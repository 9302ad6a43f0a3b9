from motionexp.metrics.attribute_accuracy import AttributeAccuracy, attributes_found
from motionexp.metrics.base import Predictions


def test_accuracy_counts_an_abstention_as_not_found_and_says_so(inputs):
    right = inputs().target
    labels = dict(right) | {"shape": None, "surface": "plain" if right["surface"] != "plain" else "striped"}
    shown = inputs(predictions=Predictions(labels, dict.fromkeys(labels, 1.0)))
    found = AttributeAccuracy().measure(shown)
    assert found["attribute_accuracy"].value == 0.5
    assert found["attribute_accuracy_colour"].value == 1
    assert found["attribute_accuracy_shape"].value == 0
    assert found["attribute_accuracy_shape"].reason == "the classifier abstained"
    assert set(found) == set(AttributeAccuracy.values)
    everything = attributes_found(Predictions(right, {}), right)
    assert all(each.value == 1 for each in everything.values())
