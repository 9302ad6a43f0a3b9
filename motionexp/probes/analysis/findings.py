"""All that is computed of published probes, once, for tables and figures alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

import numpy as np

from motionexp.probes.analysis.boundary import Boundary, boundary_of, cannot_tell, motion_of
from motionexp.probes.analysis.comparisons import Carried, Fit, carried_into_tuning, carried_over, fit
from motionexp.probes.analysis.onsets import CONTINUOUS, Onset, changes, onsets, tampering_probes
from motionexp.probes.analysis.rows import TAMPERING, Key, Probe, draw, new_looks, new_motion
from motionexp.probes.analysis.tau_sweep import Compared, Sweep, compare
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_at
from motionexp.results.rows import key_order


@dataclass(frozen=True)
class PairChanges:
    """What each pair of timesteps of a probe changes, (1 + RESAMPLES, 11, 11) each, of `curves.changes`.

    `unknown` says why shares of them cannot be taken, and is empty where they can.
    """

    looks: Replicates
    clip: Replicates
    motion: Replicates
    samples: int
    references: int
    unknown: str


@dataclass(frozen=True)
class Findings:
    """Probes of several models, with what else is needed to say where each thing is set.

    Attributes:
        probes: {method: {(model, contrast): probe}}.
        log_snr: {model: (1001,) log-SNR of its schedule at t = 0, 1, ... 1000}.
        predicted: {(model, contrast, factor): log-SNR}.
        sweeps: {(model, contrast): tuning with windows that begin at each tau}.
    """

    probes: Mapping[str, Mapping[Key, Probe]]
    log_snr: Mapping[str, np.ndarray]
    predicted: Mapping[tuple[str, str, str], float]
    sweeps: Mapping[Key, Sweep] = field(default_factory=dict)

    @cached_property
    def tampering(self) -> dict[Key, dict[str, Probe]]:
        """{(model, contrast): {method: probe}} of the tampering probes, on the references that both have."""
        keys = {key for each in self.probes.values() for key in each}
        found = {key: tampering_probes(self.probes, key) for key in sorted(keys, key=key_order)}
        return {key: own for key, own in found.items() if own}

    @cached_property
    def onsets(self) -> dict[Key, list[Onset]]:
        """Of each attribute that a classifier reads."""
        return {key: found for key, own in self.tampering.items() if (found := onsets(own))}

    @cached_property
    def continuous(self) -> dict[Key, list[Onset]]:
        """Of what needs no classifier."""
        return {key: onsets(own, CONTINUOUS) for key, own in self.tampering.items()}

    @cached_property
    def boundaries(self) -> dict[Key, Boundary]:
        """Of each model and contrast with its looks tampered."""
        return {key: boundary_of(own) for key, own in self.tampering.items() if TAMPERING in own}

    def pair_changes(self, method: str) -> Iterator[tuple[Key, PairChanges]]:
        """Of every model and contrast, by tampering or by partial guidance."""
        if method == TAMPERING:
            found = {k: (own[method], motion_of(own)) for k, own in self.tampering.items() if method in own}
        else:
            found = {k: (probe, new_motion(probe)) for k, probe in self.probes.get(method, {}).items()}
        for key, (probe, moved) in found.items():
            weights, references = draw(len(moved)), len(moved)
            looks, motion = changes(new_looks(probe), weights), changes(moved, weights)
            clip = changes(probe.values["text_alignment"], weights)
            unknown = cannot_tell({"looks": looks}, motion, references)
            yield key, PairChanges(looks, clip, motion, probe.samples(), references, unknown)

    def measured(self, key: Key) -> list[tuple[Onset, np.ndarray, float]]:
        """(onset, its log-SNR (1 + RESAMPLES,), the predicted one) of factors that have both."""
        return [
            (each, log_snr_at(each.t, self.log_snr[key[0]]), self.predicted[place])
            for each in self.onsets.get(key, [])
            if np.isfinite(each.t[0]) and (place := (*key, each.factor.name)) in self.predicted
        ]

    def fit(self, keys: list[Key]) -> Fit | None:
        """How measured and predicted onsets agree over the factors of some models and contrasts."""
        points = [point for key in keys for point in self.measured(key)]
        return fit([measured for _, measured, _ in points], [predicted for _, _, predicted in points])

    def carried(self, contrast: str) -> Iterator[tuple[str, str, Carried, Carried | None]]:
        """(from, to, loss of the gap, loss in tuning) of every ordered pair of models with a boundary each.

        Tuning's loss is None where there is no sweep of the second model.
        """
        own = {model: each for (model, where), each in self.boundaries.items() if where == contrast}
        for source, target in permutations(own, 2):
            both = own[target], self.log_snr[target], own[source], self.log_snr[source]
            sweep = self.sweeps.get((target, contrast))
            if (loss := carried_over(*both)) is not None:
                yield source, target, loss, carried_into_tuning(sweep, *both) if sweep else None

    @cached_property
    def compared(self) -> dict[Key, Compared]:
        """The best tau of tuning beside the boundary, where a model has both in a contrast."""
        both = [key for key in self.boundaries if key in self.sweeps]
        found = {key: compare(self.sweeps[key], self.boundaries[key]) for key in both}
        return {key: each for key, each in found.items() if each is not None}
