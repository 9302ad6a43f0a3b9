"""Frame consistency against slow loops."""

import numpy as np

from motionexp.metrics.base import FrameFeatures
from motionexp.metrics.frame_consistency import FrameConsistency
from tests.metrics.conftest import unit


def test_both_pairings_against_slow_loops(inputs):
    frames = unit(6, 5).double()
    measured = FrameConsistency().measure(inputs(features=FrameFeatures(frames)))
    pairs = [np.mean([frames[i] @ frames[j] for j in range(6) if i != j]) * 100 for i in range(6)]
    consecutive = [100 * float(frames[i] @ frames[i + 1]) for i in range(5)]
    for pairing, series in (("pairs", pairs), ("consecutive", consecutive)):
        np.testing.assert_allclose(measured[f"frame_consistency_{pairing}"].series, series)
        np.testing.assert_allclose(measured[f"frame_consistency_{pairing}"].value, np.mean(series))


def test_one_frame_has_no_pairs(inputs):
    for measured in FrameConsistency().measure(inputs(features=FrameFeatures(unit(1, 4)))).values():
        assert np.isnan(measured.value)
        assert "single frame" in measured.reason
