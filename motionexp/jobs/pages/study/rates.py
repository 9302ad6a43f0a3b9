"""Rates and mean ratings with intervals for answers that share people and references.

Answers of one person are not independent, and neither are answers about one reference. The variance of a mean
is that of two-way clusters: A. C. Cameron, J. B. Gelbach, D. L. Miller, Robust Inference With Multiway
Clustering, 2011. A rate has Wilson's interval at the effective number of answers: n over the design effect.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np

from motionexp.results.intervals import Interval


def clustered_variance(values: np.ndarray, *clusters: Sequence[Hashable]) -> float:
    """The variance of the mean of values that share clusters of two kinds.

    Args:
        values: (n,) numbers.
        clusters: the people and the references of the values.

    Returns:
        V(people) + V(references) - V(both), but at least the larger of the first two; NaN below two clusters
        of each kind. A kind with one cluster alone is left out.
    """
    kinds = [kind for kind in clusters if len(set(kind)) > 1]
    if not kinds:
        return math.nan
    single = [_one_way(values, kind) for kind in kinds]
    if len(kinds) == 1:
        return single[0]
    both = _one_way(values, list(zip(*kinds, strict=True)))
    return max(sum(single) - both, *single)


def _one_way(values: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """The variance of the mean by the sums of residuals in clusters, G / (G - 1) times their squares."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    places = [names[name] for name in clusters]
    sums = np.bincount(places, weights=values - values.mean(), minlength=len(names))
    return float((sums**2).sum() / len(values) ** 2 * len(names) / (len(names) - 1))


def _quantile(*clusters: Sequence[Hashable]) -> float:
    """Student's 97.5th percentile, at one less than the number of clusters of the rarer kind."""
    from scipy.special import stdtrit  # only here: every command imports this module

    counts = [count for kind in clusters if (count := len(set(kind))) > 1]
    return float(stdtrit(min(counts) - 1, 0.975))


def design_effect(chosen: np.ndarray, people: Sequence[str], references: Sequence[str]) -> float:
    """How many times the variance of a rate is that of independent answers; at least 1, NaN where unknown."""
    rate = chosen.mean()
    if rate in (0, 1):
        return math.nan
    variance = clustered_variance(chosen, people, references)
    return max(1.0, variance / (rate * (1 - rate) / len(chosen)))


def rate_interval(
    chosen: np.ndarray, people: Sequence[str], references: Sequence[str], effect: float
) -> Interval:
    """A rate in percent with its interval.

    Args:
        chosen: (n,) 1 where the answer is the one that is counted, else 0.
        people, references: of the answers.
        effect: the design effect; of a rate of 0 or 1, whose own is unknown, that of other rates.
    """
    n, rate = len(chosen), float(chosen.mean())
    counts = n, len(set(people))
    if counts[1] < 2 or math.isnan(effect):
        return Interval(100 * rate, math.nan, math.nan, *counts)
    z, size = _quantile(people, references), n / effect
    # Wilson's score interval: the rates p that are at most z standard errors of p away.
    center = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    return Interval(100 * rate, 100 * max(0.0, center - half), 100 * min(1.0, center + half), *counts)


def rating_interval(
    ratings: np.ndarray, people: Sequence[str], references: Sequence[str], levels: int
) -> Interval:
    """A mean rating with its interval; (n,) ratings from 1 to `levels` of n people and references."""
    mean, counts = float(ratings.mean()), (len(ratings), len(set(people)))
    if counts[1] < 2:
        return Interval(mean, math.nan, math.nan, *counts)
    half = _quantile(people, references) * math.sqrt(clustered_variance(ratings, people, references))
    return Interval(mean, max(1.0, mean - half), min(float(levels), mean + half), *counts)
