import numpy as np
import pytest

from motionexp.metrics.appearance_leakage import AppearanceLeakage, appearance_leakage
from motionexp.metrics.base import CaptionFeatures, FrameFeatures
from tests.metrics.conftest import unit


def test_appearance_leakage_is_a_difference_of_cosines_and_changes_sign_with_the_captions(inputs):
    frames, reference, edit = unit(4, 6), unit(6, seed=1), unit(6, seed=2)
    slow = [float(frame @ reference) - float(frame @ edit) for frame in frames]
    np.testing.assert_allclose(appearance_leakage(frames, reference, edit), slow, atol=1e-6)
    np.testing.assert_allclose(appearance_leakage(frames, edit, reference), -np.array(slow), atol=1e-6)
    shown = inputs(
        features=FrameFeatures(frames),
        caption=CaptionFeatures(edit, clip_scale=100.0),
        reference_caption=CaptionFeatures(reference, clip_scale=100.0),
    )
    assert AppearanceLeakage().measure(shown)["appearance_leakage"].value == pytest.approx(np.mean(slow))
