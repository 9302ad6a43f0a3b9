"""Everything that is computed from published probes, once, for tables and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

import numpy as np

from motionexp.probes.analysis.boundary import Boundary, boundary_of, motion_of, undetermined_reason
from motionexp.probes.analysis.comparisons import OnsetAgreement, PairEffects, onset_agreement, transfer_loss
from motionexp.probes.analysis.onsets import CONTINUOUS, Onset, changes, onsets, tampering_probes
from motionexp.probes.analysis.rows import (
    PARTIAL_GUIDANCE,
    TAMPERING,
    Key,
    ProbeValues,
    bootstrap_weights,
    new_appearance,
    predicted_log_snr,
    read_probes,
)
from motionexp.probes.analysis.tau_sweep import TauSweep, read_sweeps
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_at, log_snr_tables
from motionexp.results.rows import Row, key_order


@dataclass(frozen=True)
class Analysis:
    """Probes of several models, and what else decides when things are set.

    Attributes:
        probes: {method: {(model, contrast): values}}.
        log_snr: {model: (1001,) log-SNR of its schedule at t = 0, 1, ... 1000}.
        predicted: {(model, contrast, factor): log-SNR}.
        sweeps: {(model, contrast): results of tuning with windows that begin at each tau}.
        rows: of which all this was read.
    """

    probes: Mapping[str, Mapping[Key, ProbeValues]]
    log_snr: Mapping[str, np.ndarray]
    predicted: Mapping[tuple[str, str, str], float]
    sweeps: Mapping[Key, TauSweep] = field(default_factory=dict)
    rows: Sequence[Row] = ()

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> "Analysis":
        """The analysis of rows of probes, schedules, energies and a sweep over tau."""
        predicted, sweeps = predicted_log_snr(rows), read_sweeps(rows)
        return cls(read_probes(rows), log_snr_tables(rows), predicted, sweeps, rows)

    @cached_property
    def tampering(self) -> dict[Key, dict[str, ProbeValues]]:
        """{(model, contrast): {method: values}} of the tampering probes, on the references of both."""
        keys = sorted({key for probes in self.probes.values() for key in probes}, key=key_order)
        return {key: probes for key in keys if (probes := tampering_probes(self.probes, key))}

    @cached_property
    def onsets(self) -> dict[Key, list[Onset]]:
        """Onsets of the attributes that a classifier reads."""
        return {key: rows for key, probes in self.tampering.items() if (rows := onsets(probes))}

    @cached_property
    def continuous(self) -> dict[Key, list[Onset]]:
        """Onsets of the factors that need no classifier."""
        return {key: onsets(probes, CONTINUOUS) for key, probes in self.tampering.items()}

    @cached_property
    def boundaries(self) -> dict[Key, Boundary]:
        """The boundary of each model and contrast with a tampering probe of the appearance."""
        return {key: boundary_of(probes) for key, probes in self.tampering.items() if TAMPERING in probes}

    def probes_of(self, method: str) -> Mapping[Key, ProbeValues]:
        """{(model, contrast): values} of one probe; of tampering on the references of both its kinds."""
        if method == PARTIAL_GUIDANCE:
            return self.probes.get(method, {})
        return {key: probes[method] for key, probes in self.tampering.items() if method in probes}

    def pair_effects(self, method: str) -> Iterator[tuple[Key, PairEffects]]:
        """Effects of tampering or of partial guidance, for every model and contrast."""
        for key, probe in self.probes_of(method).items():
            # Partial guidance has no edits of the motion's words, so its motion is that of the probe itself.
            moved = motion_of(self.tampering[key] if method == TAMPERING else {TAMPERING: probe})
            references = len(probe.references)
            weights = bootstrap_weights(references)
            appearance, motion = changes(new_appearance(probe), weights), changes(moved, weights)
            clip = changes(probe.values["text_alignment"], weights)
            reason = undetermined_reason({"appearance": appearance}, motion, references)
            yield key, PairEffects(appearance, clip, motion, probe.samples(), references, reason)

    def measured(self, key: Key) -> list[tuple[Onset, np.ndarray, float]]:
        """(onset, its log-SNR (1 + RESAMPLES,), the predicted log-SNR) of factors that have both."""
        return [
            (onset, log_snr_at(onset.t, self.log_snr[key[0]]), self.predicted[place])
            for onset in self.onsets.get(key, [])
            if np.isfinite(onset.t[0]) and (place := (*key, onset.factor.name)) in self.predicted
        ]

    def agreement(self, keys: list[Key]) -> OnsetAgreement | None:
        """How measured and predicted onsets agree over the factors of some models and contrasts."""
        points = [point for key in keys for point in self.measured(key)]
        return onset_agreement([nats for _, nats, _ in points], [predicted for *_, predicted in points])

    def transfer_losses(self, contrast: str) -> Iterator[tuple[str, str, Replicates, Replicates | None]]:
        """(source, target, loss of the gap, loss in tuning) of every ordered pair of models with a boundary.

        The loss in tuning is None without a sweep of the target.
        """
        by_model = {
            model: boundary for (model, name), boundary in self.boundaries.items() if name == contrast
        }
        for source, target in permutations(by_model, 2):
            pair = by_model[target], self.log_snr[target], by_model[source], self.log_snr[source]
            sweep = self.sweeps.get((target, contrast))
            if (loss := transfer_loss(*pair)) is not None:
                yield source, target, loss, transfer_loss(*pair, sweep) if sweep else None
