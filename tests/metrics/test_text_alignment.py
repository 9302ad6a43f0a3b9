"""Metrics of a model's features; `test_tgve_scorer.py` compares their values with the benchmark's."""

import pytest

from motionexp.errors import InputError
from motionexp.metrics.appearance_leakage import AppearanceLeakage
from motionexp.metrics.frame_consistency import FrameConsistency
from motionexp.metrics.pick_score import PickScore
from motionexp.metrics.text_alignment import TextAlignment


@pytest.mark.parametrize("metric", [TextAlignment, PickScore, FrameConsistency, AppearanceLeakage])
def test_a_model_that_was_not_given_is_named(metric, inputs):
    with pytest.raises(InputError, match=f"metric {metric.__module__.rpartition('.')[2]} "):
        metric().measure(inputs())
