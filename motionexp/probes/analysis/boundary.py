"""The boundary between motion and appearance: one timestep, found from the two tampering probes by a rule.

Take what a changed caption in [0, s] changes, as a share of what a changed caption everywhere changes. This
share is the distribution function of when something is set (`onsets`): L(s) for one appearance attribute,
C(s) for the motion. A window [s, 1000] should set the motion and leave the appearance open. It then needs a
large L(s) for every attribute (the attribute is still open at s) and a small C(s) (the motion is set by s).

*Rule.* The gap at s is the smallest L(s) - C(s) of all attributes. The boundary is the s with the largest
gap. For one attribute this gap is the Kolmogorov-Smirnov distance of two distributions, and Youden's J of
the curve of changed appearance against preserved motion. The rule has no weight, threshold or knee to
choose, and does not depend on units. With the mean of the attributes in place of the smallest, it would find
a boundary where some attributes are set long before the motion and others long after it, though no window
separates them. The curves are known at every 100th timestep. Between these the place is the vertex of the
parabola through the largest gap and its neighbours; of equal gaps it is the middle.

*No boundary.* The largest of several noisy gaps is above 0 even without an effect. Each attribute's gap
therefore gets a simultaneous band. Its half-width is the 95th percentile, over bootstrap replicates, of the
largest deviation at any s. A boundary exists if the bands of all attributes are above 0 at one s. Otherwise
some attributes are set with the motion or before it, or there are too few references. The interval of the
gap, from the smallest lower end of the bands to their smallest upper end, says how large a gap may have been
missed.

*Interval.* Curves on a grid of 100 timesteps give no finer resolution, however well the references agree.
Each replicate therefore also moves the boundary by up to half a step of the grid
(`motionexp.probes.analysis.rows.grid_jitter`).

*Undetermined.* If a changed caption does not change the motion, or one of the attributes, no shares can be
taken. Replicates of one or two references say little about other references, so no interval would hold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motionexp.probes.analysis.onsets import changes, from_below, is_detectable, shares
from motionexp.probes.analysis.rows import (
    MOTION_TAMPERING,
    TAMPERING,
    ProbeValues,
    bootstrap_weights,
    grid_jitter,
    interval,
    new_attributes,
    new_motion,
)
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.formats import interval_text
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at

FOUND, NONE = "found", "none"
# Two references have three different bootstrap means, too few for percentiles.
FEWEST_REFERENCES = 3


@dataclass(frozen=True)
class Boundary:
    """The boundary of one model in one contrast.

    Attributes:
        verdict: `FOUND`, `NONE`, or why it is undetermined.
        tau: (1 + RESAMPLES,) in t; NaN unless found.
        gap: the largest gap, with an interval corrected for its selection.
        gaps: the smallest L - C of all attributes, (1 + RESAMPLES, 11) over `EDGES`; 0 at both ends.
        appearance: {attribute: L (1 + RESAMPLES, 11) over `EDGES`}.
        motion: C, (1 + RESAMPLES, 11).
    """

    verdict: str
    tau: Replicates
    gap: Interval
    gaps: Replicates
    appearance: Mapping[str, Replicates]
    motion: Replicates

    @property
    def found(self) -> bool:
        """Whether a boundary exists."""
        return self.verdict == FOUND

    @property
    def counts(self) -> tuple[int, int]:
        """Number of samples and of references."""
        return self.gap.n, self.gap.clusters


def boundary_of(probes: Mapping[str, ProbeValues]) -> Boundary:
    """The boundary from the probes {method: values} of one model and contrast on the same references.

    The appearance is `new_attributes` of tampering. The motion is `motion_of` the probes.
    """
    tampering = probes[TAMPERING]
    # One set of weights (1 + N, R): appearance and motion are resampled together, so the gap is paired.
    weights = bootstrap_weights(len(tampering.references))
    appearance = {name: changes(values, weights) for name, values in new_attributes(tampering).items()}
    motion = changes(motion_of(probes), weights)
    return boundary(appearance, motion, tampering.samples(), len(tampering.references))


def motion_of(probes: Mapping[str, ProbeValues]) -> np.ndarray:
    """(R, 11, 11) change of the motion, from motion tampering if it was run.

    Otherwise from tampering: what changed words about the appearance do to the motion.
    """
    return new_motion(probes.get(MOTION_TAMPERING, probes[TAMPERING]))


def boundary(
    appearance: Mapping[str, Replicates], motion: Replicates, samples: int, references: int
) -> Boundary:
    """The boundary of changed appearance and changed motion.

    Args:
        appearance: {attribute: (1 + N, 11, 11) from `changes`}.
        motion: (1 + N, 11, 11) from `changes`, of the same references.
        samples: number of samples.
        references: number of their references.
    """
    below = {name: from_below(shares(changed)) for name, changed in appearance.items()}
    moved = from_below(shares(motion))
    # 1. The gaps of all K attributes, (K, 1 + N, 11), and a band around each, (K, 1).
    gaps = np.stack([curve - moved for curve in below.values()])
    half = np.array([[half_width(gap, references)] for gap in gaps])
    # 2. The largest over s of the smallest gap: of the estimates, and of the bands' lower and upper ends.
    value, low, high = (float((gaps[:, 0] + shift).min(0).max()) for shift in (0, -half, half))
    # 3. The place, if there is one.
    verdict = undetermined_reason(appearance, motion, references) or (FOUND if low > 0 else NONE)
    smallest = gaps.min(0)
    tau = grid_jitter(peak(smallest), "boundary") if verdict == FOUND else np.full(len(smallest), np.nan)
    gap = Interval(value, low, high, samples, references)
    return Boundary(verdict, tau, gap, smallest, below, moved)


def gap_p(boundary: Boundary) -> float:
    """The smallest level of the simultaneous bands at which the boundary exists; 1 where no gap is above 0.

    At most 0.05 where `found`: the 95% bands of all attributes are then above 0 at one s.
    """
    levels = []
    for curve in boundary.appearance.values():
        gaps = curve - boundary.motion
        deviations = np.abs(gaps[1:] - gaps[0])
        largest_deviations = deviations[np.isfinite(deviations).all(1)].max(1)
        # (11,) share of replicates that deviate as far as zero is; the estimate itself counts as one.
        reached = (largest_deviations[:, None] >= gaps[0]).sum(0) + 1
        levels.append(np.where(gaps[0] > 0, reached / (len(largest_deviations) + 1), 1.0))
    return float(np.max(levels, 0).min())


def undetermined_reason(appearance: Mapping[str, Replicates], motion: Replicates, references: int) -> str:
    """Why no shares of appearance or motion, both from `changes`, can be taken; empty if they can."""
    if references < FEWEST_REFERENCES:
        return f"undetermined: {references} of the {FEWEST_REFERENCES} references that an interval needs"
    for name, changed in {"motion": motion, **appearance}.items():
        if not is_detectable(changed):
            return f"undetermined: no detectable change of the {name}"
    return ""


def in_words(boundary: Boundary, log_snr: np.ndarray) -> str:
    """One line with the boundary in t and in log-SNR and their intervals, or why there is none.

    Args:
        boundary: of one model.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    gap = boundary.gap
    if not boundary.found:
        return f"none, gap {interval_text(gap, 2)}" if boundary.verdict == NONE else boundary.verdict
    t = interval(boundary.tau, *boundary.counts)
    # Each replicate is converted by itself: log-SNR is not linear in t.
    nats = interval(log_snr_at(boundary.tau, log_snr), *boundary.counts)
    return f"t = {interval_text(t, 0)}, log-SNR {interval_text(nats, 1)}, gap {interval_text(gap, 2)}"


