from dataclasses import replace

import pytest

from motionexp.data.base import Edit
from motionexp.errors import InputError
from motionexp.metrics.base import Measurement


def test_an_abstention_says_why():
    with pytest.raises(ValueError, match="NaN"):
        Measurement(float("nan"))


def test_ground_truth_is_asked_for_in_plain_words(inputs):
    full = inputs()
    bare = replace(full, reference=replace(full.reference, truth=None), edit=Edit("caption", "a dog"))
    with pytest.raises(InputError, match=f"reference {full.reference.name} "):
        _ = bare.scene
    with pytest.raises(InputError, match="a dog"):
        _ = bare.target
