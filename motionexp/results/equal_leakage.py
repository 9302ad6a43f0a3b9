"""The table of motion at equal leakage: the most on a curve of adapter scales that leaks less than that."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from motionexp.errors import InputError
from motionexp.results.comparisons import Measured, Subject, Values, count_of
from motionexp.results.formats import NONE, Block, Cell, Line, Table
from motionexp.results.intervals import Curve, motion_at_equal_leakage
from motionexp.results.layout import Decision, Group, Setting, TableLayout

Points = list[list[Values]]
"""Motion, then leakage, of each subject at ascending scales, the base model first."""


def decision_table(measured: Measured, wanted: TableLayout, decision: Decision) -> Table:
    """The second table of a layout with a `decision`.

    Raises:
        InputError: no setting is marked `base`, or a scale lacks samples that another has.
    """
    settings = measured.layout.settings
    columns = [
        label
        for level in decision.levels
        for label in (
            f"motion at leakage {level:g}",
            *(f"difference to {' '.join(settings[name].labels)}, paired" for name in decision.against),
        )
    ]
    blocks = [
        _block(measured, wanted, decision, group, leakage)
        for group in wanted.groups
        for leakage in decision.leakage
    ]
    note = (
        "The most motion on the curve of adapter scales "
        f"(0, {', '.join(f'{scale:g}' for scale in sorted(decision.scales))}) whose leakage is at most the "
        "level; both linear between scales, of the mean over references, which are redrawn together. Samples"
        " that have no value at one of the scales of one of the settings are left out of all: n counts the"
        " rest."
    )
    title, kept = f"{wanted.title}: motion at equal leakage", [each for each in blocks if each.lines]
    return Table(title, wanted.labels, columns, kept, [note, *wanted.notes], wanted.unit)


def _block(measured: Measured, table: TableLayout, decision: Decision, group: Group, leakage: str) -> Block:
    settings = measured.layout.settings
    names = [name for name in decision.curves if settings[name].may_be_in(group)]
    found = {name: _points(measured, table, decision, leakage, name, group) for name in names}
    there = {name: points for name, points in found.items() if points}
    known = _known(there.values())
    curves = {name: _curve(points, known) for name, points in there.items()}
    lines = []
    for name in names if there else []:
        cells = _cells(measured, decision, name, curves) if known and name in there else []
        n = count_of(known) if name in there else NONE
        width = len(decision.levels) * (1 + len(decision.against))
        own = [each and replace(each, interval=replace(each.interval, n=len(known))) for each in cells]
        lines.append(Line(settings[name].labels, own or [None] * width, n, ""))
    return Block(f"{group.title}; {measured.layout.columns[leakage].label}", lines)


def _points(
    measured: Measured, table: TableLayout, decision: Decision, leakage: str, name: str, group: Group
) -> Points:
    """Empty where no scale of the setting was run."""
    if measured.base is None:
        raise InputError("motion at equal leakage needs the setting that is marked `base`")
    setting = measured.layout.settings[name]
    points = {"base": measured.base}
    for scale in sorted(decision.scales):
        points[f"adapter_scale={scale:g}"] = _at_scale(setting, scale)
    columns = [measured.layout.columns[decision.motion], measured.layout.columns[leakage]]
    values = [[measured.values(each, point, group.select) for point in points.values()] for each in columns]
    if not any(each for column in values for each in column[1:]):
        return []
    everything = set[Subject]().union(*(each for column in values for each in column))
    for column, own in zip(columns, values, strict=True):
        for point, each in zip(points, own, strict=True):
            if missing := sorted(everything - each.keys(), key=str):
                raise InputError(
                    f"{table.file}, {group.title}: {column.metric} of setting {name} at {point} lacks"
                    f" {len(missing)} of {len(everything)} samples, for instance of {missing[0][0]}; a curve"
                    " is of the same references, edits and seeds at all scales: run the sweep to its end"
                )
    return values


def _at_scale(setting: Setting, scale: float) -> Setting:
    at = {"adapter_scale": f"{scale:g}"}
    return replace(
        setting, select=setting.select | at, or_select=setting.or_select and setting.or_select | at
    )


def _known(curves: Collection[Points]) -> set[Subject]:
    """The subjects that have a value everywhere."""
    values = [each for points in curves for column in points for each in column]
    finite = [{subject for subject, value in each.items() if not math.isnan(value)} for each in values]
    return set.intersection(*finite) if finite else set()


def _curve(points: Points, known: Collection[Subject]) -> Curve:
    return Curve(*(np.array([_by_reference(each, known) for each in column]) for column in points))


def _by_reference(values: Values, known: Collection[Subject]) -> list[float]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for subject in sorted(known, key=str):
        grouped[subject[0]].append(values[subject])
    return [float(np.mean(grouped[reference])) for reference in sorted(grouped)]


def _cells(
    measured: Measured, decision: Decision, name: str, curves: Mapping[str, Curve]
) -> list[Cell | None]:
    """At every level the motion, then what it is less the settings in `against`; these have no difference."""
    digits = measured.layout.columns[decision.motion].digits

    def less(level: float, other: str) -> Cell | None:
        if name in decision.against or other not in curves:
            return None
        interval = motion_at_equal_leakage(curves[name], level, curves[other])
        return Cell(f"{level:g} minus {other}", interval, digits, is_difference=True)

    cells: list[Cell | None] = []
    for level in decision.levels:
        cells.append(Cell(f"{level:g}", motion_at_equal_leakage(curves[name], level), digits))
        cells += [less(level, other) for other in decision.against]
    return cells