def largest(values: Replicates, samples: int, references: int) -> tuple[int, Interval]:
    """Index of the largest of (1 + N, K), and its interval corrected for the selection; NaN if any is."""
    if np.isnan(values[0]).any():
        return 0, Interval(math.nan, math.nan, math.nan, samples, references)
    # The place was chosen by its value: the band of all K places corrects for that.
    place, half = int(values[0].argmax()), half_width(values, references)
    value = float(values[0, place])
    return place, Interval(value, value - half, value + half, samples, references)


def half_width(values: Replicates, references: int) -> float:
    """Half-width of a simultaneous 95% band around values (1 + N, K).

    It is the 95th percentile, over replicates, of the largest deviation from the first entry.
    """
    # (N, K): how far each replicate lies from the estimate. One percentile of the maxima covers all K places.
    deviations = np.abs(values[1:] - values[0])
    deviations = deviations[np.isfinite(deviations).all(1)]
    if references < 2 or len(deviations) == 0:
        return math.nan
    # The maximum over K makes the band simultaneous: it holds at all places at once in 95% of cases.
    return float(np.percentile(deviations.max(1), 95))


def peak(curves: np.ndarray, *, ends: bool = False) -> np.ndarray:
    """Where curves (N, 11) over `EDGES` are largest, without or with both `ends`; (N,) in t. NaN gives NaN.

    The place is the vertex of the parabola through the largest value and its neighbours, or the middle of
    equal largest values.
    """
    # 1. First and last index of the largest value. A gap is 0 at both ends, which is no place for a boundary.
    finite = np.isfinite(curves).all(1)
    filled = np.where(finite[:, None], curves, 0.0)
    searched = filled if ends else np.pad(filled[:, 1:-1], ((0, 0), (1, 1)), constant_values=-np.inf)
    # 1e-9: shares are quotients of counts, and equal ones may differ in their last bits.
    equal = searched >= searched.max(1, keepdims=True) - 1e-9
    first, last = equal.argmax(1), len(EDGES) - 1 - equal[:, ::-1].argmax(1)
    # 2. The vertex lies within half a step of a single largest value that has two neighbours.
    inner = np.clip(first, 1, len(EDGES) - 2)
    before, here, after = (filled[np.arange(len(filled)), inner + shift] for shift in (-1, 0, 1))
    # Second difference; below 0 the three points have a highest vertex.
    bend = before - 2 * here + after
    peaked = (first == last) & (first == inner) & (bend < 0)
    shift = np.where(peaked, (before - after) / (2 * np.where(peaked, bend, 1.0)), 0.0)
    return np.where(finite, BLOCK * ((first + last) / 2 + np.clip(shift, -0.5, 0.5)), np.nan)


def gap_at(gaps: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Gaps (N, 11) at timesteps (N,) within 0..1000, linear between `EDGES`; (N,)."""
    # Index of the edge at or below t; t = 1000 belongs to the last interval.
    left = np.clip(np.nan_to_num(t) // BLOCK, 0, len(EDGES) - 2).astype(int)
    rows = np.arange(len(gaps))
    return gaps[rows, left] + (t / BLOCK - left) * (gaps[rows, left + 1] - gaps[rows, left])
