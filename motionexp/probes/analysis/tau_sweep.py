"""The best tau of tuning, by a sweep over the window's lower end, to compare with a probe's boundary."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.probes.analysis.boundary import FEWEST_REFERENCES, Boundary, gap_at, peak
from motionexp.probes.analysis.rows import Key, bootstrap_weights, finite_mean, grid_jitter, means, unpaired
from motionexp.probes.timesteps import EDGES
from motionexp.results.intervals import Replicates
from motionexp.results.rows import Row, key_order

MOTION, LEAKAGE, CHANCE = "velocity_similarity", "nuisance_similarity", "nuisance_chance"
Cell = tuple[str, str, float]
"""(metric, reference, tau)"""


@dataclass(frozen=True)
class TauSweep:
    """Samples tuned with the window [tau, 1000], for every tau of `EDGES`; 1000 is the untuned model.

    Attributes:
        motion: (R, 11) similarity of velocities, means over the samples of each reference.
        leakage: (R, 11) similarity of the background texture to the reference's, minus that of chance.
        samples: number of samples for each tau.
    """

    motion: np.ndarray
    leakage: np.ndarray
    samples: int

    @property
    def references(self) -> int:
        """R."""
        return len(self.motion)

    @property
    def scores(self) -> Replicates:
        """(1 + RESAMPLES, 11) motion minus leakage; both are correlations, 1 for the reference's video."""
        weights = bootstrap_weights(self.references)
        return means(self.motion, weights) - means(self.leakage, weights)


def read_sweeps(rows: Iterable[Row]) -> dict[Key, TauSweep]:
    """Return {(model, contrast): sweep} of rows of LoRA at full scale and of the untuned model.

    Raises:
        InputError: a tau of the grid is missing, or a reference has no value at one.
    """
    grouped: dict[Key, dict[Cell, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # The untuned model is the sweep's end at tau = 1000.
        tuned = row.method in ("lora", "base") and row.adapter_scale == 1
        if tuned and row.metric in (MOTION, LEAKAGE, CHANCE):
            key = row.sampled_model, row.stratum("contrast")
            grouped[key][row.metric, row.reference, row.tau].append(row.value)
    return {key: _sweep(key, grouped[key]) for key in sorted(grouped, key=key_order)}


def _sweep(key: Key, values: Mapping[Cell, Sequence[float]]) -> TauSweep:
    references = sorted({reference for _, reference, _ in values})
    metrics = {}
    for metric in (MOTION, LEAKAGE, CHANCE):
        samples = [[values.get((metric, reference, tau), []) for tau in EDGES] for reference in references]
        if not all(cell for row in samples for cell in row):
            raise InputError(
                f"the sweep over tau of {' '.join(key)} lacks some of tau=0,100,...,1000; run it to its end"
                " and publish it"
            )
        # (R, 11): each reference's mean over edits and seeds, one for each tau.
        metrics[metric] = np.array([[finite_mean(cell) for cell in row] for row in samples])
    count = sum(len(values[MOTION, reference, EDGES[0]]) for reference in references)
    return TauSweep(metrics[MOTION], metrics[LEAKAGE] - metrics[CHANCE], count)


@dataclass(frozen=True)
class TauComparison:
    """The best tau of a sweep and the boundary of the same model and contrast, (1 + RESAMPLES,) each.

    Attributes:
        best: in t.
        boundary: in t; NaN without a boundary.
        lost: score at the best tau minus score at the boundary; see `lost_at`.
    """

    best: Replicates
    boundary: Replicates
    lost: Replicates

    @property
    def difference(self) -> Replicates:
        """Boundary minus best tau; their references are independent, so it is not paired."""
        return unpaired(self.boundary) - self.best


def compare(sweep: TauSweep, boundary: Boundary) -> TauComparison | None:
    """Whether tuning is best at the boundary that a probe found without any tuning.

    None if the sweep has fewer references than an interval needs.
    """
    if sweep.references < FEWEST_REFERENCES:
        return None
    # With both ends: no tuning, or tuning at all timesteps, may be the best.
    best = grid_jitter(peak(sweep.scores, ends=True), "best tau")
    return TauComparison(best, boundary.tau, lost_at(sweep, unpaired(boundary.tau)))


def lost_at(sweep: TauSweep, tau: Replicates) -> Replicates:
    """The score at the best tau minus the score at `tau`, (1 + RESAMPLES,); NaN where tau is.

    For each reference the best tau is that of all other references. Its own best tau would be best partly by
    chance, and the loss would never be negative. So a loss below 0 is possible: the boundary is then better
    than a tau from tuning.
    """
    # 1. The best tau of all other references, (R,), from the sum of scores without the reference's own.
    scores = sweep.motion - sweep.leakage
    finite = np.isfinite(scores)
    total, count = np.where(finite, scores, 0.0).sum(0), finite.sum(0)
    # (R, 11); a tau at which no other reference has a score gets 0.
    leave_one_out = (total - np.where(finite, scores, 0.0)) / np.maximum(count - finite, 1)
    # 2. Each reference's score there, (R,), minus its score at tau in each replicate, (1 + RESAMPLES, R).
    at_best = gap_at(scores, peak(leave_one_out, ends=True))
    return _weighted_mean(at_best - _scores_at(scores, tau))


def score_at(sweep: TauSweep, tau: Replicates) -> Replicates:
    """Motion minus leakage of tuning in [tau, 1000], (1 + RESAMPLES,), linear between the sweep's values."""
    return _weighted_mean(_scores_at(sweep.motion - sweep.leakage, tau))


def _scores_at(scores: np.ndarray, tau: Replicates) -> np.ndarray:
    """(N, R) of scores (R, 11) at N timesteps."""
    return np.stack([gap_at(np.broadcast_to(row, (len(tau), len(row))), tau) for row in scores], axis=1)


def _weighted_mean(values: np.ndarray) -> Replicates:
    """(N,) means of (N, R) over references, resampled, without NaN; NaN where all are."""
    # The weights of the references that have a value are scaled to a sum of 1.
    weights = np.where(np.isfinite(values), bootstrap_weights(values.shape[1]), 0.0)
    total = weights.sum(1)
    summed = (weights * np.nan_to_num(values)).sum(1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)
