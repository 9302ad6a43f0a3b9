"""Krippendorff's alpha: how far people agree beyond chance, where not everybody answers everything.

K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011: the coincidence matrix, and the metrics of
nominal and ordinal values.
"""

import math
from collections.abc import Sequence

import numpy as np

from motionexp.results.intervals import (
    MOST_UNDEFINED,
    Interval,
    percentile_interval,
    resampled_weights,
)


def krippendorff_alpha(units: Sequence[Sequence[int]], values: int, *, ordinal: bool) -> Interval:
    """Alpha with its 95% interval by a bootstrap over units: 1 is full agreement, 0 that of chance.

    Args:
        units: the answers to each unit, numbers from 0; a unit with less than two answers does not count.
        values: how many different answers the question offers.
        ordinal: whether the answers are ranks, as ratings are, and not names.

    Returns:
        `n` answers of `clusters` units; NaN where less than two units, or only one value, is answered.
    """
    # (U, V): how often each value is the answer to each unit.
    counts = np.array([np.bincount(unit, minlength=values) for unit in units if len(unit) > 1])
    if len(counts) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    answers = counts.sum(1)
    # (U, V, V): a unit's ordered pairs of answers, each weighted so that the unit counts by its answers.
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(values) * counts[:, :, None]
    coincidences = pairs / (answers - 1)[:, None, None]
    mean = float(_alpha(coincidences.sum(0)[None], ordinal)[0])
    low = high = math.nan
    if len(counts) > 1:
        weights = resampled_weights(len(counts))
        replicates = _alpha(np.einsum("nu,uvw->nvw", len(counts) * weights, coincidences), ordinal)
        if np.isnan(replicates).mean() <= MOST_UNDEFINED:
            low, high = percentile_interval(replicates)
    return Interval(mean, low, high, int(answers.sum()), len(counts))


def _alpha(coincidences: np.ndarray, ordinal: bool) -> np.ndarray:
    """(N,) alpha of coincidence matrices (N, V, V); NaN where only one value occurs."""
    totals = coincidences.sum(2)  # (N, V)
    n = totals.sum(1)
    distance = _ordinal_distance(totals) if ordinal else 1 - np.eye(totals.shape[1])[None]
    observed = (coincidences * distance).sum((1, 2)) / n
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = expected / (n * (n - 1))
        return np.where(expected > 1e-12, 1 - observed / expected, math.nan)


def _ordinal_distance(totals: np.ndarray) -> np.ndarray:
    """(N, V, V) squared number of answers between two ranks, half of those at the ranks themselves."""
    middle = np.cumsum(totals, 1) - totals / 2
    return (middle[:, :, None] - middle[:, None, :]) ** 2
