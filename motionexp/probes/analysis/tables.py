"""Tables of probes: when each factor is set, in which order, the boundary, and the best timesteps."""

import math
from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np

from motionexp.probes.analysis.comparisons import (
    contrast_difference,
    excess_over_control,
    onset_differences,
    pair_verdicts,
)
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.rows import PARTIAL_GUIDANCE, TAMPERING, Key, interval
from motionexp.probes.analysis.tau_sweep import compare
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at
from motionexp.results.rows import contrast_order

Value = Replicates | Interval | None
Entry = tuple[list[str], Iterable[Value], int, int]
"""A line of a table: labels, a value for each column, number of samples and of references."""
LOG_SNR = "log-SNR"
STEPS = (
    "Intervals in t and log-SNR include the resolution of curves that are known at every 100th timestep. The"
    " log-SNR is that of the first sampling step below t, where the network first gets the changed caption."
)
EARLIER = "A larger t, or a smaller log-SNR (in nats), is earlier in denoising."
UNPAIRED = "The two contrasts have different references, so their difference is not paired."
PAIR_COLUMNS = {
    "from": "start", "to": "end", "appearance changed": "appearance", "CLIP changed": "clip",
    "motion changed": "motion", "gap": "gap",
}  # fmt: skip
"""{heading: entry of `pair_verdicts`}"""


def tables(analysis: Analysis) -> dict[str, list[Table]]:
    """Return {file name: its tables} without empty tables."""
    files = {
        "probe_analysis": [onset_table(analysis), order_table(analysis), agreement_table(analysis)],
        "boundary": [
            make(analysis) for make in (boundary_table, control_table, tuning_table, transfer_table)
        ],
        "pairs": [pair_table(analysis)],
    }
    filled = {name: [table for table in file_tables if table.blocks] for name, file_tables in files.items()}
    return {name: file_tables for name, file_tables in filled.items() if file_tables}


def title_of(key: Key) -> str:
    """The model and, where the suite has contrasts, the contrast."""
    return ", ".join(filter(None, key))


def table(
    title: str,
    labels: list[str],
    columns: Mapping[str, int],
    blocks: Mapping[str, Iterable[Entry]],
    notes: list[str],
    unit: str = "references",
) -> Table:
    """A table with the interval of every value, a statistic (1 + RESAMPLES,) or an interval.

    Args:
        columns: {heading: digits after the decimal point}.
        blocks: {title: lines}; empty blocks are left out.
        unit: what is resampled.
    """

    def cell(column: str, value: Value, samples: int, references: int) -> Cell | None:
        if isinstance(value, np.ndarray):
            value = interval(value, samples, references)
        return None if value is None else Cell(column, value, columns[column])

    filled = []
    for name, entries in blocks.items():
        lines = []
        for line_labels, values, *counts in entries:
            cells = [cell(column, value, *counts) for column, value in zip(columns, values, strict=True)]
            lines.append(Line(line_labels, cells, "{} ({})".format(*counts), ""))
        filled += [Block(name, lines)] if lines else []
    return Table(title, labels, list(columns), filled, notes, unit)


def onset_table(analysis: Analysis) -> Table:
    """When each attribute is set, with the prediction; then the factors that need no classifier."""
    blocks: dict[str, list[Entry]] = {}
    for key, continuous in analysis.continuous.items():
        lines = blocks[title_of(key)] = []
        for onset in [*analysis.onsets.get(key, []), *continuous]:
            energy = analysis.predicted.get((*key, onset.factor.name))
            # A prediction has no interval and no samples.
            predicted = None if energy is None else Interval(energy, math.nan, math.nan, 0, 0)
            nats = log_snr_at(onset.t, analysis.log_snr[key[0]])
            values = [onset.below, onset.above, onset.t, nats, predicted, onset.effect]
            lines.append(([onset.factor.name], values, onset.samples, onset.references))
    notes = [
        "The caption was changed in [0, s], or in [s, 1000]. Each number is the s at which this has half of"
        " the effect of a change in [0, 1000] (a ratio of means over references, linear between steps of"
        " 100). Set at: the mean of both.",
        "Predicted: log(4 / energy), from the median energy in the model's latents of pairs of videos that"
        " differ in that factor alone.",
        "Effect: of [0, 1000] minus the control without a changed caption. For an attribute, the share of"
        " samples that show the new value; otherwise in the unit of the metric. If its interval is not above"
        " 0, the onset is undetermined.",
        STEPS,
        EARLIER,
    ]
    columns = {"in [0, s]": 0, "in [s, 1000]": 0, "set at t": 0, f"set at {LOG_SNR}": 1}
    columns |= {f"predicted {LOG_SNR}": 1, "effect": 2}
    return table("When each attribute is set", ["factor"], columns, blocks, notes)


