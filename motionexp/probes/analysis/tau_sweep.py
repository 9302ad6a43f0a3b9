"""Where tuning does best, by a sweep over the window's lower end, to compare with a probe's boundary."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.probes.analysis.boundary import FEWEST_REFERENCES, Boundary, gap_at
from motionexp.probes.analysis.rows import Key, draw, means, unpaired, within_a_step
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Replicates
from motionexp.results.rows import Row, key_order

MOTION, LEAKED, CHANCE = "velocity_similarity", "nuisance_similarity", "nuisance_chance"


@dataclass(frozen=True)
class Sweep:
    """Samples tuned with the window [tau, 1000], for every tau of `EDGES`; 1000 is the untuned model.

    Attributes:
        motion: (R, 11) similarity of velocities, means over each reference's samples.
        leaked: (R, 11) similarity of the ground's nuisances to the reference's, less that of chance.
        samples: how many there are for each tau.
    """

    motion: np.ndarray
    leaked: np.ndarray
    samples: int

    @property
    def references(self) -> int:
        """R."""
        return len(self.motion)

    @property
    def scores(self) -> Replicates:
        """(1 + RESAMPLES, 11) motion less leakage, as a boundary's gap is looks less motion.

        Both are correlations, 1 where the reference's own video would be returned.
        """
        weights = draw(self.references)
        return means(self.motion, weights) - means(self.leaked, weights)


def read_sweeps(rows: Iterable[Row]) -> dict[Key, Sweep]:
    """{(model, contrast): sweep} of rows of LoRA at full scale and of the untuned model.

    Raises:
        InputError: a tau of the grid is missing, or a reference has no value of one.
    """
    grouped: dict[Key, dict[tuple[str, str], dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        if (
            row.metric in (MOTION, LEAKED, CHANCE)
            and row.adapter_scale == 1
            and row.method in ("lora", "base")
        ):
            grouped[row.model, row.stratum("contrast")][row.metric, row.reference][row.tau].append(row.value)
    return {
        key: _sweep(key, values)
        for key, values in sorted(grouped.items(), key=lambda item: key_order(item[0]))
    }


def _sweep(key: Key, values: Mapping[tuple[str, str], Mapping[float, Sequence[float]]]) -> Sweep:
    references = sorted({reference for _, reference in values})
    metrics = {}
    for metric in (MOTION, LEAKED, CHANCE):
        own = [[values[metric, reference].get(tau, []) for tau in EDGES] for reference in references]
        if not all(each for of_reference in own for each in of_reference):
            raise InputError(
                f"the sweep over tau of {' '.join(key)} lacks some of tau=0,100,...,1000; run it to its end"
                " and publish it"
            )
        metrics[metric] = np.array([[_mean(each) for each in of_reference] for of_reference in own])
    samples = sum(len(values[MOTION, reference][EDGES[0]]) for reference in references)
    return Sweep(metrics[MOTION], metrics[LEAKED] - metrics[CHANCE], samples)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def best_tau(scores: np.ndarray) -> np.ndarray:
    """Where scores (N, 11) over `EDGES` are largest, (N,) in t.

    Between edges by the parabola through the largest and its neighbours.
    """
    place = scores.argmax(1)
    inner = np.clip(place, 1, len(EDGES) - 2)
    rows = np.arange(len(scores))
    before, here, after = (scores[rows, inner + shift] for shift in (-1, 0, 1))
    bend = before - 2 * here + after
    peaked = (place == inner) & (bend < 0)
    shift = np.where(peaked, (before - after) / (2 * np.where(peaked, bend, 1.0)), 0.0)
    return BLOCK * (place + shift)


@dataclass(frozen=True)
class Compared:
    """The best tau of a sweep beside the boundary of the same model and contrast, (1 + RESAMPLES,) each.

    Attributes:
        best: in t.
        boundary: in t; NaN where none was found.
        lost: what tuning at the boundary scores less than at the best tau; see `lost_at`.
        samples, references: of the sweep.
    """

    best: Replicates
    boundary: Replicates
    lost: Replicates
    samples: int
    references: int

    @property
    def difference(self) -> Replicates:
        """Boundary less best tau; the references of both are others, so that draws are not paired."""
        return unpaired(self.boundary) - self.best


def compare(sweep: Sweep, boundary: Boundary) -> Compared | None:
    """Whether tuning does best at the boundary that a probe found without any tuning.

    None where the sweep has fewer references than an interval needs.
    """
    if sweep.references < FEWEST_REFERENCES:
        return None
    best = within_a_step(best_tau(sweep.scores), "best tau")
    return Compared(
        best, boundary.tau, lost_at(sweep, unpaired(boundary.tau)), sweep.samples, sweep.references
    )


def lost_at(sweep: Sweep, tau: Replicates) -> Replicates:
    """What the score at tau lacks of the score at the best tau, (1 + RESAMPLES,); NaN where tau is.

    For each reference the best tau is that of all others: that of its own would be best by chance too, and
    what is lost then always above 0. So below 0 is possible: the boundary does better than a tau that was
    tuned for.
    """
    own = sweep.motion - sweep.leaked
    known = np.isfinite(own)
    total, count = np.where(known, own, 0.0).sum(0), known.sum(0)
    others = (total - np.where(known, own, 0.0)) / np.maximum(count - known, 1)
    at_best = gap_at(own, best_tau(others))
    return _mean_of_each(at_best - _each_at(own, tau), draw(sweep.references))


def score_at(sweep: Sweep, tau: Replicates) -> Replicates:
    """Motion less leakage of tuning in [tau, 1000], (1 + RESAMPLES,), linear between the sweep's values."""
    return _mean_of_each(_each_at(sweep.motion - sweep.leaked, tau), draw(sweep.references))


def _each_at(scores: np.ndarray, tau: Replicates) -> np.ndarray:
    """(N, R) of scores (R, 11) at N timesteps."""
    return np.stack([gap_at(np.broadcast_to(each, (len(tau), len(each))), tau) for each in scores], axis=1)


def _mean_of_each(values: np.ndarray, weights: np.ndarray) -> Replicates:
    """(N,) weighted means over references of (N, R), without those that have no value."""
    weights = np.where(np.isfinite(values), weights, 0.0)
    total = weights.sum(1)
    summed = (weights * np.nan_to_num(values)).sum(1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)
