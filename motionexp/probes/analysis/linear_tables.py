"""Tables of the linear probe's published rows (`make tables`)."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from motionexp.probes.analysis.linear_rows import ACCURACY, BLOCKS, Reading, read
from motionexp.probes.analysis.reports import write_published
from motionexp.probes.analysis.rows import Key, interval
from motionexp.probes.linear_probe import OBSERVER, TARGETS
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_at, log_snr_tables
from motionexp.results.rows import Row
from motionexp.results.tables import write_formats

EXPERIMENT = Path("experiments/linear-probe.yaml")
UNIT = "groups of test videos"
PAPER_T = 600
"""Where "Video Diffusion Models Encode Motion in Early Timesteps" (5.2) says that latents hold the motion."""
READ = 0.84
"""Right of two classes, as d' = 2 gives: where energies say that a factor is set (docs/world.md)."""
LOG_SNR = "log-SNR"


def tables(rows: Sequence[Row]) -> dict[str, list[Table]]:
    """{what is added to the file's name: its tables}."""
    found, log_snr = read(rows), log_snr_tables(rows)
    return {
        "": [
            paper_table(found),
            onset_table(found),
            onset_table(found, log_snr),
        ],
        "-all": [
            every_table("Right of two classes, by timestep", found),
            every_table("Right of all classes, by timestep", read(rows, ACCURACY)),
        ],
    }


def paper_table(found: Mapping[Key, Reading]) -> Table:
    """Is x_t at the paper's t a representation of motion, and not of looks?"""
    blocks = []
    for key, reading in found.items():
        at = int(np.flatnonzero(reading.timesteps == PAPER_T)[0])
        lines = []
        for features in reading.features:
            motion, looks = (
                each[:, at] for each in (reading.draws(features, "motion"), reading.looks(features))
            )
            own = {target: reading.draws(features, target)[:, at] for target in TARGETS}
            shown = own | {"mean of the looks": looks, "motion less looks": motion - looks}
            lines.append(_line(reading, features, features, shown.items(), 2))
        blocks.append(Block(", ".join(key), lines))
    notes = [
        f"Of x_t at t = {PAPER_T}, how often the true class scores above another one; chance is 0.5."
        " Learnt by ridge regression from other videos with noise of their own; every test video has one.",
        "Learnt from x_0: as if from all noises that there are. x_t: from as many as the blocks, which it"
        " compares with. Ideal observer: tells two videos apart that differ in the attribute alone and that"
        " it has both seen without noise, so its pairs are other videos.",
        *_blocks(found),
    ]
    columns = [*TARGETS, "mean of the looks", "motion less looks"]
    return Table(f"Read from x_t at t = {PAPER_T}", ["read from"], columns, blocks, notes, UNIT)


def onset(curves: np.ndarray, timesteps: np.ndarray, level: float = READ) -> np.ndarray:
    """(N,) the noisiest timestep at which curves (N, T) reach a level, linear between them; NaN: none."""
    reached = curves >= level
    last = curves.shape[1] - 1 - reached[:, ::-1].argmax(axis=1)
    following = np.minimum(last + 1, curves.shape[1] - 1)
    each = np.arange(len(curves))
    fall = curves[each, last] - curves[each, following]
    share = np.where(fall > 0, (curves[each, last] - level) / np.where(fall > 0, fall, 1), 0)
    t = timesteps[last] + share * (timesteps[following] - timesteps[last])
    return np.where(reached.any(axis=1), t, np.nan)


def onset_table(found: Mapping[Key, Reading], log_snr: Mapping[str, np.ndarray] | None = None) -> Table:
    """From when on each attribute is read, in t; in log-SNR where its tables {model: (1001,)} are given."""
    blocks = []
    for key, reading in found.items():
        lines = []
        for features in reading.features:
            shown: dict[str, Replicates] = {}
            for target in TARGETS:
                t = onset(reading.draws(features, target), reading.timesteps)
                shown[target] = t if log_snr is None else log_snr_at(t, log_snr[key[0]])
            lines.append(_line(reading, features, features, shown.items(), 0 if log_snr is None else 1))
        blocks.append(Block(", ".join(key), lines))
    unit = "timestep" if log_snr is None else LOG_SNR
    notes = [
        f"The {'largest t' if log_snr is None else 'smallest log-SNR'} at which it is right of two classes in"
        f" {READ:.0%} of cases, linear between timesteps; \N{EN DASH}: at none.",
        *_blocks(found),
    ]
    return Table(f"The noisiest {unit} at which it is read", ["read from"], [*TARGETS], blocks, notes, UNIT)


def every_table(title: str, found: Mapping[Key, Reading]) -> Table:
    """Every number, a block for each kind of features."""
    blocks = []
    for key, reading in found.items():
        for features in reading.features:
            curves = {target: reading.draws(features, target) for target in TARGETS}
            lines = []
            for at, t in enumerate(reading.timesteps):
                shown = [(target, each[:, at]) for target, each in curves.items()]
                lines.append(_line(reading, features, str(t), shown, 2))
            blocks.append(Block(", ".join([*key, features]), lines))
    chance = ", ".join(f"{target} {1 / len(classes):.2f}" for target, classes in TARGETS.items())
    notes = [f"Chance of two classes: 0.5; of all: {chance}.", *_blocks(found)]
    return Table(title, ["t"], [*TARGETS], blocks, notes, UNIT)


def _line(
    reading: Reading, features: str, label: str, shown: Iterable[tuple[str, Replicates]], digits: int
) -> Line:
    count, groups = reading.counts[features], reading.groups(features)
    cells: list[Cell | None] = [
        Cell(column, interval(draws, count, groups), digits) for column, draws in shown
    ]
    return Line([label], cells, f"{count} ({groups})", "")


def _blocks(found: Mapping[Key, Reading]) -> list[str]:
    """Which modules the blocks are, and what the observer's n counts."""
    named = {model: reading.blocks for (model, _), reading in found.items() if reading.blocks}
    lines = [
        f"{model}: {', '.join(f'{place} {own[place]}' for place in BLOCKS if place in own)}."
        for model, own in named.items()
    ]
    observed = any(OBSERVER in reading.features for reading in found.values())
    return lines + ["The observer's n are pairs of videos, an attribute each."] * observed


def write(file: Path, rows: Sequence[Row]) -> list[Path]:
    """Write all tables beside the rows, in three formats each."""
    return [
        path
        for name, made in tables(rows).items()
        for path in write_formats(file.with_name(f"{file.name}{name}"), made)
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the tables of the named experiments, or of the one there is if it is published."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
