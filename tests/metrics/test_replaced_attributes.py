import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.metrics.base import Predictions
from motionexp.metrics.replaced_attributes import ReplacedAttributes, replaced_attributes
from tests.metrics.conftest import CHANGES, make_scene

REFERENCE = {"colour": "red", "surface": "plain", "shape": "circle", "background": "grass"}


def seen(**labels):
    return Predictions(labels, dict.fromkeys(labels, 1.0))


@pytest.mark.parametrize(
    ("labels", "shown", "abstained"),
    [
        ({"colour": "red", "surface": "plain", "shape": "star", "background": "grass"}, 1.0, 0.0),
        ({"colour": "red", "surface": "checked", "shape": "star", "background": "grass"}, 0.5, 0.0),
        ({"colour": "blue", "surface": None, "shape": "circle", "background": "grass"}, 0.0, 0.5),
        ({"colour": None, "surface": "plain", "shape": None, "background": None}, 0.5, 0.5),
    ],
)
def test_only_what_the_edit_replaces_can_leak_and_an_abstention_is_not_shown(labels, shown, abstained):
    target = REFERENCE | {"colour": "blue", "surface": "checked"}
    found = replaced_attributes(seen(**labels), REFERENCE, target)
    assert found["replaced_attributes"].value == shown
    assert found["replaced_attributes_abstained"].value == abstained


def test_an_edit_that_replaces_nothing_abstains():
    for measured in replaced_attributes(seen(**REFERENCE), REFERENCE, {"colour": "red"}).values():
        assert np.isnan(measured.value)
        assert "replaces no attribute" in measured.reason


def test_the_metric_takes_the_reference_s_looks_from_its_scene(inputs):
    scene = make_scene("wander")
    leaked = seen(**{name: value for name, value in scene.attributes.items()})
    assert ReplacedAttributes().measure(inputs(predictions=leaked))["replaced_attributes"].value == 1
    right = seen(**CHANGES)
    assert ReplacedAttributes().measure(inputs(predictions=right))["replaced_attributes"].value == 0
    with pytest.raises(InputError, match="needs the classifier"):
        ReplacedAttributes().measure(inputs())
