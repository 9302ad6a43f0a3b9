"""Means over references with bootstrap intervals, which no library has in this form."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

Replicates = np.ndarray
"""(1 + RESAMPLES, ...): a value of all references, then its bootstrap replicates."""
# The ends of a normal value's interval then vary by 0.7% of its width from seed to seed.
RESAMPLES = 10_000
MOST_UNDEFINED = 0.05
"""Above this share of replicates without a number there is no interval."""


@dataclass(frozen=True)
class Interval:
    """A mean over references with its 95% bootstrap interval (NaN below two references).

    `n` values of `clusters` references entered; `missing` values were NaN and did not. `undefined` is the
    share of bootstrap replicates without a number: the interval leaves them out, and above `MOST_UNDEFINED`
    there is no interval.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    missing: int = 0
    undefined: float = 0.0


def draw_size(clusters: int) -> int:
    """The number m of n clusters that are resampled, so that a mean's coverage matches Student's t interval.

    Resampling all n gives an interval that is too narrow for small n (of normal values it contains the mean
    in 80% of cases at n = 4, in 88% at 8). Its variance is that of the mean times (n - 1) / n, and its
    quantile is the normal one in place of Student's. With m < n the replicates vary more, by n / m (the m out
    of n bootstrap); m = (n - 1) (z / t)^2 corrects both from n = 5 up. Of five or fewer clusters two are
    drawn, often the same one twice, so that the interval is their range (94% at n = 5, 88% at 4, 75% at 3).
    """
    if clusters < 5:
        return 2
    from scipy.special import ndtri, stdtrit  # only here: every command imports this module

    return round((clusters - 1) * (ndtri(0.975) / stdtrit(clusters - 1, 0.975)) ** 2)


@cache
def resampled_weights(clusters: int) -> np.ndarray:
    """(RESAMPLES, clusters) share of each cluster in each resample of `draw_size`; equal on every machine."""
    size = draw_size(clusters)
    # RandomState's stream is frozen by numpy's policy; Generator's may change between versions.
    resamples = np.random.RandomState(0).randint(0, clusters, size=(RESAMPLES, size))
    # Row r counts its clusters at r * clusters and above: one bincount for all rows.
    places = resamples + clusters * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * clusters)
    return counts.reshape(RESAMPLES, clusters) / size


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of bootstrap replicates, NaN replicates left out."""
    if np.isnan(replicates).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def cluster_means(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """(R,) mean of each cluster that has a value, by the clusters' names; and how many values are NaN.

    Raises:
        ValueError: of different lengths.
    """
    # Values of one reference are not independent: each reference counts once, by its mean.
    grouped: dict[Hashable, list[float]] = defaultdict(list)
    missing = 0
    for value, cluster in zip(values, clusters, strict=True):
        if math.isnan(value):
            missing += 1
        else:
            grouped[cluster].append(value)
    # Sorted, so that nothing depends on the order in which rows were written.
    return np.array([np.mean(grouped[cluster]) for cluster in sorted(grouped, key=str)]), missing


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Mean of the clusters' means, and its percentile bootstrap interval over clusters.

    Args:
        values: one number a sample; NaN is left out and counted as missing.
        clusters: the reference of each value.

    Raises:
        ValueError: of different lengths.
    """
    means, missing = cluster_means(values, clusters)
    n = len(values) - missing
    if len(means) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, 0, missing)
    # One cluster says nothing about the spread between clusters.
    if len(means) < 2:
        return Interval(float(means[0]), math.nan, math.nan, n, 1, missing)
    # (N, clusters) @ (clusters,): one mean a replicate.
    low, high = percentile_interval(resampled_weights(len(means)) @ means)
    return Interval(float(means.mean()), low, high, n, len(means), missing)


@dataclass(frozen=True)
class Curve:
    """Motion and leakage, (S, R) means of R references at S ascending adapter scales, scale 0 first."""

    motion: np.ndarray
    leakage: np.ndarray

    def at(self, level: float, weights: np.ndarray) -> np.ndarray:
        """The most motion of the mean curves where leakage is at most a level.

        Motion and leakage are taken as linear between two neighbouring scales.

        Args:
            level: the allowed leakage.
            weights: (N, R), N weightings of the references.

        Returns:
            (N,) motion, NaN where the whole curve has more leakage.
        """
        # 1. (S, N) mean curves; the best scale at which leakage is low enough.
        motion, leakage = self.motion @ weights.T, self.leakage @ weights.T
        best = np.where(leakage <= level, motion, -np.inf).max(axis=0)
        # 2. Between two scales (S - 1, N) the curve may cross the level, with more motion.
        before, after = leakage[:-1], leakage[1:]
        crosses = (before - level) * (after - level) < 0
        share = (level - before) / np.where(crosses, after - before, 1.0)
        crossing = np.where(crosses, motion[:-1] + share * (motion[1:] - motion[:-1]), -np.inf)
        best = np.maximum(best, crossing.max(axis=0, initial=-np.inf))
        return np.where(np.isfinite(best), best, np.nan)


def motion_at_equal_leakage(ours: Curve, level: float, theirs: Curve | None = None) -> Interval:
    """Motion of the mean curve at a level of leakage, or the difference of two curves, over R references.

    Each resample of the references enters both curves, so the difference is paired by reference.
    """
    clusters = ours.motion.shape[1]
    # (1, R): every reference once, the mean itself.
    evenly = np.full((1, clusters), 1 / clusters)
    # The mean, then the replicates; separate products, since a larger one may round otherwise.
    value, replicates = (
        ours.at(level, weights) - (theirs.at(level, weights) if theirs else 0)
        for weights in (evenly, resampled_weights(clusters))
    )
    undefined = float(np.isnan(replicates).mean())
    has_interval = clusters > 1 and undefined <= MOST_UNDEFINED
    low, high = percentile_interval(replicates) if has_interval else (math.nan, math.nan)
    return Interval(float(value[0]), low, high, clusters, clusters, undefined=undefined)
