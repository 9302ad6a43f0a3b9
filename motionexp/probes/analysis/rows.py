"""A probe's rows as arrays: one value for each reference and each range of timesteps in which it intervened.

Statistics here are arrays (1 + RESAMPLES, ...): from all references first, then from each bootstrap draw of
them. What is computed from such arrays, element by element, has its draws at once, and differences are
paired by reference.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Interval, Replicates, percentile_interval, resampled_weights
from motionexp.results.rows import Row, key_order

LOOKS = ("colour", "shape", "surface", "background")
TAMPERING, MOTION_TAMPERING, PARTIAL_GUIDANCE = "tampering", "motion_tampering", "partial_guidance"
ENERGIES = "energies"

Key = tuple[str, str]
"""(model, contrast); suites without contrasts have an empty one."""
Subject = tuple[str, str, int | None, str]
"""A row's `subject` and its edit's caption: a user's own edits are all of one kind."""

_PLACES = {
    **{(str(a), str(b)): (i, j) for i, a in enumerate(EDGES) for j, b in enumerate(EDGES) if j < i},
    ("none", "none"): (0, 0),
    ("reference", "reference"): (11, 11),
}
"""Where the value of (tau_start, tau_end) is kept: by their indices in `EDGES`, or of no intervention."""


@dataclass(frozen=True)
class Probe:
    """One probe on one model in one contrast.

    Attributes:
        references: R names, sorted.
        values: {metric: (R, 11, 11)} means of each reference's edits, at the indices of tau_start and
            tau_end in `EDGES`. The diagonal holds the control (partial guidance has none: the reference's
            own video); beyond it, and where no edit of a reference has a value, NaN.
        counts: {metric: (R,)} how many of each reference's edits have a value.
    """

    references: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]

    def of(self, references: Sequence[str]) -> "Probe":
        """The same of some of its references."""
        kept = [self.references.index(each) for each in references]
        values, counts = (
            {name: each[kept] for name, each in of.items()} for of in (self.values, self.counts)
        )
        return Probe(tuple(references), values, counts)

    def samples(self, metric: str = "") -> int:
        """How many samples have a value of a metric, or of the metric that most have one of."""
        return max(int(self.counts[name].sum()) for name in ([metric] if metric else self.counts))


def read_probes(rows: Iterable[Row]) -> dict[str, dict[Key, Probe]]:
    """{method: {(model, contrast): probe}} of all rows that have a pair of timesteps.

    Raises:
        InputError: a timestep that is not on the grid, two values of one pair, or a pair that is missing.
    """
    grouped: dict[tuple[str, Key], list[Row]] = defaultdict(list)
    for row in rows:
        if row.tau_start:
            grouped[row.method, (row.model, row.stratum("contrast"))].append(row)
    probes: dict[str, dict[Key, Probe]] = defaultdict(dict)
    for (method, key), own in sorted(grouped.items(), key=lambda item: (item[0][0], key_order(item[0][1]))):
        probes[method][key] = _probe(own)
    return dict(probes)


def _probe(rows: Sequence[Row]) -> Probe:
    subjects = sorted({_subject(row) for row in rows}, key=str)
    index = {subject: number for number, subject in enumerate(subjects)}
    cells: dict[str, np.ndarray] = defaultdict(lambda: np.full((len(subjects), 12, 12), np.nan))
    seen: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(subjects), 12, 12), bool))
    for row in rows:
        if (pair := _PLACES.get((row.tau_start, row.tau_end))) is None:
            raise InputError(f"{_words(row)}: not on the grid of {EDGES[0]}, {EDGES[1]}, ... {EDGES[-1]}")
        place = index[_subject(row)], *pair
        if seen[row.metric][place]:
            raise InputError(f"two values of {_words(row)}: they differ in a setting; publish rows of one")
        seen[row.metric][place] = True
        cells[row.metric][place] = row.value
    _check_complete(rows[0], subjects, seen)
    references = tuple(sorted({subject[0] for subject in subjects}))
    values, counts = {}, {}
    for metric, each in cells.items():
        control = np.where(seen[metric][:, 0, 0], each[:, 0, 0], each[:, 11, 11])
        grid = each[:, :11, :11]
        grid[:, range(11), range(11)] = control[:, None]
        own = [grid[[index[subject] for subject in subjects if subject[0] == name]] for name in references]
        values[metric] = np.stack([_mean(edits) for edits in own])
        counts[metric] = np.array([np.isfinite(edits).any((1, 2)).sum() for edits in own])
    return Probe(references, values, counts)


def _subject(row: Row) -> Subject:
    return *row.subject, row.edit_caption


def _words(row: Row) -> str:
    return (
        f"{row.metric}, {row.method} on {row.model}, {row.reference}, edit {row.edit_kind!r}, from t ="
        f" {row.tau_start} until {row.tau_end}"
    )


