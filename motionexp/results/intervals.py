"""Means over references with bootstrap intervals, which no library has in this form."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import ndtri, stdtrit

Draws = np.ndarray
"""(1 + RESAMPLES, ...)."""


RESAMPLES = 10_000


MOST_UNDEFINED = 0.05
"""Share of draws without a number from which on the others say nothing of an interval."""


@dataclass(frozen=True)
class Interval:
    """A mean over references with its 95% bootstrap interval (NaN below two references).

    `n` values of `clusters` references entered; `missing` were NaN and did not. `undefined` is the share of
    bootstrap draws in which there is no such number: the interval leaves them out, and above
    `MOST_UNDEFINED` there is none.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    missing: int = 0
    undefined: float = 0.0


def draw_size(clusters: int) -> int:
    """How many of n clusters are drawn with replacement, so that the interval of a mean is Student's.

    Draws of all n give an interval that is too narrow where n is small (for normal values it holds the mean
    in 80% of cases at n = 4, in 88% at 8): their variance is that of the mean times (n - 1) / n, and the
    normal quantile stands where Student's belongs. Draws of m < n vary more, by n / m (the m out of n
    bootstrap): m = (n - 1) (z / t)^2 makes both good, from n = 5 up. Of five or fewer two are drawn, often
    the same one twice, so that the interval is their range (94% at n = 5, 88% at 4, 75% at 3).
    """
    if clusters < 5:
        return 2
    return round((clusters - 1) * (ndtri(0.975) / stdtrit(clusters - 1, 0.975)) ** 2)


@cache
def resampled_weights(clusters: int) -> np.ndarray:
    """(RESAMPLES, clusters) share of each cluster in each draw of `draw_size`; the same everywhere."""
    size = draw_size(clusters)
    # RandomState's stream is frozen by numpy's policy; Generator's may change between versions.
    drawn = np.random.RandomState(0).randint(0, clusters, size=(RESAMPLES, size))
    places = drawn + clusters * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * clusters)
    return counts.reshape(RESAMPLES, clusters) / size


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of bootstrap replicates, NaN replicates left out."""
    if np.isnan(replicates).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Mean of the clusters' means, and its percentile bootstrap interval over clusters.

    Args:
        values: one number a sample; NaN is left out and counted as missing.
        clusters: the reference of each value.

    Raises:
        ValueError: of different lengths.
    """
    grouped: dict[Hashable, list[float]] = defaultdict(list)
    missing = 0
    for value, cluster in zip(values, clusters, strict=True):
        if math.isnan(value):
            missing += 1
        else:
            grouped[cluster].append(value)
    n = len(values) - missing
    if not grouped:
        return Interval(math.nan, math.nan, math.nan, 0, 0, missing)
    # Sorted, so that the interval does not depend on the order in which rows were written.
    means = np.array([np.mean(grouped[cluster]) for cluster in sorted(grouped, key=str)])
    if len(means) < 2:
        return Interval(float(means[0]), math.nan, math.nan, n, 1, missing)
    low, high = percentile_interval(resampled_weights(len(means)) @ means)
    return Interval(float(means.mean()), low, high, n, len(means), missing)


def motion_at_leakage(motion: np.ndarray, leakage: np.ndarray, level: float) -> np.ndarray:
    """The most motion on a curve of adapter scales where leakage is at most a level.

    Between two neighbouring scales both are taken as linear.

    Args:
        motion: (S, N), N curves over S scales in ascending order, the first one the base model (scale 0).
        leakage: (S, N), in the same order.
        level: the leakage that is allowed.

    Returns:
        (N,) motion, NaN where the whole curve leaks more.
    """
    best = np.where(leakage <= level, motion, -np.inf).max(axis=0)
    before, after = leakage[:-1], leakage[1:]
    crosses = (before - level) * (after - level) < 0
    share = (level - before) / np.where(crosses, after - before, 1.0)
    crossing = np.where(crosses, motion[:-1] + share * (motion[1:] - motion[:-1]), -np.inf)
    best = np.maximum(best, crossing.max(axis=0, initial=-np.inf))
    return np.where(np.isfinite(best), best, np.nan)


@dataclass(frozen=True)
class Curve:
    """Motion and leakage, (S, R) means of R references at S ascending adapter scales, scale 0 first."""

    motion: np.ndarray
    leakage: np.ndarray

    def at(self, level: float, weights: np.ndarray) -> np.ndarray:
        """(N,) motion at a level, of the mean curves that N weightings (N, R) of the references give."""
        return motion_at_leakage(self.motion @ weights.T, self.leakage @ weights.T, level)


def motion_at_equal_leakage(ours: Curve, level: float, theirs: Curve | None = None) -> Interval:
    """Motion of the mean curve at a level of leakage, or the difference of two curves, over R references.

    The same draw of references enters both curves, so the difference is paired by reference.
    """
    clusters = ours.motion.shape[1]
    evenly = np.full((1, clusters), 1 / clusters)
    value, draws = ours.at(level, evenly), ours.at(level, resampled_weights(clusters))
    if theirs is not None:
        value = value - theirs.at(level, evenly)
        draws = draws - theirs.at(level, resampled_weights(clusters))
    undefined = float(np.isnan(draws).mean())
    known = clusters > 1 and undefined <= MOST_UNDEFINED
    low, high = percentile_interval(draws) if known else (math.nan, math.nan)
    return Interval(float(value[0]), low, high, clusters, clusters, undefined=undefined)
