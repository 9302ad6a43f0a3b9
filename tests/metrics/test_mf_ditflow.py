"""The score of DiTFlow's code against a slow loop."""

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.metrics.mf_ditflow import mf_ditflow
from tests.metrics.conftest import TRACK_FRAMES, walk


def slow_ditflow(edited, source):
    """The peers' score, entry by entry."""
    steps = min(len(edited.position), len(source.position)) - 1
    count = edited.position.shape[1]
    rows = []
    for n in range(count):
        row = []
        for m in range(count):
            cosines = []
            for t in range(steps):
                u = edited.position[t + 1, n] - edited.position[t, n]
                v = source.position[t + 1, m] - source.position[t, m]
                cosines.append(u @ v / (np.hypot(*u) * np.hypot(*v)))
            row.append(np.mean(cosines) - (n == m))
        rows.append(max(row))
    return np.mean(rows)


def test_mf_ditflow_is_the_peers_score_with_its_faults():
    a, b = walk(0), walk(1, frames=TRACK_FRAMES + 3, hidden=0.5)
    assert mf_ditflow(a, b).value == pytest.approx(slow_ditflow(a, b))
    assert mf_ditflow(b, a).value != pytest.approx(mf_ditflow(a, b).value)
    # A video against itself is far from 1, for equal places in the grid are kept from matching.
    assert mf_ditflow(a, a).value == pytest.approx(slow_ditflow(a, a))
    assert mf_ditflow(a, a).value < 0.8
    a.position[4, 3] = a.position[3, 3]
    assert "NaN" in mf_ditflow(a, b).reason
    with pytest.raises(InputError, match="as many tracks"):
        mf_ditflow(walk(0, 5), walk(0, 6))
