"""The tables of probes: when each thing is set, in what order, the boundary, and the best timesteps."""

import math
from collections.abc import Sequence

from motionexp.probes.analysis.boundary import Boundary
from motionexp.probes.analysis.comparisons import (
    Carried,
    Order,
    above_control,
    less,
    mean_carried,
    orders,
    pair_verdicts,
)
from motionexp.probes.analysis.findings import Findings, PairChanges
from motionexp.probes.analysis.onsets import Onset
from motionexp.probes.analysis.rows import PARTIAL_GUIDANCE, TAMPERING, Key, interval
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import log_snr_at
from motionexp.results.rows import contrast_order

UNIT = "references"
LOG_SNR = "log-SNR"
STEPS = (
    "Intervals in t and log-SNR allow for curves that are known at every 100th timestep alone. The log-SNR is"
    " that of the first sampling step below t, where the network first hears the changed caption."
)
EARLIER = "A larger t, and a smaller log-SNR (in nats), is earlier along denoising."


def tables(findings: Findings) -> dict[str, list[Table]]:
    """{file name: its tables}; a table with nothing in it is left out."""
    made = {
        "probe_analysis": [onset_table(findings), order_table(findings), fit_table(findings)],
        "boundary": [
            boundary_table(findings),
            control_table(findings),
            tuning_table(findings),
            carried_table(findings),
        ],
        "pairs": [pair_table(findings)],
    }
    kept = {
        name: [table for table in each if any(b.lines for b in table.blocks)] for name, each in made.items()
    }
    return {name: each for name, each in kept.items() if each}


def title_of(key: Key) -> str:
    """The model and, where the suite has contrasts, the contrast."""
    return ", ".join(filter(None, key))


def onset_table(findings: Findings) -> Table:
    """When each attribute is set, beside the prediction; then what needs no classifier."""
    blocks = []
    for key in findings.tampering:
        found = [*findings.onsets.get(key, []), *findings.continuous[key]]
        lines = [_onset_line(each, findings, key) for each in found]
        blocks.append(Block(title_of(key), lines))
    notes = [
        "The caption was changed in [0, s], or in [s, 1000]; each number is the s at which that has half"
        " the effect of changing it in [0, 1000] (a ratio of means over references, linear between steps"
        " of 100). Set at: the mean of both, in t and in log-SNR, by the model's own schedule at the first"
        " sampling step below that t, where the network first hears the changed caption.",
        "Predicted: log(4 / energy), from the median energy in the model's latents of pairs of videos that"
        " differ in that factor alone.",
        "Effect: of [0, 1000] less the control without a changed caption: of an attribute the share of"
        " samples that show the new value, else in the metric's own unit. Where its interval is not above"
        " 0, nothing is told.",
        STEPS,
        EARLIER,
    ]
    columns = ["in [0, s]", "in [s, 1000]", "set at t", f"set at {LOG_SNR}", f"predicted {LOG_SNR}", "effect"]
    return Table("When each attribute is set", ["factor"], columns, blocks, notes, UNIT)


def _onset_line(onset: Onset, findings: Findings, key: Key) -> Line:
    def cell(column: str, draws: Replicates, digits: int) -> Cell:
        return Cell(column, interval(draws, onset.samples, onset.references), digits)

    predicted = findings.predicted.get((*key, onset.factor.name), math.nan)
    cells: list[Cell | None] = [
        cell("below", onset.below, 0),
        cell("above", onset.above, 0),
        cell("t", onset.t, 0),
        cell(LOG_SNR, log_snr_at(onset.t, findings.log_snr[key[0]]), 1),
        _number("predicted", predicted, 1),
        cell("effect", onset.effect, 2),
    ]
    return _line([onset.factor.name], cells, onset.samples, onset.references)


def _number(column: str, value: float, digits: int) -> Cell | None:
    return None if math.isnan(value) else Cell(column, Interval(value, math.nan, math.nan, 0, 0), digits)


def _line(labels: list[str], cells: Sequence[Cell | None], samples: int, references: int) -> Line:
    return Line(labels, list(cells), f"{samples} ({references})", "")


def order_table(findings: Findings) -> Table:
    """Is motion set before looks?"""
    found = {key: orders(onsets, findings.log_snr[key[0]]) for key, onsets in findings.onsets.items()}
    blocks = [Block(title_of(key), [_order_line(each) for each in own]) for key, own in found.items()]
    for (model, contrast), ours in found.items():
        others = found.get((model, "appearance-dominant"), [])
        if contrast == "motion-dominant" and ours and others:
            blocks.append(
                Block(
                    f"{model}, motion-dominant less appearance-dominant",
                    [_order_line(less(ours[-1], others[-1]))],
                )
            )
    notes = [
        "Where motion is set less where the looks are, paired by reference: motion is set first where t is"
        " above 0 (log-SNR below 0) with its whole interval. The earliest look decides, picked anew in each"
        " draw of references. The contrasts have other references, so their difference is not paired.",
        EARLIER,
    ]
    return Table("Is motion set before looks?", ["motion less"], ["t", LOG_SNR], _kept(blocks), notes, UNIT)


