"""A probe's rows as arrays: one value for each reference and each range of timesteps with an intervention.

Statistics in this package are arrays (1 + RESAMPLES, ...). The first entry is computed from all references,
and every further entry from one bootstrap replicate of the references. Arithmetic on such arrays therefore
keeps the replicates, and a difference of two of them is paired by reference.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motionexp.errors import InputError
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Interval, Replicates, percentile_interval, resampled_weights
from motionexp.results.rows import Row, key_order

APPEARANCE = ("colour", "shape", "surface", "background")
TAMPERING, MOTION_TAMPERING, PARTIAL_GUIDANCE = "tampering", "motion_tampering", "partial_guidance"

Key = tuple[str, str]
"""(model, contrast); the contrast is empty in suites without contrasts."""
Subject = tuple[str, str, int | None, str]
"""A row's `subject` and the caption of its edit: the edits of a user all have the same kind."""

_PLACES = {
    **{(str(a), str(b)): (i, j) for i, a in enumerate(EDGES) for j, b in enumerate(EDGES) if j < i},
    ("none", "none"): (0, 0),
    ("reference", "reference"): (11, 11),
}
"""Array indices of (tau_start, tau_end): their positions in `EDGES`, or the place of the control."""


@dataclass(frozen=True)
class ProbeValues:
    """The values of one probe on one model in one contrast.

    Attributes:
        references: R names, sorted.
        values: {metric: (R, 11, 11)} means over the edits of a reference, at the indices of tau_start and
            tau_end in `EDGES`. The diagonal holds the control; partial guidance has no control, and its
            diagonal holds the value of the reference's video. Above the diagonal, and where no edit of a
            reference has a value, it is NaN.
        counts: {metric: (R,)} number of edits of each reference that have a value.
    """

    references: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]

    def of(self, references: Sequence[str]) -> "ProbeValues":
        """Select some of the references."""
        rows = [self.references.index(name) for name in references]
        values, counts = (
            {metric: array[rows] for metric, array in arrays.items()} for arrays in (self.values, self.counts)
        )
        return ProbeValues(tuple(references), values, counts)

    def samples(self, metric: str = "") -> int:
        """Count the samples that have a value of `metric`; without one, of the most frequent metric."""
        return max(int(self.counts[name].sum()) for name in ([metric] if metric else self.counts))


def read_probes(rows: Iterable[Row]) -> dict[str, dict[Key, ProbeValues]]:
    """Return {method: {(model, contrast): values}} of all rows that have a pair of timesteps.

    Raises:
        InputError: a timestep that is not on the grid, two values of one pair, or a missing pair.
    """
    grouped: dict[tuple[str, Key], list[Row]] = defaultdict(list)
    for row in rows:
        if row.tau_start:
            grouped[row.method, (row.sampled_model, row.stratum("contrast"))].append(row)
    probes: dict[str, dict[Key, ProbeValues]] = defaultdict(dict)
    for method, key in sorted(grouped, key=lambda place: (place[0], key_order(place[1]))):
        probes[method][key] = _probe_values(grouped[method, key])
    return dict(probes)


def _probe_values(rows: Sequence[Row]) -> ProbeValues:
    # 1. Put every value into a grid: subject x 12 x 12, where the twelfth place is that of the reference.
    subjects = sorted({_subject(row) for row in rows}, key=str)
    index = {subject: number for number, subject in enumerate(subjects)}
    cells: dict[str, np.ndarray] = defaultdict(lambda: np.full((len(subjects), 12, 12), np.nan))
    # A metric may abstain with NaN, so a missing row needs a mask of its own.
    filled: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(subjects), 12, 12), bool))
    for row in rows:
        if (pair := _PLACES.get((row.tau_start, row.tau_end))) is None:
            raise InputError(f"{_words(row)}: not on the grid of {EDGES[0]}, {EDGES[1]}, ... {EDGES[-1]}")
        place = index[_subject(row)], *pair
        if filled[row.metric][place]:
            raise InputError(f"two values of {_words(row)}: they differ in a setting; publish rows of one")
        filled[row.metric][place] = True
        cells[row.metric][place] = row.value
    _check_complete(rows[0], subjects, filled)
    # 2. Average over the edits of each reference; the control goes onto the diagonal.
    names = [subject[0] for subject in subjects]
    references = tuple(sorted(set(names)))
    values, counts = {}, {}
    for metric, cell in cells.items():
        # Partial guidance has no control; the reference's video takes its place.
        control = np.where(filled[metric][:, 0, 0], cell[:, 0, 0], cell[:, 11, 11])
        grid = cell[:, :11, :11]
        grid[:, range(11), range(11)] = control[:, None]
        by_reference = [grid[[name == reference for name in names]] for reference in references]
        values[metric] = np.stack([finite_mean(edits) for edits in by_reference])
        counts[metric] = np.array([np.isfinite(edits).any((1, 2)).sum() for edits in by_reference])
    return ProbeValues(references, values, counts)


def _subject(row: Row) -> Subject:
    return *row.subject, row.edit_caption


def _words(row: Row) -> str:
    return (
        f"{row.metric}, {row.method} on {row.model}, {row.reference}, edit {row.edit_kind!r}, from t ="
        f" {row.tau_start} until {row.tau_end}"
    )


