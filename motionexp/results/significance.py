"""p-values of paired differences over references, and Holm's correction for their number.

The test is Student's, two-sided, of the references' mean differences. The tables' bootstrap intervals have
its coverage (`intervals.draw_size`), so that interval and test follow one distribution. A test by flipping
signs assumes less, but with 8 references its smallest p-value is 0.008, and eight times that is above 0.05.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.results.intervals import Interval, cluster_means
from motionexp.results.subjects import Values, paired_difference

LEVEL = 0.05
"""The probability that any claim of a family is made although it is false."""


@dataclass(frozen=True)
class MeasuredDifference:
    """A paired difference: its bootstrap interval as in all tables, and the references' `means` (R,)."""

    interval: Interval
    means: np.ndarray

    @classmethod
    def of(cls, ours: Values, theirs: Values) -> "MeasuredDifference":
        """Ours minus theirs, over the subjects that have both values."""
        shared = sorted(set(ours) & set(theirs), key=str)
        differences = [ours[key] - theirs[key] for key in shared]
        means, _ = cluster_means(differences, [key[0] for key in shared])
        return cls(paired_difference(ours, theirs), means)

    @property
    def p(self) -> float:
        """The two-sided p-value of a mean that is not zero."""
        return min(more_p(self.means), more_p(-self.means))


def standard_error(means: np.ndarray) -> float:
    """The standard error of the mean of (R,) numbers, R at least 2."""
    return float(np.std(means, ddof=1)) / math.sqrt(len(means))


def tail(means: np.ndarray, value: float) -> float:
    """The one-sided p-value, by Student's t over references, of a true mean of at most `value`.

    Args:
        means: (R,) one number a reference, R at least 2.
    """
    from scipy.special import stdtr  # only here: the import takes a tenth of a second

    error = standard_error(means)
    distance = float(np.mean(means)) - value
    # References that all agree leave no doubt; a mean at the value itself is no evidence.
    t = distance / error if error > 0 else math.copysign(math.inf, distance) if distance else 0.0
    return float(stdtr(len(means) - 1, -t))


def more_p(means: np.ndarray) -> float:
    """The two-sided p-value of a mean above zero; 1 where the mean is not above zero.

    For a mean below zero, test the negated means.
    """
    return min(1.0, 2 * tail(means, 0.0))


def equal_p(means: np.ndarray, margin: float) -> float:
    """The p-value of a true mean within -margin to margin, by two one-sided tests (Schuirmann 1987).

    It is at most 0.05 where `equal_interval` is within the margin.
    """
    return max(tail(means, -margin), tail(-means, -margin))


def equal_interval(means: np.ndarray) -> tuple[float, float]:
    """The 90% interval of Student's t of the true mean, on which `equal_p` rests at `LEVEL`.

    Args:
        means: (R,) one number a reference, R at least 2.
    """
    from scipy.special import stdtrit  # only here: the import takes a tenth of a second

    # Each of the two one-sided tests leaves 5% on its side.
    half = float(stdtrit(len(means) - 1, 1 - LEVEL)) * standard_error(means)
    return float(np.mean(means)) - half, float(np.mean(means)) + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order of `p_values`.

    The claims whose adjusted p-value is at most 0.05 are all true in 95% of cases.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        # The smallest counts for all of them, the next for one fewer; none may fall below one before it.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