def order_table(analysis: Analysis) -> Table:
    """Is motion set before appearance?"""
    by_key = {key: onset_differences(rows, analysis.log_snr[key[0]]) for key, rows in analysis.onsets.items()}
    differences = {title_of(key): rows for key, rows in by_key.items()}
    for (model, contrast), rows in by_key.items():
        control = by_key.get((model, "appearance-dominant"), [])
        # The last row is that of the earliest attribute, which decides.
        if contrast == "motion-dominant" and rows and control:
            title = f"{model}, motion-dominant minus appearance-dominant"
            differences[title] = [contrast_difference(rows[-1], control[-1])]
    blocks = {
        title: [([row.attribute], [row.t, row.log_snr], row.samples, row.references) for row in rows]
        for title, rows in differences.items()
    }
    notes = [
        "Onset of the motion minus onset of the appearance attribute, paired by reference. Motion is set"
        " first if t is above 0 (log-SNR below 0) with its whole interval. The earliest attribute decides; it"
        f" is selected again in each bootstrap replicate. {UNPAIRED}",
        EARLIER,
    ]
    columns = {"t": 0, LOG_SNR: 2}
    return table("Is motion set before appearance?", ["motion minus"], columns, blocks, notes)


def agreement_table(analysis: Analysis) -> Table:
    """Are measured onsets where energies predict them?"""
    keys = list(analysis.onsets)
    groups = {model: [key for key in keys if key[0] == model] for model in sorted({key[0] for key in keys})}
    if len(groups) > 1:
        groups["all"] = keys
        for contrast in sorted({key[1] for key in keys}, key=contrast_order):
            groups[f"all, {contrast}"] = [key for key in keys if key[1] == contrast]
    lines: list[Entry] = []
    for name, group in groups.items():
        if (result := analysis.agreement(group)) is not None:
            # Factors have different numbers of samples; the largest number of each model and contrast counts.
            samples = sum(max(onset.samples for onset in analysis.onsets[key]) for key in group)
            probes = [probe for key in group for probe in analysis.tampering[key].values()]
            references = len({reference for probe in probes for reference in probe.references})
            values = [result.correlation, result.error, result.bias]
            lines.append(([name, str(result.factors)], values, samples, references))
    notes = [
        "Over the factors of the models and contrasts in a line. Bias: measured minus predicted; above 0, the"
        " factor is set later than an ideal observer could detect it.",
    ]
    columns = dict.fromkeys(["rank correlation", "mean absolute error (nats)", "bias (nats)"], 2)
    blocks = {"log-SNR at which factors are set": lines}
    return table("Measured and predicted onsets", ["models", "factors"], columns, blocks, notes)


def boundary_table(analysis: Analysis) -> Table:
    """The boundary of each model and contrast."""
    lines: list[Entry] = []
    for key, boundary in analysis.boundaries.items():
        nats = log_snr_at(boundary.tau, analysis.log_snr[key[0]])
        lines.append(([*key, boundary.verdict], [boundary.tau, nats, boundary.gap], *boundary.counts))
    notes = [
        "The s at which the gap is largest. The gap is the share of an appearance attribute minus the share"
        " of the motion that a changed caption in [0, s] still changes (of what a change in [0, 1000]"
        " changes), for the attribute with the smallest gap. Its interval comes from simultaneous bands over"
        " all s and is therefore corrected for the selection of the largest gap. If it is not above 0, no"
        " boundary exists.",
        STEPS,
    ]
    labels, columns = (
        ["model", "contrast", "verdict"],
        {"boundary, t": 0, f"boundary, {LOG_SNR}": 1, "gap": 2},
    )
    blocks = {"appearance against motion": lines}
    return table("The boundary between motion and appearance", labels, columns, blocks, notes)


def control_table(analysis: Analysis) -> Table:
    """Does the control, in which appearance is set as early as motion, have no boundary?"""
    lines: list[Entry] = []
    for (model, contrast), control in analysis.boundaries.items():
        boundary = analysis.boundaries.get((model, "motion-dominant"))
        if contrast == "appearance-dominant" and boundary is not None:
            counts = np.add(boundary.counts, control.counts)
            values = [boundary.gap, control.gap, excess_over_control(boundary, control)]
            lines.append(([model, control.verdict], values, *counts))
    notes = [
        "In appearance-dominant videos the background colour has more energy than the motion. An ideal"
        " observer of noisy videos detects it no later than the motion. A probe of when the model sets"
        " things must therefore find no boundary there. If it finds one, the boundary in motion-dominant"
        " videos is no evidence of what the model sets first; the excess over the control is.",
        UNPAIRED,
    ]
    contrasts = "motion-dominant", "appearance-dominant"
    columns = dict.fromkeys([*(f"gap, {contrast}" for contrast in contrasts), " minus ".join(contrasts)], 2)
    labels = ["model", "boundary in appearance-dominant"]
    return table("The control", labels, columns, {"largest gaps": lines}, notes)


