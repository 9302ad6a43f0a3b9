"""Tables of the linear probe's published rows (`make tables`)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from motionexp.probes.analysis.linear_rows import (
    ACCURACY,
    BLOCKS,
    OBSERVER,
    TARGETS,
    ProbeAccuracy,
    read_accuracies,
)
from motionexp.probes.analysis.published import write_published
from motionexp.probes.analysis.rows import Key
from motionexp.probes.analysis.tables import LOG_SNR, Entry, table
from motionexp.results.formats import Table
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_at, log_snr_tables
from motionexp.results.rows import Row
from motionexp.results.tables import with_dirty_note, write_formats

EXPERIMENT = Path("experiments/linear-probe.yaml")
UNIT = "groups of test videos"
PAPER_T = 600
"""Where "Video Diffusion Models Encode Motion in Early Timesteps" (5.2) says that latents hold the motion."""
THRESHOLD = 0.84
"""Two-alternative accuracy at d' = 2, the level at which energies call a factor set (docs/world.md)."""


def tables(rows: Sequence[Row]) -> dict[str, list[Table]]:
    """Return {suffix of the file's name: its tables}."""
    accuracies, log_snr = read_accuracies(rows), log_snr_tables(rows)
    return {
        "": [paper_table(accuracies), onset_table(accuracies), onset_table(accuracies, log_snr)],
        "-all": [
            full_table("Two-alternative accuracy, by timestep", accuracies),
            full_table("Accuracy over all classes, by timestep", read_accuracies(rows, ACCURACY)),
        ],
    }


def paper_table(accuracies: Mapping[Key, ProbeAccuracy]) -> Table:
    """Is x_t at the paper's t a representation of motion without appearance?"""

    def at_t(model: str, accuracy: ProbeAccuracy, features: str) -> list[Replicates]:
        place = int(np.flatnonzero(accuracy.timesteps == PAPER_T)[0])
        by_target = [accuracy.draws(features, target)[:, place] for target in TARGETS]
        appearance = accuracy.appearance(features)[:, place]
        return [*by_target, appearance, by_target[0] - appearance]

    notes = [
        f"From x_t at t = {PAPER_T}: how often the true class scores above another one; chance is 0.5. Ridge"
        " regression learns this from other videos, which have other noise. Every test video has one noise.",
        "Learnt from x_0: equal to learning from infinitely many noises of each training video. x_t: learnt"
        " from as many noises as the blocks, for comparison with them. Ideal observer: which of two videos is"
        " it? It has seen both without noise, and they differ in the attribute alone, so its pairs are other"
        " videos.",
    ]
    columns = dict.fromkeys([*TARGETS, "mean of appearance", "motion minus appearance"], 2)
    return _table(f"Two-alternative accuracy at t = {PAPER_T}", columns, accuracies, at_t, notes)


def onset(curves: np.ndarray, timesteps: np.ndarray, level: float = THRESHOLD) -> np.ndarray:
    """(N,) the noisiest timestep at which curves (N, T) reach a level, linear between them; NaN: none."""
    # 1. The last timestep at or above the level, and the one after it, which has more noise.
    reached = curves >= level
    last = curves.shape[1] - 1 - reached[:, ::-1].argmax(axis=1)
    following = np.minimum(last + 1, curves.shape[1] - 1)
    rows = np.arange(len(curves))
    # 2. Linear between both. At the last timestep of all there is nothing to fall to.
    fall = curves[rows, last] - curves[rows, following]
    share = np.where(fall > 0, (curves[rows, last] - level) / np.where(fall > 0, fall, 1), 0)
    t = timesteps[last] + share * (timesteps[following] - timesteps[last])
    return np.where(reached.any(axis=1), t, np.nan)


def onset_table(
    accuracies: Mapping[Key, ProbeAccuracy], log_snr: Mapping[str, np.ndarray] | None = None
) -> Table:
    """The noisiest t at which each attribute is read; in log-SNR if {model: (1001,)} is passed."""

    def onsets(model: str, accuracy: ProbeAccuracy, features: str) -> list[Replicates]:
        t = [onset(accuracy.draws(features, target), accuracy.timesteps) for target in TARGETS]
        return t if log_snr is None else [log_snr_at(at, log_snr[model]) for at in t]

    notes = [
        f"The {'largest t' if log_snr is None else f'smallest {LOG_SNR}'} at which the two-alternative"
        f" accuracy is {THRESHOLD:.0%}, linear between timesteps; \N{EN DASH}: none.",
    ]
    title = f"The noisiest {'timestep' if log_snr is None else LOG_SNR} at which an attribute is read"
    columns = dict.fromkeys(TARGETS, 0 if log_snr is None else 1)
    return _table(title, columns, accuracies, onsets, notes)


def _table(
    title: str,
    columns: Mapping[str, int],
    accuracies: Mapping[Key, ProbeAccuracy],
    values: Callable[[str, ProbeAccuracy, str], list[Replicates]],
    notes: list[str],
) -> Table:
    """A block for each model and contrast, a line for each kind of features.

    Args:
        values: a statistic for each column, from the model, its accuracies and the kind of features.
    """
    blocks = {
        ", ".join(key): [
            _entry(accuracy, features, features, values(key[0], accuracy, features))
            for features in accuracy.features
        ]
        for key, accuracy in accuracies.items()
    }
    return table(title, ["features"], columns, blocks, notes + _block_notes(accuracies), UNIT)


def full_table(title: str, accuracies: Mapping[Key, ProbeAccuracy]) -> Table:
    """Every number, a block for each kind of features."""
    blocks = {}
    for key, accuracy in accuracies.items():
        for features in accuracy.features:
            curves = [accuracy.draws(features, target) for target in TARGETS]
            blocks[", ".join([*key, features])] = [
                _entry(accuracy, features, str(t), [curve[:, at] for curve in curves])
                for at, t in enumerate(accuracy.timesteps)
            ]
    chance = ", ".join(f"{target} {1 / len(classes):.2f}" for target, classes in TARGETS.items())
    notes = [f"Chance of two classes: 0.5; of all: {chance}.", *_block_notes(accuracies)]
    return table(title, ["t"], dict.fromkeys(TARGETS, 2), blocks, notes, UNIT)


def _entry(accuracy: ProbeAccuracy, features: str, label: str, values: list[Replicates]) -> Entry:
    return [label], values, accuracy.counts[features], accuracy.groups(features)


def _block_notes(accuracies: Mapping[Key, ProbeAccuracy]) -> list[str]:
    """Which modules the blocks are, and what the observer's n counts."""
    blocks = {model: accuracy.blocks for (model, _), accuracy in accuracies.items() if accuracy.blocks}
    notes = [
        f"{model}: {', '.join(f'{place} {names[place]}' for place in BLOCKS if place in names)}."
        for model, names in blocks.items()
    ]
    observed = any(OBSERVER in accuracy.features for accuracy in accuracies.values())
    return notes + ["The observer's n counts the pairs of videos of one attribute."] * observed


def write(file: Path, rows: Sequence[Row]) -> list[Path]:
    """Write all tables beside the rows, in three formats each."""
    return [
        path
        for suffix, file_tables in tables(rows).items()
        for path in write_formats(file.with_name(f"{file.name}{suffix}"), with_dirty_note(file_tables, rows))
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the tables of the named experiments, or of `EXPERIMENT` if it is published."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
