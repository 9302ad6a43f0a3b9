"""Comparisons of curves: which timesteps are sufficient, what is set first, whether it was predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.probes.analysis.boundary import Boundary, gap_at, largest
from motionexp.probes.analysis.onsets import Onset, shares
from motionexp.probes.analysis.rows import interval, unpaired
from motionexp.probes.analysis.tau_sweep import TauSweep, score_at
from motionexp.probes.timesteps import BLOCK, PAIRS, Pair
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at, timestep_at

SUFFICIENT: Pair = (600, 400)
WITHOUT_END: Pair = (600, 0)
"""The pair that the first paper (section 3.1.2) calls sufficient, and the pair with its start and end 0."""


@dataclass(frozen=True)
class PairEffects:
    """What each pair of timesteps of a probe changes, (1 + RESAMPLES, 11, 11) each, from `onsets.changes`.

    `clip` is CLIP's score of the new caption, which the second paper (3.2) uses. `undetermined` says why no
    shares can be taken; it is empty if they can.
    """

    appearance: Replicates
    clip: Replicates
    motion: Replicates
    samples: int
    references: int
    undetermined: str = ""


def pair_verdicts(effects: PairEffects) -> dict[str, dict[str, Interval]]:
    """Which pair changes the appearance and preserves the motion, and whether an end above 0 helps.

    The score of a pair is the gap L - C of its shares of changed appearance and changed motion. The interval
    of a selected maximum is corrected for the selection (`boundary.half_width`).

    Args:
        effects: determined ones.

    Returns:
        {label: {`appearance`, `clip`, `motion`, `gap`: share of what [0, 1000] changes}} of the best pair;
        of (600, 400), (600, 0) and their paired difference; and of the largest increase of the gap, of the
        appearance's share and of CLIP's score by an end above 0, at an equal start (45 pairs). `start` and
        `end` are those of the best pair in each replicate.
    """
    counts = effects.samples, effects.references
    # 1. Shares of all pairs, (1 + N, 55) in the order of `PAIRS`.
    starts, ends = np.array(PAIRS).T
    changed = {"appearance": effects.appearance, "clip": effects.clip, "motion": effects.motion}
    columns = {name: shares(values)[:, starts // BLOCK, ends // BLOCK] for name, values in changed.items()}
    columns["gap"] = columns["appearance"] - columns["motion"]

    def verdict(place: int, minus: int | None = None) -> dict[str, Interval]:
        return {
            name: interval(values[:, place] - (0 if minus is None else values[:, minus]), *counts)
            for name, values in columns.items()
        }

    # 2. The best pair. Replicates without shares have no best pair.
    place, largest_gap = largest(columns["gap"], *counts)
    finite = np.isfinite(columns["gap"]).all(1)
    best = np.where(finite[:, None], columns["gap"], 0.0).argmax(1)
    edges = {
        name: interval(np.where(finite, values[best], np.nan), *counts)
        for name, values in (("start", starts), ("end", ends))
    }
    # 3. The pairs of the paper.
    sufficient, without_end = PAIRS.index(SUFFICIENT), PAIRS.index(WITHOUT_END)
    verdicts = {
        f"best: {_words(place)}": {**verdict(place), **edges, "gap": largest_gap},
        _words(sufficient): verdict(sufficient),
        _words(without_end): verdict(without_end),
        f"{_words(sufficient)} minus {_words(without_end)}": verdict(sufficient, without_end),
    }
    # 4. Every pair with an end above 0 against the pair with its start and the end 0.
    above = np.flatnonzero(ends > 0)
    whole = np.array([PAIRS.index((start, 0)) for start in starts[above]])
    for name, shown in (("gap", "gap"), ("appearance", "appearance"), ("clip", "CLIP")):
        number, increase = largest(columns[name][:, above] - columns[name][:, whole], *counts)
        words = f"{_words(above[number])} minus {_words(whole[number])}"
        verdicts[f"largest increase of {shown} by an end above 0: {words}"] = {name: increase}
    return verdicts


def _words(place: int) -> str:
    start, end = PAIRS[place]
    return f"{start} to {end}"


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
    # Denoising goes from t = 1000 to 0, so the earliest onset is the largest t.
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
    points = np.stack(measured, axis=1)  # (1 + N, K)
    errors = points - np.asarray(predicted)
    correlation = rank_correlation(points, np.asarray(predicted))
    return OnsetAgreement(len(measured), correlation, np.abs(errors).mean(1), errors.mean(1))


def rank_correlation(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N,) Spearman's rank correlation of rows of (N, K) with (K,); equal values share their mean rank.

    NaN where a row has NaN or is constant. `scipy.stats.spearmanr` would correlate all N rows with one
    another.
    """
    from scipy.stats import rankdata  # takes a second to import

    ranks, reference_ranks = rankdata(values, axis=1), rankdata(reference)[None]
    # Spearman's correlation is Pearson's correlation of the ranks.
    ranks, reference_ranks = (r - r.mean(1, keepdims=True) for r in (ranks, reference_ranks))
    scale = np.sqrt((ranks**2).sum(1) * (reference_ranks**2).sum(1))
    defined = (scale > 0) & np.isfinite(values).all(1)
    return np.where(defined, (ranks * reference_ranks).sum(1) / np.where(scale > 0, scale, 1.0), np.nan)


def transfer_loss(
    target: Boundary,
    target_log_snr: np.ndarray,
    source: Boundary,
    source_log_snr: np.ndarray,
    sweep: TauSweep | None = None,
) -> Replicates | None:
    """What the boundary of another model, the source, loses against the target's own boundary.

    Both boundaries are found again in each replicate. If two models have the same references, these are
    resampled together. The target's boundary has the largest gap of the target by definition, so no loss of
    gap is negative, and a small loss is noise; the difference of two losses does not have this bias.

    Args:
        target_log_snr: (1001,) of the target's schedule at t = 0, 1, ... 1000.
        source_log_snr: (1001,) of the source's schedule.
        sweep: of the target, on other references than those of the boundaries.

    Returns:
        (3, 1 + RESAMPLES): with the source's boundary taken at equal t, at equal log-SNR, and the first loss
        minus the second, which is positive if the transfer in log-SNR is better. A loss is one of the gap, or
        of the score of tuning in `sweep`. None if either model has no boundary.
    """
    if not target.found or not source.found:
        return None
    # The target's t with the noise that the source's boundary has on its own schedule.
    same_noise = timestep_at(log_snr_at(source.tau, source_log_snr), target_log_snr)
    if sweep is None:
        best = target.gaps.max(1)
        at_t, at_log_snr = (gap_at(target.gaps, tau) for tau in (source.tau, same_noise))
    else:
        # Sweeps have the references of the tuning split, so replicates are not paired.
        best, at_t, at_log_snr = (
            score_at(sweep, unpaired(tau)) for tau in (target.tau, source.tau, same_noise)
        )
    loss_t, loss_log_snr = best - at_t, best - at_log_snr
    return np.stack([loss_t, loss_log_snr, loss_t - loss_log_snr])
