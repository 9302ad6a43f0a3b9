"""Tables of predictions: of one model, of the bundled models against their probes, and of interventions."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np

from motionexp.probes.analysis.prediction import (
    BOUNDARY,
    Energies,
    Offsets,
    Prediction,
    in_timesteps,
    midpoint,
    motion_is_first,
    predict,
)
from motionexp.probes.analysis.rows import interval
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.intervals import Interval, Replicates
from motionexp.results.log_snr import timestep_at

UNKNOWN = Interval(math.nan, math.nan, math.nan, 0, 0)
ABOUT = "Value [95% interval]; n: pairs of videos (of how many {unit})."
SHOWN = {BOUNDARY: "boundary (τ)", "appearance": "appearance"}
WITHOUT_TRUTH = (
    "These clips have no ground truth. In its place: of each pair of clips whose captions differ, the energy"
    " of what changes over time stands for the motion, and that of the means over time for the appearance. No"
    " offset was validated on real clips; the offsets are those of the bundled models on moving shapes."
)


def line(label: str, columns: Mapping[str, int], values: Sequence[Interval | None], counts: Interval) -> Line:
    """A line of a table, with the digits of each column."""
    cells = [
        None if value is None or math.isnan(value.mean) else Cell(column, value, columns[column])
        for column, value in zip(columns, values, strict=True)
    ]
    return Line([SHOWN.get(label, label)], cells, f"{counts.n} ({counts.clusters})", "")


def prediction_table(
    title: str, predictions: Sequence[Prediction], offsets: Offsets, unit: str, notes: Sequence[str] = ()
) -> Table:
    """The table of `python run.py predict`: a line for each factor, and one for the boundary."""
    columns = {"energy": 1, "ideal log-SNR": 1, "predicted log-SNR": 1, "predicted t": 0}
    lines = []
    for entry in predictions:
        values = [entry.energy, entry.ideal, entry.log_snr, entry.t]
        if entry.quantity == BOUNDARY and not motion_is_first(predictions):
            values = [None, entry.ideal, None, None]
        lines.append(line(entry.quantity, columns, values, entry.ideal))
    all_notes = [
        *([] if motion_is_first(predictions) else [NO_BOUNDARY]),
        f"Ideal: ln(4 / energy). Predicted: ideal plus an offset, learnt on {', '.join(offsets.models)}"
        f" ({len(offsets.models)} models). Its interval has the spread between models and between videos.",
        *notes,
    ]
    block = Block("motion and appearance", lines)
    return Table(title, ["factor"], list(columns), [block], all_notes, unit, ABOUT.format(unit=unit))


NO_BOUNDARY = (
    "No boundary is predicted: some appearance is set with the motion or before it, and no τ separates them."
)


def leave_one_out_table(
    energies: Mapping[str, Mapping[str, Energies]], schedules: Mapping[str, np.ndarray], offsets: Offsets
) -> Table:
    """Predictions of the probed models, each from the offsets of all models but itself, beside the probes."""
    columns = {"ideal log-SNR": 1, "predicted log-SNR": 1, "measured log-SNR": 1}
    columns |= {"predicted t": 0, "measured t": 0, "error in t": 0}
    blocks, inside, total, errors = [], 0, 0, []
    for model in offsets.models:
        measured = {onset.quantity: onset.measured for onset in offsets.onsets if onset.model == model}
        lines = []
        for entry in predict(energies[model], schedules[model], offsets.without(model)):
            nats = measured[entry.quantity]
            t = float(timestep_at(nats, schedules[model]))
            error = entry.t.mean - t
            numbers = [Interval(number, math.nan, math.nan, 0, 0) for number in (nats, t, error)]
            values = [entry.ideal, entry.log_snr, numbers[0], entry.t, *numbers[1:]]
            lines.append(line(entry.quantity, columns, values, entry.ideal))
            inside, total = inside + (entry.log_snr.low <= nats <= entry.log_snr.high), total + 1
            errors += [abs(error)] if entry.quantity == BOUNDARY else []
        blocks.append(Block(f"{model}, from the other {len(offsets.models) - 1}", lines))
    notes = [
        f"Each model is predicted from the offsets of the others: {len(offsets.models)} models, two of which"
        f" share a VAE. {inside} of {total} intervals contain what the probe measured. The boundary errs by"
        f" {np.mean(errors):.0f} in t on average. To copy the mean of the other models would err by"
        " {:.0f} in t, or by {:.0f} if their log-SNR is copied.".format(*copying_errors(schedules, offsets)),
        "Ideal: ln(4 / energy), with the interval over pairs. Of the boundary it is the middle between the"
        " motion and the earliest appearance attribute. Predicted: ideal plus the mean offset of the other"
        " models; the interval is Student's t of a new model, its spread pooled over the five factors.",
    ]
    title = "Predicted from the other models, and measured"
    return Table(title, ["factor"], list(columns), blocks, notes, "videos", ABOUT.format(unit="videos"))


def copying_errors(schedules: Mapping[str, np.ndarray], offsets: Offsets) -> tuple[float, float]:
    """Mean error in t of a boundary at the mean t of the other models, or at their mean log-SNR."""
    nats = {onset.model: onset.measured for onset in offsets.onsets if onset.quantity == BOUNDARY}
    t = {model: float(timestep_at(value, schedules[model])) for model, value in nats.items()}
    errors = []
    for model in offsets.models:
        rest = [name for name in offsets.models if name != model]
        same_t = mean(t[name] for name in rest)
        same_nats = float(timestep_at(mean(nats[name] for name in rest), schedules[model]))
        errors.append((abs(same_t - t[model]), abs(same_nats - t[model])))
    by_t, by_nats = map(mean, zip(*errors, strict=True))
    return by_t, by_nats


def changed(base: Interval, change: float, *, of_new_measurement: bool = True) -> Interval:
    """A measured value moved by `change`, with the interval of a new measurement of it."""
    # The measured value and the new one have errors of one size, and these are independent.
    factor = math.sqrt(2) if of_new_measurement else 1.0
    value = base.mean + change
    low, high = value - factor * (base.mean - base.low), value + factor * (base.high - base.mean)
    return Interval(value, low, high, base.n, base.clusters)


def ideal_of(energies: Mapping[str, Energies]) -> dict[str, float]:
    """{factor: log-SNR of the ideal observer}, and that of the boundary."""
    ideal = {factor: float(values.log_snr()[0]) for factor, values in energies.items()}
    return ideal | {BOUNDARY: midpoint(ideal)}


def intervention_block(
    title: str,
    ideal: Mapping[str, float],
    base_ideal: Mapping[str, float],
    measured: Mapping[str, Interval],
    log_snr: np.ndarray,
    columns: Mapping[str, int],
    outcome: Mapping[str, Interval],
) -> Block:
    """The prediction of one intervention: what was measured on the base model, moved as the ideal moves.

    Args:
        ideal: {factor or boundary: log-SNR of the ideal observer} under the intervention.
        base_ideal: the same of the base model.
        measured: {factor or boundary: log-SNR at which the base model sets it}.
        log_snr: (1001,) of the schedule under the intervention.
        columns: {heading: digits}.
        outcome: as `measured`, under the intervention; empty before it was probed.
    """
    lines = []
    for quantity, base in measured.items():
        change = ideal[quantity] - base_ideal[quantity]
        nats = changed(base, change)
        number = Interval(change, math.nan, math.nan, 0, 0)
        values = [base, number, nats, in_timesteps(nats, log_snr), outcome.get(quantity)]
        lines.append(line(quantity, columns, values, base))
    return Block(title, lines)


def slope_and_offset(predicted: np.ndarray, measured: Replicates) -> tuple[Replicates, Replicates]:
    """Slope by least squares of P measured on predicted values, and mean of measured minus predicted.

    Args:
        predicted: (P,) in nats.
        measured: (1 + N, P) in nats.

    Returns:
        (1 + N,) each.
    """
    deviation = predicted - predicted.mean()
    slope = measured @ deviation / np.square(deviation).sum()
    return slope, (measured - predicted).mean(1)


def verdict_table(verdicts: Mapping[str, tuple[np.ndarray, Replicates]], references: int) -> Table:
    """Slope and offset of what probes of the interventions measured on what was predicted.

    Args:
        verdicts: {label: (P,) predicted, (1 + N, P) measured}, in nats.
        references: of the probes.
    """
    columns = {"slope": 2, "offset (nats)": 2}
    lines = []
    for label, (predicted, measured) in verdicts.items():
        values = [
            interval(draws, len(predicted), references) for draws in slope_and_offset(predicted, measured)
        ]
        lines.append(line(label, columns, values, values[0]))
    notes = [
        "Levels: measured on predicted log-SNR of all factors of the two schedules and the two contrasts;"
        " slope 1 and offset 0 say that log-SNR decides, whatever the schedule.",
        "Changes: measured on predicted change of the two contrasts, of all factors; slope 1 says that energy"
        " decides, slope 0 that it does not.",
    ]
    about = "Value [95% bootstrap interval over references]; n: values (of how many references)."
    title, blocks = "Verdict", [Block("measured on predicted", lines)]
    return Table(title, ["values"], list(columns), blocks, notes, "references", about)
