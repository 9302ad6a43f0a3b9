"""Comparisons of curves: which timesteps are sufficient, what is set first, whether it was predicted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motionexp.probes.analysis.boundary import Boundary, gap_at, largest
from motionexp.probes.analysis.onsets import Onset, shares
from motionexp.probes.analysis.rows import interval, unpaired
from motionexp.probes.analysis.tau_sweep import TauSweep, score_at
from motionexp.probes.timesteps import EDGES, PAIRS, Pair
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at, timestep_at

SUFFICIENT: Pair = (600, 400)
WITHOUT_END: Pair = (600, 0)
"""The pair that the first paper (section 3.1.2) calls sufficient, and the pair with its start and end 0."""


@dataclass(frozen=True)
class PairVerdict:
    """A pair of timesteps, or a difference of two: what it changes as shares of what [0, 1000] changes.

    `start` and `end` are those of the best pair in each replicate; None for a fixed pair.
    """

    label: str
    appearance: Interval | None = None
    clip: Interval | None = None
    motion: Interval | None = None
    gap: Interval | None = None
    start: Interval | None = None
    end: Interval | None = None


def pair_verdicts(
    appearance: Replicates, clip: Replicates, motion: Replicates, samples: int, references: int
) -> list[PairVerdict]:
    """Which pair changes the appearance and preserves the motion, and whether an end above 0 helps.

    The score of a pair is the gap L - C of its shares of changed appearance and changed motion. The interval
    of a selected maximum is corrected for the selection (`boundary.half_width`).

    Args:
        appearance: (1 + N, 11, 11) from `changes`, with a detectable effect.
        clip: (1 + N, 11, 11) of CLIP's score of the new caption, which the second paper (3.2) uses.
        motion: (1 + N, 11, 11); all three are of the same references.
        samples: number of samples.
        references: number of their references.

    Returns:
        The best pair; (600, 400), (600, 0) and their paired difference; the largest increase of the gap, of
        the appearance's share and of CLIP's score by an end above 0, at an equal start.
    """
    by_appearance, by_clip, by_motion = (_by_pair(shares(changed)) for changed in (appearance, clip, motion))
    gaps = by_appearance - by_motion
    columns = (by_appearance, by_clip, by_motion, gaps)

    def verdict(label: str, pair: Pair, minus: Pair | None = None) -> PairVerdict:
        values = [column[:, PAIRS.index(pair)] for column in columns]
        if minus:
            values = [
                value - column[:, PAIRS.index(minus)] for value, column in zip(values, columns, strict=True)
            ]
        return PairVerdict(label, *(interval(value, samples, references) for value in values))

    place, most = largest(gaps, samples, references)
    start, end = (interval(edge, samples, references) for edge in _best_edges(gaps))
    best = verdict(f"best: {_words(PAIRS[place])}", PAIRS[place])
    return [
        replace(best, gap=most, start=start, end=end),
        verdict(_words(SUFFICIENT), SUFFICIENT),
        verdict(_words(WITHOUT_END), WITHOUT_END),
        verdict(f"{_words(SUFFICIENT)} minus {_words(WITHOUT_END)}", SUFFICIENT, WITHOUT_END),
        *_end_above_zero({"gap": gaps, "appearance": by_appearance, "clip": by_clip}, samples, references),
    ]


def _words(pair: Pair) -> str:
    return f"{pair[0]} to {pair[1]}"


def _by_pair(share: Replicates) -> Replicates:
    """(1 + N, 55) in the order of `PAIRS`."""
    return np.stack([share[:, EDGES.index(start), EDGES.index(end)] for start, end in PAIRS], axis=1)


def _best_edges(gaps: Replicates) -> tuple[Replicates, Replicates]:
    """tau_start and tau_end of the best pair, (1 + N,) each; NaN in replicates without shares."""
    finite = np.isfinite(gaps).all(1)
    pairs = np.array(PAIRS, float)[np.where(finite[:, None], gaps, 0.0).argmax(1)]
    pairs[~finite] = np.nan
    return pairs[:, 0], pairs[:, 1]


def _end_above_zero(
    columns: Mapping[str, Replicates], samples: int, references: int
) -> Iterator[PairVerdict]:
    """The largest increase from a pair with end 0 to a pair with its start and another end (45 pairs)."""
    above = [number for number, (_, end) in enumerate(PAIRS) if end > 0]
    same_start = [PAIRS.index((PAIRS[number][0], 0)) for number in above]
    for name, values in columns.items():
        place, most = largest(values[:, above] - values[:, same_start], samples, references)
        pair, whole = PAIRS[above[place]], PAIRS[same_start[place]]
        shown = "CLIP" if name == "clip" else name
        label = f"largest increase of {shown} by an end above 0: {_words(pair)} minus {_words(whole)}"
        yield PairVerdict(label, **{name: most})


@dataclass(frozen=True)
class OnsetDifference:
    """Onset of the motion minus onset of an appearance attribute, in t and in log-SNR.

    Above 0 in t: the motion is set first.
    """

    attribute: str
    t: Replicates
    log_snr: Replicates
    samples: int
    references: int


EARLIEST = "the earliest appearance attribute"


def onset_differences(onsets: Sequence[Onset], log_snr: np.ndarray) -> list[OnsetDifference]:
    """Motion against every appearance attribute, then against the earliest one; empty without both onsets.

    The earliest attribute, selected again in every replicate, decides whether motion is set before
    appearance. The mean of the attributes would be later than the motion even where some are set long before
    it.

    Args:
        onsets: of one model in one contrast, on the same references, so that differences are paired.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    defined = [onset for onset in onsets if np.isfinite(onset.t[0])]
    motion = next((onset for onset in defined if onset.factor.name == "motion"), None)
    appearance = [onset for onset in defined if onset is not motion]
    if motion is None or not appearance:
        return []

    def difference(name: str, t: Replicates, samples: int) -> OnsetDifference:
        nats = log_snr_at(motion.t, log_snr) - log_snr_at(t, log_snr)
        return OnsetDifference(name, motion.t - t, nats, samples, motion.references)

    rows = [difference(onset.factor.name, onset.t, onset.samples) for onset in appearance]
    earliest = np.max([onset.t for onset in appearance], axis=0)
    return [*rows, difference(EARLIEST, earliest, max(onset.samples for onset in appearance))]


