import numpy as np
import pytest

from motionexp.metrics.appearance_leakage import AppearanceLeakage
from motionexp.metrics.base import CaptionFeatures, FrameFeatures
from tests.metrics.conftest import unit


def test_appearance_leakage_is_a_difference_of_cosines(inputs):
    frames, reference, edit = unit(4, 6), unit(6, seed=1), unit(6, seed=2)
    slow = [float(frame @ reference) - float(frame @ edit) for frame in frames]
    shown = inputs(
        features=FrameFeatures(frames),
        caption=CaptionFeatures(edit, clip_scale=100.0),
        reference_caption=CaptionFeatures(reference, clip_scale=100.0),
    )
    measured = AppearanceLeakage().measure(shown)["appearance_leakage"]
    np.testing.assert_allclose(measured.series, slow, atol=1e-6)
    assert measured.value == pytest.approx(np.mean(slow))