def _check_complete(row: Row, subjects: Sequence[Subject], seen: Mapping[str, np.ndarray]) -> None:
    pairs = np.tri(len(EDGES), k=-1, dtype=bool)
    for metric, each in seen.items():
        has_pairs = (each[:, :11, :11] | ~pairs).all((1, 2))
        complete = has_pairs & (each[:, 0, 0] | each[:, 11, 11])
        if not complete.all():
            reference, kind, *_ = subjects[int(complete.argmin())]
            raise InputError(
                f"{row.method} on {row.model}, {reference}, edit {kind!r}: some of the {pairs.sum()} pairs of"
                f" timesteps have no {metric}, or no control; run the probe to its end and publish it"
            )


def _mean(arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Mean of those that are not NaN, place by place."""
    there = np.isfinite(arrays)
    total, count = np.where(there, arrays, 0.0).sum(0), there.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def each_look(probe: Probe) -> dict[str, np.ndarray]:
    """{look: (R, 11, 11) share of samples in which a classifier reads the edit's value}.

    Of each of `LOOKS` that some edit replaces. Without a classifier one look, `text_alignment`.
    """
    return _readings(probe, "new") or {"looks": probe.values["text_alignment"]}


def new_looks(probe: Probe) -> np.ndarray:
    """(R, 11, 11) how much of the looks is the edit's: the mean of `each_look`."""
    return _mean(list(each_look(probe).values()))


def kept_looks(probe: Probe) -> np.ndarray | None:
    """(R, 11, 11) share of the reference's looks that a classifier still reads; None without one."""
    read = _readings(probe, "old")
    return _mean(list(read.values())) if read else None


def _readings(probe: Probe, which: str) -> dict[str, np.ndarray]:
    found = {look: probe.values.get(f"{which}_{look}") for look in LOOKS}
    return {look: each for look, each in found.items() if each is not None and np.isfinite(each).any()}


def new_motion(probe: Probe) -> np.ndarray:
    """(R, 11, 11) how much of the motion is no longer the reference's, rising with what changes.

    The share of samples in which a classifier reads the edit's motion, where edits replace it; or else the
    negative of flow similarity.
    """
    read = probe.values.get("new_motion")
    return read if read is not None and np.isfinite(read).any() else -probe.values["flow_similarity"]


def draw(references: int) -> Replicates:
    """(1 + RESAMPLES, R) weights: of all references evenly, then of each draw with replacement."""
    return np.vstack([np.full((1, references), 1 / references), resampled_weights(references)])


def unpaired(draws: Replicates) -> Replicates:
    """The same draws in another order, to go with draws of other references.

    Draws of as many references are the same draws, and of another number of references similar ones, which
    would pair what is independent.
    """
    return np.concatenate([draws[:1], draws[:0:-1]])


def within_a_step(t: Replicates, purpose: str) -> Replicates:
    """Timesteps (1 + RESAMPLES,) read off curves over `EDGES`, with what these cannot tell in the draws.

    A curve may rise anywhere between two edges, so that a place that is read off by a line or a parabola may
    be wrong by half a step: each draw is moved evenly by up to so much. `purpose` seeds that.
    """
    rng = np.random.RandomState(zlib.crc32(purpose.encode()))
    return np.concatenate([t[:1], np.clip(t[1:] + rng.uniform(-BLOCK / 2, BLOCK / 2, len(t) - 1), 0, 1000)])


def means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, ...) means of (R, ...) over the first axis with weights (N, R), NaN left out; NaN where all are."""
    flat = values.reshape(len(values), -1)
    there = np.isfinite(flat)
    result = weights @ np.where(there, flat, 0.0)
    partly = ~there.all(0)
    weight = weights @ there[:, partly].astype(float)
    result[:, partly] = np.where(weight > 0, result[:, partly] / np.where(weight > 0, weight, 1.0), np.nan)
    return result.reshape(len(weights), *values.shape[1:])


def interval(draws: Replicates, samples: int, references: int) -> Interval:
    """A statistic (1 + RESAMPLES,) with the 95% interval of its draws, NaN below two references."""
    known = references > 1 and not math.isnan(draws[0])
    low, high = percentile_interval(draws[1:]) if known else (math.nan, math.nan)
    return Interval(float(draws[0]), low, high, samples, references)


def predicted_log_snr(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """{(model, contrast, factor): log-SNR at which an ideal observer tells it apart}, from rows of energies.

    Such a row has the method `energies` and the metric `energy`, an energy in the model's latents as its
    value (`motionexp.data.shapes.energies`), and the strata `contrast` and `factor`.
    """
    return {
        (row.model, row.stratum("contrast"), row.stratum("factor")): math.log(4 / row.value)
        for row in rows
        if row.method == ENERGIES
    }
