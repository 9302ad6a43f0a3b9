"""The boundary between motion and looks: one timestep, found from the two tampering probes by a stated rule.

What changing the caption in [0, s] changes, as a share of what changing it everywhere changes, is the
distribution function of when a thing is set (`onsets`): L(s) of one of the looks, C(s) of the
motion. A window [s, 1000] that is to carry the motion and leave the looks open wants a large L(s) for each of
them, for then it is still open below s, and a small C(s), for then the motion is set by s.

*Rule.* The gap at s is L(s) - C(s) of that look of which it is smallest, and the boundary is the s at which
the gap is largest. For one look that is the Kolmogorov-Smirnov distance of two distributions, and Youden's J
of the curve that trades changed looks for kept motion: there is no weight, threshold or knee to choose, and
units do not matter. The mean of the looks in place of the least would find a boundary where some are set
long before the motion and others long after it, so that no window divides them. The curves are known at
every 100th timestep; between them the place is that of the parabola through the largest gap and its
neighbours, and of equal gaps it is the middle.

*None.* The largest of several noisy gaps is above 0 even where there is nothing. So each look's gap has a
band that holds at all s at once: its half-width is the 95th percentile, over draws of references, of the
largest deviation at any s. There is a boundary if the bands of all looks are above 0 at one s. If not, some
of the looks are set with the motion or before it, or the references are too few to tell; the interval of the
gap, from the least of the bands' lower ends to the least of their upper ends, says how large a gap may have
been missed.

*Interval.* Of curves that are known at every 100th timestep no more can be said than that, however well the
references agree: so each draw of references also moves the boundary by up to half a step of the grid
(`motionexp.probes.analysis.rows.within_a_step`).

*Cannot tell.* Where changing the whole caption does not change the motion, or one of the looks, there is
nothing to take shares of. And draws from one or two references say little of others, so that no interval
would hold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motionexp.probes.analysis.onsets import changes, from_below, shares, tells
from motionexp.probes.analysis.rows import (
    MOTION_TAMPERING,
    TAMPERING,
    Probe,
    draw,
    each_look,
    interval,
    new_motion,
    within_a_step,
)
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at

FOUND, NONE = "found", "none"
FEWEST_REFERENCES = 3


@dataclass(frozen=True)
class Boundary:
    """One model's boundary in one contrast.

    Attributes:
        verdict: `FOUND`, `NONE`, or why it cannot be told.
        tau: (1 + RESAMPLES,) in t; NaN unless found.
        gap: the largest, with the interval that allows for having picked it.
        looks: {look: L (1 + RESAMPLES, 11) over `EDGES`}.
        motion: C, (1 + RESAMPLES, 11).
    """

    verdict: str
    tau: Replicates
    gap: Interval
    looks: Mapping[str, Replicates]
    motion: Replicates

    @property
    def found(self) -> bool:
        """Whether there is one."""
        return self.verdict == FOUND

    @property
    def gaps(self) -> Replicates:
        """The least L - C of any look, (1 + RESAMPLES, 11) over `EDGES`; 0 at both ends."""
        return _gaps(self.looks, self.motion).min(0)


def boundary_of(probes: Mapping[str, Probe]) -> Boundary:
    """The boundary by the probes {method: probe} of one model and contrast on the same references.

    Looks are `each_look` of tampering. Motion is `new_motion` of motion tampering where there is one, or else
    of tampering itself: what changing the looks' words does to the motion.
    """
    looks = probes[TAMPERING]
    weights = draw(len(looks.references))
    changed = {name: changes(values, weights) for name, values in each_look(looks).items()}
    moved = changes(motion_of(probes), weights)
    return boundary(changed, moved, looks.samples(), len(looks.references))


def motion_of(probes: Mapping[str, Probe]) -> np.ndarray:
    """(R, 11, 11) change of the motion: see `boundary_of`."""
    return new_motion(probes.get(MOTION_TAMPERING, probes[TAMPERING]))


def boundary(looks: Mapping[str, Replicates], motion: Replicates, samples: int, references: int) -> Boundary:
    """The boundary of changed looks and changed motion.

    Args:
        looks: {look: (1 + N, 11, 11) of `changes`}.
        motion: likewise, of the same references.
        samples: how many samples there are, of so many `references`.
    """
    below = {name: from_below(shares(each)) for name, each in looks.items()}
    moved = from_below(shares(motion))
    each = _gaps(below, moved)
    gap = _largest_least(each, samples, references)
    verdict = cannot_tell(looks, motion, references) or (FOUND if gap.low > 0 else NONE)
    nowhere = np.full(each.shape[1], np.nan)
    tau = within_a_step(largest_gap(each.min(0)), "boundary") if verdict == FOUND else nowhere
    return Boundary(verdict, tau, gap, below, moved)


def _gaps(looks: Mapping[str, Replicates], motion: Replicates) -> np.ndarray:
    """(K, 1 + N, 11) of K looks."""
    return np.stack([each - motion for each in looks.values()])


def _largest_least(gaps: np.ndarray, samples: int, references: int) -> Interval:
    """The largest over `EDGES` of the least of gaps (K, 1 + N, 11), with the interval that bands give."""
    half = np.array([[half_width(each, references)] for each in gaps])
    value, low, high = (float((gaps[:, 0] + shift).min(0).max()) for shift in (0, -half, half))
    return Interval(value, low, high, samples, references)


def cannot_tell(looks: Mapping[str, Replicates], motion: Replicates, references: int) -> str:
    """Why shares of looks or motion, of `changes` each, cannot be taken; empty where they can."""
    if references < FEWEST_REFERENCES:
        return f"cannot tell: {references} of the {FEWEST_REFERENCES} references that an interval needs"
    for name, changed in {"motion": motion, **looks}.items():
        if not tells(changed):
            return f"cannot tell: no sure change of the {name}"
    return ""


def in_words(found: Boundary, log_snr: np.ndarray) -> str:
    """The boundary in t and in log-SNR with its intervals, or why there is none, in a line.

    Args:
        found: of one model.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    gap = found.gap
    if not found.found:
        return f"none, gap {_shown(gap, 2)}" if found.verdict == NONE else found.verdict
    draws = (found.tau, log_snr_at(found.tau, log_snr))
    t, nats = (interval(each, gap.n, gap.clusters) for each in draws)
    return f"t = {_shown(t, 0)}, log-SNR {_shown(nats, 1)}, gap {_shown(gap, 2)}"


