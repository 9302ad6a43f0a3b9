import pytest

from motionexp.metrics.pick_score import pick_score
from tests.metrics.conftest import unit


def test_pick_score_is_before_any_softmax():
    frames, caption = unit(5, 7), unit(7, seed=1)
    assert pick_score(frames, caption, 100.0)[0] == pytest.approx(100 * float(frames[0] @ caption), rel=1e-5)
    assert pick_score(frames[:1], caption, 100.0)[0] != pytest.approx(1.0)
