"""Tables of probes: when each factor is set, in which order, the boundary, and the best timesteps."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from motionexp.probes.analysis.comparisons import (
    OnsetDifference,
    contrast_difference,
    excess_over_control,
    onset_differences,
    pair_verdicts,
)
from motionexp.probes.analysis.onsets import Onset
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.rows import PARTIAL_GUIDANCE, TAMPERING, Key, interval
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at
from motionexp.results.rows import contrast_order

Columns = Mapping[str, int]
"""{heading: digits after the decimal point}"""
Value = Replicates | Interval | None
LOG_SNR = "log-SNR"
STEPS = (
    "Intervals in t and log-SNR include the resolution of curves that are known at every 100th timestep. The"
    " log-SNR is that of the first sampling step below t, where the network first gets the changed caption."
)
EARLIER = "A larger t, or a smaller log-SNR (in nats), is earlier in denoising."
UNPAIRED = "The two contrasts have different references, so their difference is not paired."

ONSET: Columns = {
    "in [0, s]": 0,
    "in [s, 1000]": 0,
    "set at t": 0,
    f"set at {LOG_SNR}": 1,
    f"predicted {LOG_SNR}": 1,
    "effect": 2,
}
ORDER: Columns = {"t": 0, LOG_SNR: 2}
AGREEMENT: Columns = {"rank correlation": 2, "mean absolute error (nats)": 2, "bias (nats)": 2}
BOUNDARY: Columns = {"boundary, t": 0, f"boundary, {LOG_SNR}": 1, "gap": 2}
CONTROL: Columns = {
    "gap, motion-dominant": 2, "gap, appearance-dominant": 2, "motion-dominant minus appearance-dominant": 2,
}  # fmt: skip
TUNING: Columns = {"best τ": 0, "boundary, t": 0, "boundary minus best τ": 0, "loss at the boundary": 2}
TRANSFER: Columns = {
    f"{loss}, {scale}": 2
    for loss in ("loss of gap", "loss in tuning")
    for scale in ("equal t", f"equal {LOG_SNR}", f"t minus {LOG_SNR}")
}
PAIRS: Columns = {
    "from": 0, "to": 0, "appearance changed": 2, "CLIP changed": 2, "motion changed": 2, "gap": 2,
}  # fmt: skip
PAIR_VALUES = ("start", "end", "appearance", "clip", "motion", "gap")
"""The entries of `pair_verdicts` in the order of `PAIRS`."""


def tables(analysis: Analysis) -> dict[str, list[Table]]:
    """Return {file name: its tables} without empty tables."""
    files = {
        "probe_analysis": [onset_table(analysis), order_table(analysis), agreement_table(analysis)],
        "boundary": [
            boundary_table(analysis),
            control_table(analysis),
            tuning_table(analysis),
            transfer_table(analysis),
        ],
        "pairs": [pair_table(analysis)],
    }
    filled = {name: [table for table in file_tables if table.blocks] for name, file_tables in files.items()}
    return {name: file_tables for name, file_tables in filled.items() if file_tables}


def title_of(key: Key) -> str:
    """The model and, where the suite has contrasts, the contrast."""
    return ", ".join(filter(None, key))


def line(
    labels: list[str],
    columns: Columns,
    values: Iterable[Value],
    samples: int,
    references: int,
) -> Line:
    """A line of a table with the interval of every value, a statistic (1 + RESAMPLES,) or an interval."""
    cells = [
        Cell(column, interval(value, samples, references) if isinstance(value, np.ndarray) else value, digits)
        if value is not None
        else None
        for (column, digits), value in zip(columns.items(), values, strict=True)
    ]
    return Line(labels, cells, f"{samples} ({references})", "")


def table(
    title: str,
    labels: list[str],
    columns: Columns,
    blocks: Sequence[Block],
    notes: list[str],
    unit: str = "references",
) -> Table:
    """A table without empty blocks."""
    return Table(title, labels, list(columns), [block for block in blocks if block.lines], notes, unit)


def onset_table(analysis: Analysis) -> Table:
    """When each attribute is set, with the prediction; then the factors that need no classifier."""
    blocks = []
    for key, continuous in analysis.continuous.items():
        onsets = [*analysis.onsets.get(key, []), *continuous]
        blocks.append(Block(title_of(key), [_onset_line(onset, analysis, key) for onset in onsets]))
    notes = [
        "The caption was changed in [0, s], or in [s, 1000]. Each number is the s at which this has half of"
        " the effect of a change in [0, 1000] (a ratio of means over references, linear between steps of"
        " 100). Set at: the mean of both, in t and in log-SNR, by the model's schedule at the first sampling"
        " step below that t, where the network first gets the changed caption.",
        "Predicted: log(4 / energy), from the median energy in the model's latents of pairs of videos that"
        " differ in that factor alone.",
        "Effect: of [0, 1000] minus the control without a changed caption. For an attribute, the share of"
        " samples that show the new value; otherwise in the unit of the metric. If its interval is not above"
        " 0, the onset is undetermined.",
        STEPS,
        EARLIER,
    ]
    return table("When each attribute is set", ["factor"], ONSET, blocks, notes)


def _onset_line(onset: Onset, analysis: Analysis, key: Key) -> Line:
    predicted = analysis.predicted.get((*key, onset.factor.name))
    values = [
        onset.below,
        onset.above,
        onset.t,
        log_snr_at(onset.t, analysis.log_snr[key[0]]),
        None if predicted is None else Interval(predicted, math.nan, math.nan, 0, 0),
        onset.effect,
    ]
    return line([onset.factor.name], ONSET, values, onset.samples, onset.references)


def order_table(analysis: Analysis) -> Table:
    """Is motion set before appearance?"""
    by_key = {key: onset_differences(rows, analysis.log_snr[key[0]]) for key, rows in analysis.onsets.items()}
    blocks = [Block(title_of(key), [_order_line(row) for row in rows]) for key, rows in by_key.items()]
    for (model, contrast), rows in by_key.items():
        control = by_key.get((model, "appearance-dominant"), [])
        if contrast == "motion-dominant" and rows and control:
            difference = contrast_difference(rows[-1], control[-1])
            title = f"{model}, motion-dominant minus appearance-dominant"
            blocks.append(Block(title, [_order_line(difference)]))
    notes = [
        "Onset of the motion minus onset of the appearance attribute, paired by reference. Motion is set"
        " first if t is above 0 (log-SNR below 0) with its whole interval. The earliest attribute decides; it"
        f" is selected again in each bootstrap replicate. {UNPAIRED}",
        EARLIER,
    ]
    return table("Is motion set before appearance?", ["motion minus"], ORDER, blocks, notes)


def _order_line(row: OnsetDifference) -> Line:
    return line([row.attribute], ORDER, [row.t, row.log_snr], row.samples, row.references)


def agreement_table(analysis: Analysis) -> Table:
    """Are measured onsets where energies predict them?"""
    keys = list(analysis.onsets)
    groups = {model: [key for key in keys if key[0] == model] for model in sorted({key[0] for key in keys})}
    if len(groups) > 1:
        groups["all"] = keys
        for contrast in sorted({key[1] for key in keys}, key=contrast_order):
            groups[f"all, {contrast}"] = [key for key in keys if key[1] == contrast]
    lines = [row for name, group in groups.items() if (row := _agreement_line(name, group, analysis))]
    notes = [
        "Over the factors of the models and contrasts in a line. Bias: measured minus predicted; above 0, the"
        " factor is set later than an ideal observer could detect it.",
    ]
    blocks = [Block("log-SNR at which factors are set", lines)]
    return table("Measured and predicted onsets", ["models", "factors"], AGREEMENT, blocks, notes)


def _agreement_line(name: str, keys: list[Key], analysis: Analysis) -> Line | None:
    result = analysis.agreement(keys)
    if result is None:
        return None
    samples = sum(max(onset.samples for onset in analysis.onsets[key]) for key in keys)
    probes = [probe for key in keys for probe in analysis.tampering[key].values()]
    references = len({reference for probe in probes for reference in probe.references})
    values = [result.correlation, result.error, result.bias]
    return line([name, str(result.factors)], AGREEMENT, values, samples, references)


def boundary_table(analysis: Analysis) -> Table:
    """The boundary of each model and contrast."""
    lines = []
    for key, boundary in analysis.boundaries.items():
        values: list[Value] = [boundary.tau, log_snr_at(boundary.tau, analysis.log_snr[key[0]]), boundary.gap]
        lines.append(line([*key, boundary.verdict], BOUNDARY, values, *boundary.counts))
    notes = [
        "The s at which the gap is largest. The gap is the share of an appearance attribute minus the share"
        " of the motion that a changed caption in [0, s] still changes (of what a change in [0, 1000]"
        " changes), for the attribute with the smallest gap. Its interval comes from simultaneous bands over"
        " all s and is therefore corrected for the selection of the largest gap. If it is not above 0, no"
        " boundary exists.",
        STEPS,
    ]
    blocks = [Block("appearance against motion", lines)]
    labels = ["model", "contrast", "verdict"]
    return table("The boundary between motion and appearance", labels, BOUNDARY, blocks, notes)


def control_table(analysis: Analysis) -> Table:
    """Does the control, in which appearance is set as early as motion, have no boundary?"""
    lines = []
    for (model, contrast), control in analysis.boundaries.items():
        boundary = analysis.boundaries.get((model, "motion-dominant"))
        if contrast == "appearance-dominant" and boundary is not None:
            counts = np.add(boundary.counts, control.counts)
            values: list[Value] = [boundary.gap, control.gap, excess_over_control(boundary, control)]
            lines.append(line([model, control.verdict], CONTROL, values, *counts))
    notes = [
        "In appearance-dominant videos the background colour has more energy than the motion. An ideal"
        " observer of noisy videos detects it no later than the motion. A probe of when the model sets"
        " things must therefore find no boundary there. If it finds one, the boundary in motion-dominant"
        " videos is no evidence of what the model sets first; the excess over the control is.",
        UNPAIRED,
    ]
    labels = ["model", "boundary in appearance-dominant"]
    return table("The control", labels, CONTROL, [Block("largest gaps", lines)], notes)


def tuning_table(analysis: Analysis) -> Table:
    """Is tuning best at the boundary of the probe?"""
    lines = [
        line([*key], TUNING, [row.best, row.boundary, row.difference, row.lost], row.samples, row.references)
        for key, row in analysis.tau_comparisons.items()
    ]
    notes = [
        "Best: the τ with the largest score in the sweep over windows [τ, 1000] on the tuning split. The"
        " score is motion minus leakage: similarity of velocities minus similarity of the background texture"
        " above chance. Both are correlations with equal weight; another weight would give another best τ."
        " Loss: the score at the best τ minus the score at the boundary, which was found on other references"
        " and without tuning. For each reference, the best τ is that of all other references, so that it is"
        " not best by chance. Below 0 the boundary was better.",
        STEPS,
    ]
    blocks = [Block("boundary against sweep", lines)]
    return table("Tuning at the boundary", ["model", "contrast"], TUNING, blocks, notes)


def transfer_table(analysis: Analysis) -> Table:
    """What the boundary of one model loses on another model."""
    blocks = []
    for contrast in sorted({contrast for _, contrast in analysis.boundaries}, key=contrast_order):
        rows = list(analysis.transfer_losses(contrast))
        if len(rows) > 1:
            gap_losses, tuning_losses = zip(*(losses for _, _, *losses in rows), strict=True)
            complete = all(loss is not None for loss in tuning_losses)
            mean_tuning = np.mean(tuning_losses, axis=0) if complete else None
            # The counts of the mean are those of the largest target.
            most = max(
                (target for _, target, *_ in rows), key=lambda m: analysis.boundaries[m, contrast].gap.n
            )
            rows.append(("mean", "", np.mean(gap_losses, axis=0), mean_tuning))
        lines = [
            line(
                [source, target],
                TRANSFER,
                [*gap_loss, *([None] * 3 if tuning_loss is None else tuning_loss)],
                *analysis.boundaries[target or most, contrast].counts,
            )
            for source, target, gap_loss, tuning_loss in rows
        ]
        blocks.append(Block(contrast or "all", lines))
    notes = [
        "Loss of gap: the gap at the boundary of the model in `to` minus its gap at the boundary of the model"
        " in `from`, taken at equal t or at equal log-SNR. The gap is at most 1, and largest at the model's"
        " own boundary, so a loss is never below 0. The difference, t minus log-SNR, does not have this bias:"
        " above 0, the transfer in log-SNR is better.",
        "Loss in tuning: the score of the table above (motion minus leakage, on the tuning split) at the"
        " boundary of `to` minus the score at that of `from`, where the sweep over τ was run.",
    ]
    return table("Transfer of a boundary to another model", ["from", "to"], TRANSFER, blocks, notes)


def pair_table(analysis: Analysis) -> Table:
    """Which pair of timesteps changes the appearance and preserves the motion."""
    blocks = []
    for method in (TAMPERING, PARTIAL_GUIDANCE):
        for key, effects in analysis.pair_effects(method):
            reason = effects.undetermined
            verdicts = {reason: {}} if reason else pair_verdicts(effects)
            lines = [
                line([label], PAIRS, map(values.get, PAIR_VALUES), effects.samples, effects.references)
                for label, values in verdicts.items()
            ]
            blocks.append(Block(f"{method.replace('_', ' ')}, {title_of(key)}", lines))
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
    return table("Which timesteps are sufficient", ["pair"], PAIRS, blocks, notes)