def _shown(of: Interval, digits: int) -> str:
    return f"{of.mean:.{digits}f} [{of.low:.{digits}f}, {of.high:.{digits}f}]"


def largest(values: Replicates, samples: int, references: int) -> tuple[int, Interval]:
    """Which of (1 + N, K) is largest, and its interval that allows for having picked it; NaN where any is."""
    if np.isnan(values[0]).any():
        return 0, Interval(math.nan, math.nan, math.nan, samples, references)
    place, half = int(values[0].argmax()), half_width(values, references)
    value = float(values[0, place])
    return place, Interval(value, value - half, value + half, samples, references)


def half_width(values: Replicates, references: int) -> float:
    """Half-width of a 95% band around values (1 + N, K) that holds at all K at once.

    The 95th percentile of the draws' largest deviation from the first entry.
    """
    deviations = np.abs(values[1:] - values[0])
    deviations = deviations[np.isfinite(deviations).all(1)]
    if references < 2 or len(deviations) == 0:
        return math.nan
    return float(np.percentile(deviations.max(1), 95))


def largest_gap(gaps: np.ndarray) -> np.ndarray:
    """Where gaps (N, 11) over `EDGES` are largest, between the ends; (N,) in t. NaN gives NaN.

    Between edges by the parabola through the largest and its neighbours; the middle of equal ones.
    """
    known = np.isfinite(gaps).all(1)
    inner = np.where(known[:, None], gaps, 0.0)[:, 1:-1]
    equal = inner >= inner.max(1, keepdims=True) - 1e-9
    first = 1 + equal.argmax(1)
    last = len(EDGES) - 2 - equal[:, ::-1].argmax(1)
    rows = np.arange(len(gaps))
    before, here, after = (gaps[rows, first + shift] for shift in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where(
        (first == last) & (bend < 0), (before - after) / (2 * np.where(bend < 0, bend, 1.0)), 0.0
    )
    return np.where(known, BLOCK * ((first + last) / 2 + np.clip(shift, -0.5, 0.5)), np.nan)


def gap_at(gaps: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Gaps (N, 11) at timesteps (N,) within 0..1000, linear between `EDGES`; (N,)."""
    left = np.clip(np.nan_to_num(t) // BLOCK, 0, len(EDGES) - 2).astype(int)
    rows = np.arange(len(gaps))
    return gaps[rows, left] + (t / BLOCK - left) * (gaps[rows, left + 1] - gaps[rows, left])