def _order_line(each: Order) -> Line:
    values = (("t", each.t, 0), (LOG_SNR, each.log_snr, 2))
    cells = [
        Cell(name, interval(draws, each.samples, each.references), digits) for name, draws, digits in values
    ]
    return _line([each.looks], cells, each.samples, each.references)


def _kept(blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block.lines]


def fit_table(findings: Findings) -> Table:
    """Do measured onsets lie where energies predict them?"""
    keys = list(findings.onsets)
    groups = {model: [key for key in keys if key[0] == model] for model in sorted({key[0] for key in keys})}
    if len(groups) > 1:
        groups["all"] = keys
        for contrast in sorted({key[1] for key in keys}, key=contrast_order):
            groups[f"all, {contrast}"] = [key for key in keys if key[1] == contrast]
    lines = [line for name, own in groups.items() if (line := _fit_line(name, own, findings))]
    notes = [
        "Over factors, of the models and contrasts in a line. Bias: measured less predicted; above 0, set"
        " later than an ideal observer could tell.",
    ]
    columns = ["rank correlation", "mean absolute error (nats)", "bias (nats)"]
    blocks = _kept([Block("log-SNR at which factors are set", lines)])
    return Table("Measured beside predicted onsets", ["models", "factors"], columns, blocks, notes, UNIT)


def _fit_line(name: str, keys: list[Key], findings: Findings) -> Line | None:
    found = findings.fit(keys)
    if found is None:
        return None
    samples = sum(max(each.samples for each in findings.onsets[key]) for key in keys)
    probes = [probe for key in keys for probe in findings.tampering[key].values()]
    references = len({reference for probe in probes for reference in probe.references})
    values = (("correlation", found.correlation), ("error", found.error), ("bias", found.bias))
    cells = [Cell(column, interval(draws, samples, references), 2) for column, draws in values]
    return _line([name, str(found.factors)], cells, samples, references)


def boundary_table(findings: Findings) -> Table:
    """The boundary of each model and contrast."""
    lines = []
    for key, each in findings.boundaries.items():
        samples, references = counted(each)
        cells: list[Cell | None] = [
            Cell("t", interval(each.tau, samples, references), 0),
            Cell(LOG_SNR, interval(log_snr_at(each.tau, findings.log_snr[key[0]]), samples, references), 1),
            Cell("gap", each.gap, 2),
        ]
        lines.append(_line([*key, each.verdict], cells, samples, references))
    notes = [
        "The s at which the gap is largest: the share of a look less the share of the motion that changing"
        " the caption in [0, s] still changes (of what changing it in [0, 1000] does), of that look of which"
        " it is smallest. The gap's interval is of bands that hold for a look at all s at once, so it allows"
        " for having picked the largest; where it is not above 0 there is no boundary.",
        STEPS,
    ]
    title, labels = "The boundary between motion and looks", ["model", "contrast", "verdict"]
    columns = ["boundary, t", f"boundary, {LOG_SNR}", "gap"]
    return Table(title, labels, columns, _kept([Block("looks against motion", lines)]), notes, UNIT)


def control_table(findings: Findings) -> Table:
    """Has the control, in which looks are set as early as motion, no boundary?"""
    lines = []
    for (model, contrast), control in findings.boundaries.items():
        ours = findings.boundaries.get((model, "motion-dominant"))
        if contrast == "appearance-dominant" and ours is not None:
            samples, references = (a + b for a, b in zip(counted(ours), counted(control), strict=True))
            excess = interval(above_control(ours, control), samples, references)
            cells: list[Cell | None] = [
                Cell("motion-dominant", ours.gap, 2),
                Cell("appearance-dominant", control.gap, 2),
                Cell("excess", excess, 2),
            ]
            lines.append(_line([model, control.verdict], cells, samples, references))
    notes = [
        "In appearance-dominant videos the background colour has more energy than the motion. An ideal"
        " observer of noisy videos detects it no later than the motion. A probe of when the model sets"
        " things must therefore find no boundary there. If it finds one, the boundary in motion-dominant"
        " videos is no evidence of what the model sets first; the excess over the control is.",
        "The contrasts have other references, so their difference is not paired.",
    ]
    title, columns = (
        "The control",
        ["gap, motion-dominant", "gap, appearance-dominant", "motion-dominant less appearance-dominant"],
    )
    block = Block("largest gaps", lines)
    return Table(title, ["model", "boundary in appearance-dominant"], columns, _kept([block]), notes, UNIT)


def counted(boundary: Boundary) -> tuple[int, int]:
    """Samples and references of a boundary."""
    return boundary.gap.n, boundary.gap.clusters


