"""The score of DiTFlow's code against a slow loop."""

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.metrics.mf_ditflow import mf_ditflow
from tests.metrics.conftest import TRACK_FRAMES, walk


def slow_ditflow(edited, source):
    """The peers' score, entry by entry."""
    shortest = min(len(edited.position), len(source.position)) - 1
    ours, theirs = (np.diff(tracks.position, axis=0)[:shortest] for tracks in (edited, source))
    points = range(ours.shape[1])

    def entry(n, m):
        pairs = zip(ours[:, n], theirs[:, m], strict=True)
        return np.mean([u @ v / (np.hypot(*u) * np.hypot(*v)) for u, v in pairs]) - (n == m)

    return np.mean([max(entry(n, m) for m in points) for n in points])


def test_mf_ditflow_is_the_peers_score_with_its_faults():
    a, b = walk(0), walk(1, frames=TRACK_FRAMES + 3, hidden=0.5)
    assert mf_ditflow(a, b).value == pytest.approx(slow_ditflow(a, b))
    assert mf_ditflow(b, a).value != pytest.approx(mf_ditflow(a, b).value)
    # A video against itself is far from 1, for equal places in the grid are kept from matching.
    assert mf_ditflow(a, a).value == pytest.approx(slow_ditflow(a, a))
    assert mf_ditflow(a, a).value < 0.8
    a.position[4, 3] = a.position[3, 3]
    assert "NaN" in mf_ditflow(a, b).reason
    assert "NaN" in mf_ditflow(b, a).reason
    with pytest.raises(InputError, match=r"mf_ditflow .* 5 and 6"):
        mf_ditflow(walk(0, 5), walk(0, 6))
