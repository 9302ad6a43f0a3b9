"""What the curves decide: which timesteps are enough, what is set first, and whether that was predicted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motionexp.probes.analysis.boundary import Boundary, gap_at, largest
from motionexp.probes.analysis.onsets import Onset, shares
from motionexp.probes.analysis.rows import interval, unpaired
from motionexp.probes.analysis.tau_sweep import Sweep, score_at
from motionexp.probes.timesteps import EDGES, PAIRS, Pair
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at, timestep_at

ENOUGH: Pair = (600, 400)
WHOLE: Pair = (600, 0)
"""What the first paper's section 3.1.2 says to be enough, and the same without an end."""


@dataclass(frozen=True)
class PairVerdict:
    """A pair, or a pair less another, with what it changes as shares of what [0, 1000] changes.

    `start` and `end` are where the best pair of each draw of references lies; None where the pair was given.
    """

    label: str
    looks: Interval | None = None
    clip: Interval | None = None
    motion: Interval | None = None
    gap: Interval | None = None
    start: Interval | None = None
    end: Interval | None = None


def pair_verdicts(
    looks: Replicates, clip: Replicates, motion: Replicates, samples: int, references: int
) -> list[PairVerdict]:
    """Which pair changes the looks and keeps the motion, and whether ending above 0 helps.

    The score of a pair is the gap L - C of its shares of changed looks and changed motion. The intervals of
    what was picked as the largest allow for having picked it (`boundary.half_width`).

    Args:
        looks: (1 + N, 11, 11) of `changes`; `cannot_tell` has found nothing against taking shares of it.
        clip: likewise, of CLIP's score of the new caption, which the second paper (3.2) goes by.
        motion: as `looks`; all three of the same references.
        samples: how many samples there are, of so many `references`.

    Returns:
        The best pair; (600, 400), (600, 0) and their paired difference; the most that ending above 0 adds,
        at an equal start, to the gap, to the looks and to CLIP's score.
    """
    of_looks, of_clip, of_motion = (_by_pair(shares(each)) for each in (looks, clip, motion))
    gaps = of_looks - of_motion
    shown = (of_looks, of_clip, of_motion, gaps)

    def line(label: str, pair: Pair, less: Pair | None = None) -> PairVerdict:
        values = [each[:, PAIRS.index(pair)] for each in shown]
        if less:
            others = [each[:, PAIRS.index(less)] for each in shown]
            values = [ours - theirs for ours, theirs in zip(values, others, strict=True)]
        return PairVerdict(label, *(interval(each, samples, references) for each in values))

    place, most = largest(gaps, samples, references)
    start, end = (interval(each, samples, references) for each in _picked(gaps))
    best = line(f"best: {_words(PAIRS[place])}", PAIRS[place])
    return [
        replace(best, gap=most, start=start, end=end),
        line(_words(ENOUGH), ENOUGH),
        line(_words(WHOLE), WHOLE),
        line(f"{_words(ENOUGH)} less {_words(WHOLE)}", ENOUGH, WHOLE),
        *_ending_above_zero({"gap": gaps, "looks": of_looks, "clip": of_clip}, samples, references),
    ]


def _words(pair: Pair) -> str:
    return f"{pair[0]} to {pair[1]}"


def _by_pair(share: Replicates) -> Replicates:
    """(1 + N, 55) in the order of `PAIRS`."""
    return np.stack([share[:, EDGES.index(start), EDGES.index(end)] for start, end in PAIRS], axis=1)


def _picked(gaps: Replicates) -> tuple[Replicates, Replicates]:
    """tau_start and tau_end of the best pair, (1 + N,) each; NaN in draws without shares."""
    known = np.isfinite(gaps).all(1)
    pairs = np.array(PAIRS, float)[np.where(known[:, None], gaps, 0.0).argmax(1)]
    pairs[~known] = np.nan
    return pairs[:, 0], pairs[:, 1]


def _ending_above_zero(
    shown: Mapping[str, Replicates], samples: int, references: int
) -> Iterator[PairVerdict]:
    """The most that any of the 45 pairs with an end above 0 adds to that of the same start and end 0."""
    above = [number for number, (_, end) in enumerate(PAIRS) if end > 0]
    same_start = [PAIRS.index((PAIRS[number][0], 0)) for number in above]
    for name, values in shown.items():
        place, most = largest(values[:, above] - values[:, same_start], samples, references)
        pair, whole = PAIRS[above[place]], PAIRS[same_start[place]]
        said = "CLIP" if name == "clip" else name
        label = f"most {said} from ending above 0: {_words(pair)} less {_words(whole)}"
        yield PairVerdict(label, **{name: most})


@dataclass(frozen=True)
class Order:
    """Where motion is set less where some looks are, in t (above 0: motion is earlier) and in log-SNR."""

    looks: str
    t: Replicates
    log_snr: Replicates
    samples: int
    references: int


EARLIEST = "the earliest look"


