"""When an attribute is set: cumulative curves over the range of timesteps in which the caption was changed.

If each sample's attribute were set at one timestep T, then changing the caption in [0, s] would change it
where T < s, and changing it in [e, 1000] where T >= e. So the share of samples changed by [0, s], and one
minus the share changed by [e, 1000], are both T's distribution function. Where they differ, either part
alone suffices, or neither does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.probes.analysis.rows import (
    LOOKS,
    MOTION_TAMPERING,
    TAMPERING,
    Key,
    Probe,
    draw,
    means,
    within_a_step,
)
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Replicates

TAMPERINGS = (TAMPERING, MOTION_TAMPERING)


@dataclass(frozen=True)
class Factor:
    """What a curve follows: a probe's metric that rises, or `falls`, where the new caption takes effect."""

    name: str
    method: str
    metric: str
    falls: bool = False


ATTRIBUTES = (
    Factor("motion", MOTION_TAMPERING, "new_motion"),
    *(Factor(look, TAMPERING, f"new_{look}") for look in LOOKS),
)
CONTINUOUS = (
    Factor("CLIP, new looks", TAMPERING, "text_alignment"),
    Factor("CLIP, new motion", MOTION_TAMPERING, "text_alignment"),
    Factor("flow lost, new looks", TAMPERING, "flow_similarity", falls=True),
    Factor("flow lost, new motion", MOTION_TAMPERING, "flow_similarity", falls=True),
    Factor("velocity lost, new looks", TAMPERING, "velocity_similarity", falls=True),
    Factor("velocity lost, new motion", MOTION_TAMPERING, "velocity_similarity", falls=True),
)
"""What needs no classifier; velocities need ground truth."""


@dataclass(frozen=True)
class Onset:
    """When one factor is set, each (1 + RESAMPLES,) in t; NaN where the probe cannot tell.

    Attributes:
        below: where changing the caption from there down to 0 has half of the effect that [0, 1000] has.
        above: where changing it from 1000 down to there has half of it.
        effect: of [0, 1000] less the control: share of samples, or the metric's own unit.
        samples: how many have a value, of so many `references`.
    """

    factor: Factor
    below: Replicates
    above: Replicates
    effect: Replicates
    samples: int
    references: int

    @property
    def t(self) -> Replicates:
        """The mean of both."""
        return (self.below + self.above) / 2


def changes(values: np.ndarray, weights: np.ndarray) -> Replicates:
    """What each range of timesteps changes, less the control; [:, 10, 0] is the whole range.

    Args:
        values: (R, 11, 11) as in `Probe.values`, rising where the changed caption takes effect.
        weights: (1 + N, R) of `draw`.

    Returns:
        (1 + N, 11, 11): of means over references.
    """
    mean = means(values, weights)
    return mean - mean[:, :1, :1]


def tells(changed: Replicates) -> bool:
    """Whether the whole range changes anything: the 95% interval of its effect is above 0.

    Where it is not, shares of the effect are quotients by a number that may be 0, and nothing can be said.
    """
    whole = changed[:, -1, 0]
    return bool(np.isfinite(whole[0]) and np.nanpercentile(whole[1:], 2.5) > 0)


def shares(changed: Replicates) -> Replicates:
    """Share of the whole range's effect that each range has: 0 at the control, 1 at [0, 1000].

    `changed` is of `changes`, (1 + N, 11, 11), as is the result. NaN where `tells` says no, and in draws
    without effect.
    """
    whole = changed[:, -1, 0]
    scale = np.where((whole > 0) & tells(changed), whole, np.nan)
    return changed / scale[:, None, None]


def from_below(share: np.ndarray) -> np.ndarray:
    """(..., 11) rising from 0 to 1 over `EDGES`: shares of [0, s], s = 0, 100, ... 1000."""
    return share[..., :, 0]


def from_above(share: np.ndarray) -> np.ndarray:
    """(..., 11) rising from 0 to 1 over `EDGES`: one less the shares of [e, 1000], e = 0, 100, ... 1000."""
    return 1 - share[..., -1, :]


def half_point(rising: np.ndarray) -> np.ndarray:
    """Where curves (N, 11) that rise from 0 to 1 over `EDGES` reach a half, linear between edges; (N,) in t.

    Noise may take a curve across more than once: then the middle of the first time up and the last. NaN gives
    NaN.
    """
    known = np.isfinite(rising).all(1)
    curve = np.where(known[:, None], rising, np.linspace(0, 1, len(EDGES)))
    rows = np.arange(len(curve))
    after = (curve >= 0.5).argmax(1)
    before = len(EDGES) - 1 - (curve < 0.5)[:, ::-1].argmax(1)
    crossings = []
    for left in (after - 1, before):
        low, high = curve[rows, left], curve[rows, left + 1]
        crossings.append(BLOCK * (left + (0.5 - low) / (high - low)))
    return np.where(known, np.mean(crossings, axis=0), np.nan)


def onset(probe: Probe, factor: Factor) -> Onset:
    """When a factor is set according to one probe, with draws over its references."""
    values = -probe.values[factor.metric] if factor.falls else probe.values[factor.metric]
    changed = changes(values, draw(len(values)))
    share = shares(changed)
    below, above = (
        within_a_step(half_point(rising(share)), f"{factor.name} {factor.method} {rising.__name__}")
        for rising in (from_below, from_above)
    )
    return Onset(factor, below, above, changed[:, -1, 0], probe.samples(factor.metric), len(values))


def tampering_probes(probes: Mapping[str, Mapping[Key, Probe]], key: Key) -> dict[str, Probe]:
    """{method: probe} of the two tampering probes on a model and contrast, on the references that both have.

    Raises:
        InputError: both were run, on references of which none is the same.
    """
    own = {method: probes[method][key] for method in TAMPERINGS if key in probes.get(method, {})}
    shared = sorted(set.intersection(*(set(each.references) for each in own.values()))) if own else []
    if own and not shared:
        raise InputError(f"{' and '.join(own)} on {' '.join(key)} share no reference; run both on the same")
    return {method: each.of(shared) for method, each in own.items()}


def onsets(probes: Mapping[str, Probe], factors: Sequence[Factor] = ATTRIBUTES) -> list[Onset]:
    """Of all factors of which the probes {method: probe} of one model and contrast have values."""
    return [
        onset(probes[factor.method], factor)
        for factor in factors
        if factor.method in probes and np.any(probes[factor.method].counts.get(factor.metric, 0))
    ]