def tuning_table(findings: Findings) -> Table:
    """Does tuning do best where the probe found the boundary?"""
    lines = []
    for key, each in findings.compared.items():
        values = (
            ("best", each.best, 0),
            ("boundary", each.boundary, 0),
            ("difference", each.difference, 0),
            ("lost", each.lost, 2),
        )
        cells = [
            Cell(name, interval(draws, each.samples, each.references), digits)
            for name, draws, digits in values
        ]
        lines.append(_line([*key], cells, each.samples, each.references))
    notes = [
        "Best: the τ of the sweep over windows [τ, 1000] on the tuning split at which the score is largest:"
        " motion less leakage, that is similarity of velocities less that of the ground's nuisances above"
        " chance. Both are correlations, and each weighs the same; another weight would give another best"
        " τ. Lost: the score there less the score at the boundary, which other references of the benchmark"
        " gave without any tuning; of each reference the best τ of all others, so that none is best by"
        " chance. Below 0 the boundary did better.",
        STEPS,
    ]
    title, columns = (
        "Tuning at the boundary",
        ["best τ", "boundary, t", "boundary less best τ", "lost at the boundary"],
    )
    block = Block("boundary against sweep", lines)
    return Table(title, ["model", "contrast"], columns, _kept([block]), notes, UNIT)


def carried_table(findings: Findings) -> Table:
    """What one model's boundary costs on another."""
    blocks = []
    for contrast in sorted({contrast for _, contrast in findings.boundaries}, key=contrast_order):
        found = list(findings.carried(contrast))
        gaps = [findings.boundaries[target, contrast].gap for _, target, *_ in found]
        lines = [
            _carried_line([source, target], loss, tuned, gap)
            for (source, target, loss, tuned), gap in zip(found, gaps, strict=True)
        ]
        if len(found) > 1:
            tunings = [tuned for *_, tuned in found if tuned]
            mean = mean_carried([loss for *_, loss, _ in found])
            of_tuning = mean_carried(tunings) if len(tunings) == len(found) else None
            lines.append(_carried_line(["mean", ""], mean, of_tuning, max(gaps, key=lambda gap: gap.n)))
        blocks.append(Block(contrast or "all", lines))
    notes = [
        "Gap at the model's own boundary less the gap at the other model's, taken at the same t or at the"
        " same log-SNR; the gap is at most 1. The own boundary is where the own gap is largest, so losses"
        " are not below 0; t less log-SNR is free of that: above 0, log-SNR carries over better.",
        "Tuning: the score of the table above (motion less leakage, on the tuning split) at the own boundary"
        " less that at the other's, where the sweep over τ was run.",
    ]
    columns = ["gap lost, equal t", "equal log-SNR", "t less log-SNR"]
    columns += [f"tuning: {each}" for each in ("lost, equal t", *columns[1:])]
    return Table("A boundary carried over", ["from", "to"], columns, _kept(blocks), notes, UNIT)


def _carried_line(labels: list[str], gap: Carried, tuning: Carried | None, counted: Interval) -> Line:
    cells: list[Cell | None] = []
    for name, loss in (("gap", gap), ("tuning", tuning)):
        values = (
            (("t", loss.t), (LOG_SNR, loss.log_snr), ("t less log-SNR", loss.t_less_log_snr)) if loss else ()
        )
        cells += [
            Cell(f"{name} {column}", interval(draws, counted.n, counted.clusters), 2)
            for column, draws in values
        ] or [None] * 3
    return _line(labels, cells, counted.n, counted.clusters)


def pair_table(findings: Findings) -> Table:
    """Which pair of timesteps changes the looks and keeps the motion."""
    blocks = [
        _pair_block(f"{name}, {title_of(key)}", changed)
        for method, name in ((TAMPERING, "tampering"), (PARTIAL_GUIDANCE, "partial guidance"))
        for key, changed in findings.pair_changes(method)
    ]
    notes = [
        "A pair (from, to) changes the caption (or has guidance) in that range alone; shares of what 1000"
        " to 0 changes. Gap: looks less motion. The best of the 55 pairs, and the most that an end above 0"
        " adds, have intervals that allow for having picked them; from and to have those of the best pair"
        " of each draw of references.",
        "Looks are those that the classifier reads; CLIP is its score of the new caption, by which the second"
        " paper goes.",
        "Motion is the share of samples with the new motion where the motion's words were changed, else"
        " the loss of flow similarity. Partial guidance starts from the reference's own values, for it has"
        " no control.",
    ]
    columns = ["from", "to", "looks changed", "CLIP changed", "motion changed", "gap"]
    return Table("Which timesteps are enough", ["pair"], columns, blocks, notes, UNIT)


def _pair_block(title: str, changed: PairChanges) -> Block:
    counts = changed.samples, changed.references
    if changed.unknown:
        return Block(title, [_line([changed.unknown], [None] * 6, *counts)])
    lines = []
    for each in pair_verdicts(changed.looks, changed.clip, changed.motion, *counts):
        values = (
            ("from", each.start, 0),
            ("to", each.end, 0),
            ("looks", each.looks, 2),
            ("CLIP", each.clip, 2),
            ("motion", each.motion, 2),
            ("gap", each.gap, 2),
        )
        cells = [Cell(name, value, digits) if value else None for name, value, digits in values]
        lines.append(_line([each.label], cells, *counts))
    return Block(title, lines)
