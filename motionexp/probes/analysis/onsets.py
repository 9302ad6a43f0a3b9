"""When an attribute is set: cumulative curves over the range of timesteps in which the caption was changed.

Suppose that the attribute of a sample is set at one timestep T. Then a changed caption in [0, s] changes the
attribute if T < s, and a changed caption in [e, 1000] changes it if T >= e. The share of samples that [0, s]
changes, and one minus the share that [e, 1000] changes, are therefore both the distribution function of T.
Where the two curves differ, either part of the trajectory is sufficient alone, or neither part is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.errors import InputError
from motionexp.probes.analysis.rows import (
    APPEARANCE,
    MOTION_TAMPERING,
    TAMPERING,
    Key,
    ProbeValues,
    bootstrap_weights,
    grid_jitter,
    means,
)
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.results.intervals import Replicates


@dataclass(frozen=True)
class Factor:
    """What a curve follows: a metric of a probe that rises, or `falls`, as the new caption takes effect."""

    name: str
    method: str
    metric: str
    falls: bool = False


ATTRIBUTES = (
    Factor("motion", MOTION_TAMPERING, "new_motion"),
    *(Factor(name, TAMPERING, f"new_{name}") for name in APPEARANCE),
)
CONTINUOUS = tuple(
    Factor(f"{label}, {words}", method, metric, falls)
    for label, metric, falls in (
        ("CLIP", "text_alignment", False),
        ("flow lost", "flow_similarity", True),
        ("velocity lost", "velocity_similarity", True),
    )
    for words, method in (("new appearance", TAMPERING), ("new motion", MOTION_TAMPERING))
)
"""Factors that need no classifier; velocities need ground truth."""


@dataclass(frozen=True)
class Onset:
    """When one factor is set, each (1 + RESAMPLES,) in t; NaN where the effect is not detectable.

    Attributes:
        below: the s at which a changed caption in [0, s] has half of the effect of [0, 1000].
        above: the s at which a changed caption in [s, 1000] has half of that effect.
        effect: of [0, 1000] minus the control: share of samples, or in the unit of the metric.
        samples: number of samples with a value.
        references: number of their references.
    """

    factor: Factor
    below: Replicates
    above: Replicates
    effect: Replicates
    samples: int
    references: int

    @property
    def t(self) -> Replicates:
        """The mean of `below` and `above`."""
        return (self.below + self.above) / 2


def changes(values: np.ndarray, weights: np.ndarray) -> Replicates:
    """What a changed caption in each range of timesteps changes, minus the control.

    Args:
        values: (R, 11, 11) as in `ProbeValues.values`; they rise as the changed caption takes effect.
        weights: (1 + N, R) from `bootstrap_weights`.

    Returns:
        (1 + N, 11, 11) of means over references; [:, 10, 0] is the whole range.
    """
    mean = means(values, weights)
    # [0, 0] is the control, like all of the diagonal.
    return mean - mean[:, :1, :1]


def is_detectable(changed: Replicates) -> bool:
    """Whether the 95% interval of the effect of the whole range is above 0.

    If it is not, a share of that effect is a quotient by a number that may be 0.
    """
    whole = changed[:, -1, 0]
    # One-sided at 2.5%: the lower end of the two-sided 95% interval.
    return bool(np.isfinite(whole[0]) and np.nanpercentile(whole[1:], 2.5) > 0)


def shares(changed: Replicates) -> Replicates:
    """Share of the effect of the whole range that each range has: 0 at the control, 1 at [0, 1000].

    Args:
        changed: (1 + N, 11, 11) from `changes`.

    Returns:
        (1 + N, 11, 11); NaN if the effect is not detectable, and in replicates without an effect.
    """
    whole = changed[:, -1, 0]
    # A replicate without an effect has no shares; nor has any replicate if the effect is not detectable.
    scale = np.where((whole > 0) & is_detectable(changed), whole, np.nan)
    return changed / scale[:, None, None]


def from_below(share: np.ndarray) -> np.ndarray:
    """(..., 11) rising from 0 to 1 over `EDGES`: shares of [0, s], s = 0, 100, ... 1000."""
    return share[..., :, 0]


def from_above(share: np.ndarray) -> np.ndarray:
    """(..., 11) rising from 0 to 1 over `EDGES`: 1 minus the shares of [e, 1000], e = 0, 100, ... 1000."""
    return 1 - share[..., -1, :]


def half_point(rising: np.ndarray) -> np.ndarray:
    """Where curves (N, 11) that rise from 0 to 1 over `EDGES` reach 0.5, linear between edges; (N,) in t.

    A noisy curve may cross 0.5 more than once: the result is the middle of the first crossing upwards and the
    last one. NaN gives NaN.
    """
    # 1. A straight line stands in for curves with NaN, whose result is set to NaN at the end.
    finite = np.isfinite(rising).all(1)
    curve = np.where(finite[:, None], rising, np.linspace(0, 1, len(EDGES)))
    rows = np.arange(len(curve))
    # 2. The first edge at or above 0.5, and the last edge below it.
    # argmax of booleans is the first True.
    after = (curve >= 0.5).argmax(1)
    before = len(EDGES) - 1 - (curve < 0.5)[:, ::-1].argmax(1)
    # 3. Both crossings, each between an edge below 0.5 and the next edge; equal if the curve is monotonic.
    crossings = []
    for left in (after - 1, before):
        low, high = curve[rows, left], curve[rows, left + 1]
        crossings.append(BLOCK * (left + (0.5 - low) / (high - low)))
    return np.where(finite, np.mean(crossings, axis=0), np.nan)


def onset(probe: ProbeValues, factor: Factor) -> Onset:
    """When a factor is set according to one probe."""
    # The sign makes both kinds rise, so that one threshold serves all.
    values = -probe.values[factor.metric] if factor.falls else probe.values[factor.metric]
    changed = changes(values, bootstrap_weights(len(values)))
    share = shares(changed)
    # The published intervals were seeded with the word "looks".
    seed = f"{factor.name.replace('appearance', 'looks')} {factor.method}"
    below = grid_jitter(half_point(from_below(share)), f"{seed} from_below")
    above = grid_jitter(half_point(from_above(share)), f"{seed} from_above")
    return Onset(factor, below, above, changed[:, -1, 0], probe.samples(factor.metric), len(values))


def tampering_probes(probes: Mapping[str, Mapping[Key, ProbeValues]], key: Key) -> dict[str, ProbeValues]:
    """{method: values} of the two tampering probes of a model and contrast, on the references of both.

    Raises:
        InputError: both probes were run, but on no common reference.
    """
    methods = (TAMPERING, MOTION_TAMPERING)
    values = {method: probes[method][key] for method in methods if key in probes.get(method, {})}
    # Bootstrap weights are drawn per reference: only shared references can be paired.
    shared = sorted(set.intersection(*(set(probe.references) for probe in values.values()))) if values else []
    if values and not shared:
        raise InputError(
            f"{' and '.join(values)} on {' '.join(key)} share no reference; run both on the same references"
        )
    return {method: probe.of(shared) for method, probe in values.items()}


def onsets(probes: Mapping[str, ProbeValues], factors: Sequence[Factor] = ATTRIBUTES) -> list[Onset]:
    """The onsets of all factors of which the probes {method: values} of one model have values."""
    return [
        onset(probes[factor.method], factor)
        for factor in factors
        if factor.method in probes and np.any(probes[factor.method].counts.get(factor.metric, 0))
    ]
