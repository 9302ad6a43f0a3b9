import numpy as np
import pytest

from motionexp.metrics.attribute_readings import AttributeReadings
from motionexp.metrics.base import Predictions


@pytest.mark.parametrize("shown", ["old", "new", None])
def test_readings_are_of_the_edit_s_and_of_the_reference_s_values(inputs, shown):
    sample = inputs()
    values = {"old": sample.scene.attributes, "new": sample.target, None: dict.fromkeys(sample.target)}[shown]
    measured = AttributeReadings().measure(inputs(predictions=Predictions(values, {})))
    assert set(measured) == set(AttributeReadings.values)
    for name in ("colour", "surface", "shape", "background"):
        changed = sample.scene.attributes[name] != sample.target[name]
        assert measured[f"old_{name}"].value == (shown == "old" or (shown == "new" and not changed))
        if changed:
            assert measured[f"new_{name}"].value == (shown == "new")
        else:
            assert "as it is" in measured[f"new_{name}"].reason
    # No caption names a wandering path, and the edit keeps it.
    assert np.isnan(measured["old_motion"].value)
    assert np.isnan(measured["new_motion"].value)
