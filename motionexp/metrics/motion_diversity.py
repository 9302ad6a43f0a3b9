"""How different is the motion of samples of one edit? A method without chance scores 0.

The second paper (section 4.4) asks people. Beside it stands a score of motion, always: samples that all stand
still are alike too.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np

from motionexp.metrics.base import ABSTAINED, Measurement, SetMetric, Tracks
from motionexp.metrics.track_similarity import motion_fidelity


def motion_diversity(samples: Sequence[Tracks]) -> Measurement:
    """Return the mean over all pairs of samples of 1 - `motion_fidelity`.

    Samples that move alike give 0, wherever they show it; unrelated motion gives 1 less the level of chance,
    not 1, since tracks take their best match.

    Args:
        samples: tracks of the samples of one edit, of one length.

    Returns:
        Value in [0, 2]; abstains on fewer than two samples, or where no pair can be compared.
    """
    if len(samples) < 2:
        return Measurement(ABSTAINED, "diversity is of two samples or more")
    pairs = [motion_fidelity(*pair) for pair in combinations(samples, 2)]
    # A pair in which too little can be followed is left out, not counted as equal or different.
    values = [1 - pair.value for pair in pairs if not np.isnan(pair.value)]
    return Measurement(float(np.mean(values))) if values else Measurement(ABSTAINED, pairs[0].reason)


class MotionDiversity(SetMetric):
    """`motion_diversity` of the samples of one edit."""

    version = 1
    needs = ("tracks",)
    values: ClassVar = {"motion_diversity": True}
    order = 60
    summary: ClassVar = {"motion_diversity": "motion diversity"}

    def measure(self, samples: Sequence[Tracks]) -> dict[str, Measurement]:
        """Measure the samples of one edit."""
        return {"motion_diversity": motion_diversity(samples)}