def _check_complete(row: Row, subjects: Sequence[Subject], filled: Mapping[str, np.ndarray]) -> None:
    # The 55 pairs, whose start lies above their end.
    pairs = np.tri(len(EDGES), k=-1, dtype=bool)
    for metric, cells in filled.items():
        has_pairs = (cells[:, :11, :11] | ~pairs).all((1, 2))
        complete = has_pairs & (cells[:, 0, 0] | cells[:, 11, 11])
        if not complete.all():
            reference, kind, *_ = subjects[int(complete.argmin())]
            raise InputError(
                f"{row.method} on {row.model}, {reference}, edit {kind!r}: some of the {pairs.sum()} pairs of"
                f" timesteps have no {metric}, or no control; run the probe to its end and publish it"
            )


def finite_mean(arrays: npt.ArrayLike) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where all are."""
    finite = np.isfinite(arrays)
    total, count = np.where(finite, arrays, 0.0).sum(0), finite.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def new_attributes(probe: ProbeValues) -> dict[str, np.ndarray]:
    """Return {attribute: (R, 11, 11) share of samples in which a classifier reads the edit's value}.

    It has each attribute of `APPEARANCE` that some edit replaces. Without a classifier it has one entry,
    `appearance`, which is `text_alignment`.
    """
    return _attributes(probe, "new") or {"appearance": probe.values["text_alignment"]}


def new_appearance(probe: ProbeValues) -> np.ndarray:
    """(R, 11, 11) mean of `new_attributes`: how much of the appearance is that of the edit."""
    return finite_mean(list(new_attributes(probe).values()))


def old_appearance(probe: ProbeValues) -> np.ndarray | None:
    """(R, 11, 11) share of the reference's appearance that a classifier still reads; None without one."""
    shares = _attributes(probe, "old")
    return finite_mean(list(shares.values())) if shares else None


def _attributes(probe: ProbeValues, prefix: str) -> dict[str, np.ndarray]:
    values = {name: probe.values.get(f"{prefix}_{name}") for name in APPEARANCE}
    return {name: array for name, array in values.items() if array is not None and np.isfinite(array).any()}


def new_motion(probe: ProbeValues) -> np.ndarray:
    """(R, 11, 11) how far the motion is from the reference's; it rises with the change.

    The share of samples in which a classifier reads the edit's motion, if edits replace the motion. Otherwise
    the negative of flow similarity.
    """
    shares = probe.values.get("new_motion")
    return shares if shares is not None and np.isfinite(shares).any() else -probe.values["flow_similarity"]


def bootstrap_weights(references: int) -> Replicates:
    """(1 + RESAMPLES, R) weights: equal ones first, then those of each bootstrap replicate."""
    return np.vstack([np.full((1, references), 1 / references), resampled_weights(references)])


def unpaired(draws: Replicates) -> Replicates:
    """Reverse the replicates, so that they can be combined with those of independent references.

    Replicates of R references are always the same. Without this, two independent sets of R references would
    be treated as paired.
    """
    return np.concatenate([draws[:1], draws[:0:-1]])


def grid_jitter(t: Replicates, purpose: str) -> Replicates:
    """Add the uncertainty of the grid to the replicates of timesteps (1 + RESAMPLES,) read off over `EDGES`.

    A curve may rise anywhere between two edges, so an interpolated place may be wrong by half a step. Each
    replicate is moved by a uniform number within half a step; `purpose` seeds these numbers.
    """
    # RandomState's numbers never change between versions of numpy.
    rng = np.random.RandomState(zlib.crc32(purpose.encode()))
    return np.concatenate([t[:1], np.clip(t[1:] + rng.uniform(-BLOCK / 2, BLOCK / 2, len(t) - 1), 0, 1000)])


def means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, ...) means of (R, ...) over the first axis with weights (N, R), without NaN; NaN where all are."""
    # One matrix product for all columns; only columns with NaN need sums of weights.
    flat = values.reshape(len(values), -1)
    finite = np.isfinite(flat)
    # Weighted sums as if nothing were missing, right for all columns without NaN.
    result = weights @ np.where(finite, flat, 0.0)
    partly = ~finite.all(0)
    # Elsewhere the weights of the missing rows do not count: (N, columns with NaN).
    weight = weights @ finite[:, partly].astype(float)
    result[:, partly] = np.where(weight > 0, result[:, partly] / np.where(weight > 0, weight, 1.0), np.nan)
    return result.reshape(len(weights), *values.shape[1:])


def interval(draws: Replicates, samples: int, references: int) -> Interval:
    """The 95% interval of a statistic (1 + RESAMPLES,); its bounds are NaN below two references."""
    defined = references > 1 and not math.isnan(draws[0])
    low, high = percentile_interval(draws[1:]) if defined else (math.nan, math.nan)
    return Interval(float(draws[0]), low, high, samples, references)


def predicted_log_snr(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """Return {(model, contrast, factor): log-SNR at which an ideal observer detects the factor}.

    Args:
        rows: those with the method `energies` are taken. Their value is an energy in the model's latents
            (`motionexp.data.shapes.energies`), and their strata are `contrast` and `factor`.
    """
    rows = list(rows)
    # Energies are a model's, whatever the shift of its sampling steps.
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names[row.model].add(row.sampled_model)
    # d' = sqrt(SNR) |D| is 2 where SNR |D|^2 is 4; d' = 2 is 84% correct. `value` is |D|^2.
    return {
        (name, row.stratum("contrast"), row.stratum("factor")): math.log(4 / row.value)
        for row in rows
        if row.method == "energies"
        for name in names[row.model]
    }
