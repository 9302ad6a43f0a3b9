import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.metrics.base import Predictions
from motionexp.metrics.replaced_attributes import ReplacedAttributes, replaced_attributes
from tests.metrics.conftest import CHANGES, make_scene

REFERENCE = {"colour": "red", "surface": "plain", "shape": "circle", "background": "grass"}


@pytest.mark.parametrize(
    ("labels", "shown", "abstained"),
    [
        (("red", "plain", "star", "grass"), 1.0, 0.0),
        (("blue", None, "circle", "grass"), 0.0, 0.5),
        ((None, "plain", None, None), 0.5, 0.5),
    ],
)
def test_only_what_the_edit_replaces_can_leak_and_an_abstention_is_not_shown(labels, shown, abstained):
    target = REFERENCE | {"colour": "blue", "surface": "checked"}
    predictions = Predictions(dict(zip(REFERENCE, labels, strict=True)), {})
    measured = replaced_attributes(predictions, REFERENCE, target)
    assert measured["replaced_attributes"].value == shown
    assert measured["replaced_attributes_abstained"].value == abstained


def test_an_edit_that_replaces_nothing_abstains():
    for measured in replaced_attributes(Predictions(REFERENCE, {}), REFERENCE, {"colour": "red"}).values():
        assert np.isnan(measured.value)
        assert "replaces no attribute" in measured.reason


def test_the_metric_takes_the_reference_s_looks_from_its_scene(inputs):
    for labels, share in ((make_scene("wander").attributes, 1), (CHANGES, 0)):
        measured = ReplacedAttributes().measure(inputs(predictions=Predictions(labels, {})))
        assert measured["replaced_attributes"].value == share
    with pytest.raises(InputError, match=r"replaced_attributes .*classifier"):
        ReplacedAttributes().measure(inputs())
