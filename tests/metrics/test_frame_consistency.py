"""Frame consistency against slow loops."""

import numpy as np
import pytest

from motionexp.metrics.base import FrameFeatures
from motionexp.metrics.frame_consistency import (
    FrameConsistency,
    frame_consistency_consecutive,
    frame_consistency_pairs,
)
from tests.metrics.conftest import noise_video, unit


def test_both_pairings_against_slow_loops():
    frames = unit(6, 5).double()
    pairs = [
        np.mean([float(frames[i] @ frames[j]) for j in range(6) if i != j]) * 100 for i in range(6)
    ]  # fmt: skip
    np.testing.assert_allclose(frame_consistency_pairs(frames), pairs)
    assert frame_consistency_pairs(frames).mean() == pytest.approx(np.mean(pairs))
    consecutive = [100 * float(frames[i] @ frames[i + 1]) for i in range(5)]
    np.testing.assert_allclose(frame_consistency_consecutive(frames), consecutive)
    assert np.mean(pairs) != pytest.approx(np.mean(consecutive), rel=0.01)


def test_a_frozen_video_scores_100_in_frame_consistency(clip, inputs):
    frames = np.repeat(noise_video(count=1), 6, axis=0)
    shown = inputs(frames, features=FrameFeatures(clip.embed_frames(frames)))
    for measured in FrameConsistency().measure(shown).values():
        assert measured.value == pytest.approx(100, abs=1e-4)


def test_one_frame_has_no_pairs(inputs):
    shown = inputs(features=FrameFeatures(unit(1, 4)))
    for measured in FrameConsistency().measure(shown).values():
        assert np.isnan(measured.value)
        assert "single frame" in measured.reason
    with pytest.raises(ValueError, match="too few"):
        frame_consistency_pairs(unit(1, 4))
    with pytest.raises(ValueError, match="too few"):
        frame_consistency_consecutive(unit(1, 4))
