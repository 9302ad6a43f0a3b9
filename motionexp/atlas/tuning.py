"""Where tuning does best, by a sweep over the window's lower end, to compare with a probe's boundary."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.atlas.boundary import Boundary, gap_at
from motionexp.atlas.readings import Draws, Key, draw, means
from motionexp.config import BLOCK, EDGES, InputError
from motionexp.results import Row

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
    def scores(self) -> Draws:
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
    return {key: _sweep(key, values) for key, values in sorted(grouped.items())}


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
        lost: the score at the best tau less that at the boundary.
        samples, references: of the sweep.
    """

    best: Draws
    boundary: Draws
    lost: Draws
    samples: int
    references: int

    @property
    def difference(self) -> Draws:
        """Boundary less best tau; the references of both are others, so that their draws are independent."""
        return self.boundary - self.best


def compare(sweep: Sweep, boundary: Boundary) -> Compared:
    """Whether tuning does best at the boundary that a probe found without any tuning."""
    scores = sweep.scores
    lost = np.where(np.isfinite(boundary.tau), scores.max(1) - gap_at(scores, boundary.tau), np.nan)
    return Compared(best_tau(scores), boundary.tau, lost, sweep.samples, sweep.references)