def orders(onsets: Sequence[Onset], log_snr: np.ndarray) -> list[Order]:
    """Motion against each of the looks, then against the earliest; empty where the motion's onset is unknown.

    The earliest look, picked anew in each draw, decides whether motion comes before looks: their mean would
    say so where some are set long before the motion and others long after it.

    Args:
        onsets: of one model in one contrast, on the same references, so that differences are paired.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    known = [each for each in onsets if np.isfinite(each.t[0])]
    motion = next((each for each in known if each.factor.name == "motion"), None)
    looks = [each for each in known if each is not motion]
    if motion is None or not looks:
        return []

    def order(name: str, t: Replicates, samples: int) -> Order:
        difference = log_snr_at(motion.t, log_snr) - log_snr_at(t, log_snr)
        return Order(name, motion.t - t, difference, samples, motion.references)

    found = [order(each.factor.name, each.t, each.samples) for each in looks]
    earliest = np.max([each.t for each in looks], axis=0)
    return [*found, order(EARLIEST, earliest, max(each.samples for each in looks))]


def less(ours: Order, others: Order) -> Order:
    """One contrast's order less another's; their references are others, so the draws are not paired."""
    t, nats = ours.t - unpaired(others.t), ours.log_snr - unpaired(others.log_snr)
    counts = ours.samples + others.samples, ours.references + others.references
    return Order(ours.looks, t, nats, *counts)


def above_control(ours: Boundary, control: Boundary) -> Replicates:
    """The largest gap less the control's, (1 + RESAMPLES,); their references are others."""
    return ours.gaps.max(1) - unpaired(control.gaps.max(1))


@dataclass(frozen=True)
class Fit:
    """How measured onsets agree with predicted ones over factors, (1 + RESAMPLES,) each, in nats of log-SNR.

    Attributes:
        correlation: Spearman's rank correlation.
        error: mean absolute error.
        bias: mean of measured less predicted; positive: set later (less noise) than predicted.
    """

    factors: int
    correlation: Replicates
    error: Replicates
    bias: Replicates


def fit(measured: Sequence[Replicates], predicted: Sequence[float]) -> Fit | None:
    """Compare measured with predicted log-SNR; None below three factors, where ranks say nothing.

    Args:
        measured: K arrays (1 + N,), without those that could not be told.
        predicted: K numbers, for instance log(4 / energy).
    """
    if len(measured) < 3:
        return None
    points = np.stack(measured, axis=1)
    errors = points - np.asarray(predicted)
    correlation = rank_correlation(points, np.asarray(predicted))
    return Fit(len(measured), correlation, np.abs(errors).mean(1), errors.mean(1))


def rank_correlation(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) Spearman's rank correlation of rows of (N, K) with (K,); equal values share their mean rank."""
    from scipy.stats import rankdata  # takes a second to import

    ours, theirs = rankdata(values, axis=1), rankdata(other)[None]
    ours, theirs = ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True)
    scale = np.sqrt((ours**2).sum(1) * (theirs**2).sum(1))
    known = (scale > 0) & np.isfinite(values).all(1)
    return np.where(known, (ours * theirs).sum(1) / np.where(scale > 0, scale, 1.0), np.nan)


@dataclass(frozen=True)
class Carried:
    """What is lost where another model's boundary is taken for a model's own, (1 + RESAMPLES,) each."""

    t: Replicates
    log_snr: Replicates

    @property
    def t_less_log_snr(self) -> Replicates:
        """Positive where carrying it over in log-SNR loses less."""
        return self.t - self.log_snr


def carried_over(
    own: Boundary, own_log_snr: np.ndarray, other: Boundary, other_log_snr: np.ndarray
) -> Carried | None:
    """The gap at a model's own boundary less that at another's, taken at the same t and at the same log-SNR.

    Both boundaries are found again in each draw; where two models have the same references, these are
    redrawn together. The own boundary is where the own gap is largest, so no loss is negative, and a small
    one is noise; their difference is free of that. None where either model has no boundary.

    Args:
        own_log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000; `other_log_snr` likewise.
    """
    if not own.found or not other.found:
        return None
    at_home = own.gaps.max(1)
    same_noise = timestep_at(log_snr_at(other.tau, other_log_snr), own_log_snr)
    return Carried(at_home - gap_at(own.gaps, other.tau), at_home - gap_at(own.gaps, same_noise))


def carried_into_tuning(
    sweep: Sweep, own: Boundary, own_log_snr: np.ndarray, other: Boundary, other_log_snr: np.ndarray
) -> Carried | None:
    """What tuning at a model's own boundary scores more than at another's; see `carried_over`.

    Args:
        sweep: of the model whose boundary is `own`, on other references than the boundaries'.
    """
    if not own.found or not other.found:
        return None
    same_noise = timestep_at(log_snr_at(other.tau, other_log_snr), own_log_snr)
    at_home, same_t, same_log_snr = (
        score_at(sweep, unpaired(each)) for each in (own.tau, other.tau, same_noise)
    )
    return Carried(at_home - same_t, at_home - same_log_snr)


def mean_carried(losses: Sequence[Carried]) -> Carried:
    """Mean over pairs of models."""
    return Carried(
        np.mean([each.t for each in losses], axis=0), np.mean([each.log_snr for each in losses], axis=0)
    )