def contrast_difference(first: OnsetDifference, second: OnsetDifference) -> OnsetDifference:
    """The difference of two contrasts; their references are independent, so it is not paired."""
    return OnsetDifference(
        first.attribute,
        first.t - unpaired(second.t),
        first.log_snr - unpaired(second.log_snr),
        first.samples + second.samples,
        first.references + second.references,
    )


def excess_over_control(boundary: Boundary, control: Boundary) -> Replicates:
    """The largest gap minus that of the control, (1 + RESAMPLES,); their references are independent."""
    return boundary.gaps.max(1) - unpaired(control.gaps.max(1))


@dataclass(frozen=True)
class OnsetAgreement:
    """How measured onsets agree with predicted ones, over factors; (1 + RESAMPLES,) each, in nats of log-SNR.

    Attributes:
        factors: number of factors.
        correlation: Spearman's rank correlation.
        error: mean absolute error.
        bias: mean of measured minus predicted; positive: set later (with less noise) than predicted.
    """

    factors: int
    correlation: Replicates
    error: Replicates
    bias: Replicates


def onset_agreement(measured: Sequence[Replicates], predicted: Sequence[float]) -> OnsetAgreement | None:
    """Compare measured with predicted log-SNR; None below three factors, where ranks say nothing.

    Args:
        measured: K arrays (1 + N,), without undetermined ones.
        predicted: K numbers, for instance log(4 / energy).
    """
    if len(measured) < 3:
        return None
    points = np.stack(measured, axis=1)
    errors = points - np.asarray(predicted)
    correlation = rank_correlation(points, np.asarray(predicted))
    return OnsetAgreement(len(measured), correlation, np.abs(errors).mean(1), errors.mean(1))


def rank_correlation(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) Spearman's rank correlation of rows of (N, K) with (K,); equal values share their mean rank.

    NaN where a row has NaN or is constant. `scipy.stats.spearmanr` would correlate all N rows with one
    another.
    """
    from scipy.stats import rankdata  # takes a second to import

    ranks, other_ranks = rankdata(values, axis=1), rankdata(other)[None]
    ranks, other_ranks = (r - r.mean(1, keepdims=True) for r in (ranks, other_ranks))
    scale = np.sqrt((ranks**2).sum(1) * (other_ranks**2).sum(1))
    defined = (scale > 0) & np.isfinite(values).all(1)
    return np.where(defined, (ranks * other_ranks).sum(1) / np.where(scale > 0, scale, 1.0), np.nan)


@dataclass(frozen=True)
class TransferLoss:
    """What the boundary of another model loses against a model's own boundary, (1 + RESAMPLES,) each.

    Attributes:
        t: with the boundary taken at the same t.
        log_snr: with the boundary taken at the same log-SNR.
    """

    t: Replicates
    log_snr: Replicates

    @property
    def difference(self) -> Replicates:
        """Positive if the transfer in log-SNR is better."""
        return self.t - self.log_snr


def transfer_loss(
    target: Boundary, target_log_snr: np.ndarray, source: Boundary, source_log_snr: np.ndarray
) -> TransferLoss | None:
    """The gap at the target's boundary minus its gap at the source's, at equal t and at equal log-SNR.

    Both boundaries are found again in each replicate. If two models have the same references, these are
    resampled together. The target's boundary has the largest gap of the target by definition, so no loss is
    negative, and a small loss is noise; the difference of the two losses does not have this bias. None if
    either model has no boundary.

    Args:
        target_log_snr: (1001,) of the target's schedule at t = 0, 1, ... 1000.
        source_log_snr: (1001,) of the source's schedule.
    """
    if not target.found or not source.found:
        return None
    largest_gap = target.gaps.max(1)
    same_noise = timestep_at(log_snr_at(source.tau, source_log_snr), target_log_snr)
    return TransferLoss(
        largest_gap - gap_at(target.gaps, source.tau), largest_gap - gap_at(target.gaps, same_noise)
    )


def tuning_transfer_loss(
    sweep: TauSweep,
    target: Boundary,
    target_log_snr: np.ndarray,
    source: Boundary,
    source_log_snr: np.ndarray,
) -> TransferLoss | None:
    """The score of tuning at the target's boundary minus that at the source's; see `transfer_loss`.

    Args:
        sweep: of the target, on other references than those of the boundaries.
    """
    if not target.found or not source.found:
        return None
    same_noise = timestep_at(log_snr_at(source.tau, source_log_snr), target_log_snr)
    own_score, same_t, same_log_snr = (
        score_at(sweep, unpaired(tau)) for tau in (target.tau, source.tau, same_noise)
    )
    return TransferLoss(own_score - same_t, own_score - same_log_snr)


def mean_loss(losses: Sequence[TransferLoss]) -> TransferLoss:
    """Mean over pairs of models."""
    return TransferLoss(
        np.mean([loss.t for loss in losses], axis=0), np.mean([loss.log_snr for loss in losses], axis=0)
    )