def tuning_table(analysis: Analysis) -> Table:
    """Is tuning best at the boundary of the probe?"""
    lines: list[Entry] = []
    for key, boundary in analysis.boundaries.items():
        sweep = analysis.sweeps.get(key)
        if sweep and (row := compare(sweep, boundary)):
            values = [row.best, row.boundary, row.difference, row.lost]
            lines.append(([*key], values, sweep.samples, sweep.references))
    notes = [
        "Best: the τ with the largest score in the sweep over windows [τ, 1000] on the tuning split. The"
        " score is motion minus leakage: similarity of velocities minus similarity of the background texture"
        " above chance. Both are correlations with equal weight; another weight would give another best τ."
        " Loss: the score at the best τ minus the score at the boundary, which was found on other references"
        " and without tuning. For each reference, the best τ is that of all other references, so that it is"
        " not best by chance. Below 0 the boundary was better.",
        STEPS,
    ]
    columns = {"best τ": 0, "boundary, t": 0, "boundary minus best τ": 0, "loss at the boundary": 2}
    blocks = {"boundary against sweep": lines}
    return table("Tuning at the boundary", ["model", "contrast"], columns, blocks, notes)


def transfer_table(analysis: Analysis) -> Table:
    """What the boundary of one model loses on another model."""
    blocks: dict[str, list[Entry]] = {}
    for contrast in sorted({contrast for _, contrast in analysis.boundaries}, key=contrast_order):
        lines = blocks[contrast or "all"] = []
        rows = list(analysis.transfer_losses(contrast))
        for source, target, gap_loss, tuning_loss in rows:
            values = [*gap_loss, *([None] * 3 if tuning_loss is None else tuning_loss)]
            lines.append(([source, target], values, *analysis.boundaries[target, contrast].counts))
        if len(rows) > 1:
            # A mean needs the losses of all pairs; its counts are those of the target with most samples.
            columns_of_pairs = zip(*(values for _, values, *_ in lines), strict=True)
            means: list[Value] = [
                None if any(loss is None for loss in losses) else np.mean(losses, axis=0)
                for losses in columns_of_pairs
            ]
            counts = max(analysis.boundaries[target, contrast].counts for _, target, *_ in rows)
            lines.append((["mean", ""], means, *counts))
    notes = [
        "Loss of gap: the gap at the boundary of the model in `to` minus its gap at the boundary of the model"
        " in `from`, taken at equal t or at equal log-SNR. The gap is at most 1, and largest at the model's"
        " own boundary, so a loss is never below 0. The difference, t minus log-SNR, does not have this bias:"
        " above 0, the transfer in log-SNR is better.",
        "Loss in tuning: the score of the table above (motion minus leakage, on the tuning split) at the"
        " boundary of `to` minus the score at that of `from`, where the sweep over τ was run.",
    ]
    losses = product(("loss of gap", "loss in tuning"), ("equal t", f"equal {LOG_SNR}", f"t minus {LOG_SNR}"))
    columns = dict.fromkeys(map(", ".join, losses), 2)
    return table("Transfer of a boundary to another model", ["from", "to"], columns, blocks, notes)


def pair_table(analysis: Analysis) -> Table:
    """Which pair of timesteps changes the appearance and preserves the motion."""
    blocks: dict[str, list[Entry]] = {}
    for method in (TAMPERING, PARTIAL_GUIDANCE):
        for key, effects in analysis.pair_effects(method):
            reason = effects.undetermined
            verdicts = {reason: {}} if reason else pair_verdicts(effects)
            blocks[f"{method.replace('_', ' ')}, {title_of(key)}"] = [
                ([label], map(values.get, PAIR_COLUMNS.values()), effects.samples, effects.references)
                for label, values in verdicts.items()
            ]
    notes = [
        "A pair (from, to) changes the caption, or has guidance, in that range alone. Numbers are shares of"
        " what 1000 to 0 changes. Gap: appearance minus motion. The intervals of the best of the 55 pairs,"
        " and of the largest increase by an end above 0, are corrected for the selection. `from` and `to`"
        " have the intervals of the best pair of each bootstrap replicate.",
        "Appearance: attributes that the classifier reads. CLIP: its score of the new caption, which the"
        " second paper uses.",
        "Motion: the share of samples with the new motion if the motion's words were changed, otherwise the"
        " loss of flow similarity. Partial guidance has no control; it is compared with the reference's"
        " video.",
    ]
    columns = {name: 0 if name in ("from", "to") else 2 for name in PAIR_COLUMNS}
    return table("Which timesteps are sufficient", ["pair"], columns, blocks, notes)
