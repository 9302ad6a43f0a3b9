"""The published predictions: `python -m motionexp.scripts.prediction_tables`, which `make tables` runs.

It reads the rows of `experiments/predict.yaml` and of the published probes. It writes the table of
predictions, and the offsets that `python run.py predict` reads. Where probes of the interventions are among
the rows, the table ends in the verdict.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.probes.analysis.linear_rows import BLOCKS, TIMESTEPS, ProbeAccuracy, read_accuracies
from motionexp.probes.analysis.onsets import half_point
from motionexp.probes.analysis.prediction import (
    BOUNDARY,
    CONTRAST,
    FACTORS,
    OFFSETS,
    Energies,
    Offsets,
    as_text,
    in_timesteps,
    onsets_of,
    read_energies,
    read_schedules,
)
from motionexp.probes.analysis.prediction_tables import (
    changed,
    ideal_of,
    intervention_block,
    leave_one_out_table,
    line,
    verdict_table,
)
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.published import read_analysis
from motionexp.probes.analysis.rows import MOTION_TAMPERING, TAMPERING, interval
from motionexp.results.formats import Block, Table
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.layout_file import read_layout
from motionexp.results.log_snr import log_snr_at, log_snr_tables
from motionexp.results.published import is_published, print_files, read_published
from motionexp.results.rows import Row
from motionexp.results.tables import with_dirty_note, write_formats

LAYOUT = Path("experiments/predict.yaml")
LINEAR = Path("experiments/linear-probe.yaml")
BASE = "tiny_latte"
NO_COLOUR, UNCAPTIONED = "no_colour_words", "uncaptioned"
UNTOLD = (NO_COLOUR, UNCAPTIONED)
PROBES = (TAMPERING, MOTION_TAMPERING, "schedule", "energies")
"""Methods of the rows that a boundary needs."""
ACCURACY = 0.84
"""Share of right answers at d' = 2, where an ideal observer's log-SNR is ln(4 / energy)."""
COLUMNS = {"today's log-SNR": 1, "change": 2, "predicted log-SNR": 1, "predicted t": 0, "measured log-SNR": 1}


def measured_of(analysis: Analysis, model: str) -> dict[str, Replicates]:
    """{factor or boundary: (1 + N,) log-SNR at which a model sets it} of motion-dominant videos."""
    key, log_snr = (model, CONTRAST), analysis.log_snr[model]
    measured = {onset.factor.name: log_snr_at(onset.t, log_snr) for onset in analysis.onsets.get(key, [])}
    return measured | {BOUNDARY: log_snr_at(analysis.boundaries[key].tau, log_snr)}


def intervals_of(analysis: Analysis, model: str) -> dict[str, Interval]:
    """As `measured_of`, with intervals over references."""
    counts = analysis.boundaries[model, CONTRAST].counts
    return {name: interval(draws, *counts) for name, draws in measured_of(analysis, model).items()}


def interventions_table(
    energies: Mapping[str, Mapping[str, Energies]],
    schedules: Mapping[str, np.ndarray],
    analysis: Analysis,
    models: Sequence[str],
    probed: Analysis | None,
) -> Table:
    """What the probes of the interventions should measure, and what they did, where they ran."""
    base, today = ideal_of(energies[BASE]), intervals_of(analysis, BASE)

    def block(model: str, ideal: Mapping[str, float], told: Mapping[str, Interval]) -> Block:
        is_probed = probed is not None and (model, CONTRAST) in probed.boundaries
        outcome = intervals_of(probed, model) if probed is not None and is_probed else {}
        return intervention_block(
            model, ideal, base, told, schedules.get(model, schedules[BASE]), COLUMNS, outcome
        )

    blocks = [block(model, ideal_of(energies[model]), today) for model in models]
    # Latents and schedule are today's. No caption tells a colour: tampering cannot change it.
    told = {name: value for name, value in today.items() if name not in ("colour", BOUNDARY)}
    blocks.append(block(NO_COLOUR, base, told))
    notes = [
        f"Today: what the probe measured on {BASE}. Change: of the ideal observer's log-SNR by the"
        " intervention. Predicted: their sum; the interval is that of a new measurement, sqrt(2) times"
        " today's. The error of another pretraining is unknown and not contained. With another schedule t"
        " moves and log-SNR does not.",
        "Half and double: of the objects' colour contrast (chroma). The contrast of luminance is no lever: at"
        " half of the object's whole contrast its motion loses 1.4 nats of energy in pixels, and 0.4 nats in"
        " the latents of this VAE.",
    ]
    about = "Value [95% interval]; n: samples (of how many references)."
    title = f"Interventions on {BASE}"
    return Table(title, ["factor"], list(COLUMNS), blocks, notes, "references", about)


@dataclass(frozen=True)
class LinearProbe:
    """What the linear probe read of one model: accuracies, and the log-SNR (1001,) of its schedule."""

    accuracies: ProbeAccuracy
    log_snr: np.ndarray

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> "dict[str, LinearProbe]":
        """{model: probe} of motion-dominant videos."""
        # Rows of a schedule at t itself have no sampling steps.
        tables = log_snr_tables(row for row in rows if row.method != "schedule" or row.steps == 0)
        accuracies = read_accuracies(rows)
        return {
            model: cls(values, tables[model])
            for (model, contrast), values in accuracies.items()
            if contrast == CONTRAST
        }

    def crossing(self, target: str) -> Replicates:
        """(1 + N,) log-SNR at which the late block is right in `ACCURACY` of cases; or NaN."""
        draws = self.accuracies.draws(BLOCKS[-1], target)
        # `half_point` takes a rising curve.
        rising = ACCURACY - draws + 0.5
        crosses = (rising[:, 0] < 0.5) & (rising[:, -1] > 0.5)
        t = half_point(np.where(crosses[:, None], rising, np.nan))
        # Its edges are every 100th t; the last timestep of the linear probe is 999.
        return log_snr_at(np.minimum(t, TIMESTEPS[-1]), self.log_snr)

    def interval(self, draws: Replicates) -> Interval:
        """The interval of a statistic over groups of videos."""
        return interval(draws, self.accuracies.counts[BLOCKS[-1]], self.accuracies.groups(BLOCKS[-1]))


def untold_table(ideal: Mapping[str, float], probes: Mapping[str, LinearProbe]) -> Table:
    """What the linear probe should read where no caption tells an attribute, if telling is what delays it."""
    base = probes[BASE]
    motion = base.crossing("motion") - ideal["motion"]
    columns = {"today's log-SNR": 1, "predicted log-SNR": 1, "predicted t": 0, "halfway": 1}
    columns |= {"measured log-SNR": 1}
    blocks = []
    for model, names in ((NO_COLOUR, ["colour"]), (UNCAPTIONED, ["colour", "shape", "background"])):
        lines = []
        for name in names:
            today = base.interval(base.crossing(name))
            nats = changed(base.interval(motion), ideal[name])
            halfway = Interval((today.mean + nats.mean) / 2, np.nan, np.nan, 0, 0)
            probe = probes.get(model)
            measured = probe.interval(probe.crossing(name)) if probe else None
            values = [today, nats, in_timesteps(nats, base.log_snr), halfway, measured]
            lines.append(line(name, columns, values, today))
        blocks.append(Block(f"{model}, linear probe", lines))
    notes = [
        "The log-SNR at which a ridge regression on the late temporal block, with the empty caption, is"
        f" right in {ACCURACY:.0%} of cases. Predicted: the offset of the motion today"
        f" ({motion[0]:.1f} nats) in place of the attribute's offset. It holds if a network that no caption"
        " tells has to look. Otherwise nothing changes. Halfway between today and the prediction decides."
        " Today's surfaces never reach this accuracy and are left out.",
    ]
    about = "Value [95% interval]; n: videos (of how many groups)."
    return Table("Where no caption tells", ["factor"], list(columns), blocks, notes, "groups", about)


def references_of(analysis: Analysis, model: str) -> tuple[str, ...]:
    """The references on which a model was probed."""
    return next(iter(analysis.tampering[model, CONTRAST].values())).references


def verdicts_of(
    energies: Mapping[str, Mapping[str, Energies]],
    analysis: Analysis,
    probed: Analysis,
    models: Sequence[str],
) -> dict[str, tuple[np.ndarray, Replicates]]:
    """{label: predicted (P,), measured (1 + N, P)}, of all factors of interventions that were probed."""
    base, today = ideal_of(energies[BASE]), measured_of(analysis, BASE)
    points: dict[str, list[tuple[float, Replicates]]] = {"levels": [], "changes": []}
    for model in models:
        if (names := references_of(probed, model)) != references_of(analysis, BASE):
            raise InputError(
                f"{model}: probed on {', '.join(names)}; the verdict needs the references of {BASE}"
            )
        ideal, measured = ideal_of(energies[model]), measured_of(probed, model)
        for name in filter(measured.__contains__, FACTORS):
            change = ideal[name] - base[name]
            points["levels"].append((float(today[name][0]) + change, measured[name]))
            if "contrast" in model:
                # Replicates of one reference are those of both models: the difference is paired.
                points["changes"].append((change, measured[name] - today[name]))
    return {
        label: (np.array([value for value, _ in pairs]), np.stack([draws for _, draws in pairs], axis=1))
        for label, pairs in points.items()
        if pairs
    }


def tables_of(rows: Sequence[Row], analysis: Analysis, linear: Sequence[Row]) -> list[Table]:
    """All tables of the page of predictions."""
    energies, schedules = read_energies(rows), read_schedules(rows)
    offsets = Offsets(onsets_of(analysis))
    models = [model for model in energies if model not in offsets.models]
    # Rows of the schedule are those of the steps of these probes.
    probes = [
        row
        for row in rows
        if row.method in PROBES
        and row.model in (*models, NO_COLOUR)
        and (row.method != "schedule" or row.steps)
    ]
    probed = Analysis.of_rows(probes) if probes else None
    readings = LinearProbe.of_rows(linear) | LinearProbe.of_rows([row for row in rows if row.model in UNTOLD])
    tables = [
        leave_one_out_table(energies, schedules, offsets),
        interventions_table(energies, schedules, analysis, models, probed),
        untold_table(ideal_of(energies[BASE]), readings),
    ]
    if probed is not None and (
        chosen := [model for model in models if (model, CONTRAST) in probed.boundaries]
    ):
        references = probed.boundaries[chosen[0], CONTRAST].counts[1]
        tables.append(verdict_table(verdicts_of(energies, analysis, probed, chosen), references))
    return tables


def main() -> int:
    """Write the offsets and the page; returns the exit code."""

    def paths() -> Iterator[Path]:
        published = read_analysis([])
        if published is None:
            return
        analysis = published[1]
        write_whole(OFFSETS, as_text(onsets_of(analysis)).encode())
        yield OFFSETS
        layout, linear = read_layout(LAYOUT), read_layout(LINEAR)
        if is_published(LAYOUT, layout) and is_published(LINEAR, linear):
            rows = read_published(Path(layout.rows))
            of_linear = read_published(Path(linear.rows))
            tables = with_dirty_note(tables_of(rows, analysis, of_linear), [*rows, *of_linear])
            yield from write_formats(Path(layout.rows).with_suffix(""), tables)

    return print_files(paths())


if __name__ == "__main__":
    sys.exit(main())
