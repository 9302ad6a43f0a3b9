import numpy as np
import pytest

from motionexp.metrics.motion_diversity import motion_diversity
from motionexp.metrics.track_similarity import motion_fidelity
from tests.metrics.conftest import walk


def test_diversity_of_a_method_without_chance_is_zero():
    a = walk(0)
    assert motion_diversity([a, a, a]).value == pytest.approx(0, abs=1e-12)
    three = [a, walk(1), walk(2)]
    pairs = [motion_fidelity(three[i], three[j]).value for i, j in ((0, 1), (0, 2), (1, 2))]
    assert motion_diversity(three).value == pytest.approx(1 - np.mean(pairs))
    with_lost = motion_diversity([a, walk(1), walk(3, hidden=1.0)])
    assert with_lost.value == pytest.approx(1 - pairs[0])
    assert "two samples" in motion_diversity([a]).reason
