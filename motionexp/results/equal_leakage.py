"""The table of motion at equal leakage: the most motion on a curve of adapter scales up to a leakage."""

import math
from collections.abc import Collection
from dataclasses import replace
from itertools import groupby, product
from operator import itemgetter

import numpy as np

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison, count_of
from motionexp.results.formats import NONE, Block, Cell, Line, Table
from motionexp.results.intervals import Curve, motion_at_equal_leakage
from motionexp.results.layout import EqualLeakage, Group, TableLayout
from motionexp.results.rows import Subject
from motionexp.results.subjects import Values

Points = list[list[Values]]
"""Motion, then leakage, of each subject at ascending scales, the base model first."""


def equal_leakage_table(comparison: Comparison, table: TableLayout, equal: EqualLeakage) -> Table:
    """The second table of a layout with `equal_leakage`.

    Raises:
        InputError: no setting is marked `base`, or a scale lacks samples that another has.
    """
    settings = comparison.layout.settings
    against = [f"difference to {' '.join(settings[name].labels)}, paired" for name in equal.against]
    columns = [label for level in equal.levels for label in (f"motion at leakage {level:g}", *against)]
    # A block for each group and kind of leakage.
    places = product(table.groups, equal.leakage)
    blocks = [_block(comparison, table, equal, group, leakage) for group, leakage in places]
    scales = ", ".join(f"{scale:g}" for scale in sorted(equal.scales))
    note = (
        f"The most motion on the curve of adapter scales (0, {scales}) whose leakage is at most the level."
        " Both are taken as linear between scales. They are means over references, which are resampled"
        " together. Samples that lack a value at one scale of one setting are left out of all settings;"
        " n counts the rest."
    )
    if len(equal.scales) == 1:
        note += (
            f" With the scale {equal.scales[0]:g} alone the curve is a straight line from the base model."
            " Motion on it is biased, and no difference of it is claimed."
        )
    title = f"{table.title}: motion at equal leakage"
    blocks = [block for block in blocks if block.lines]
    return Table(title, table.labels, columns, blocks, [note, *table.notes], table.unit)


def _block(
    comparison: Comparison, table: TableLayout, equal: EqualLeakage, group: Group, leakage: str
) -> Block:
    # 1. The points of each setting that was run, and the samples that have a value at all of them.
    settings = comparison.layout.settings
    names = [name for name in equal.curves if settings[name].can_match(group)]
    points = {name: _points(comparison, table, equal, leakage, name, group) for name in names}
    points = {name: of_setting for name, of_setting in points.items() if of_setting}
    at_points = [values for of_setting in points.values() for at_scales in of_setting for values in at_scales]
    finite = [{subject for subject in values if not math.isnan(values[subject])} for values in at_points]
    complete = set.intersection(*finite) if finite else set()
    curves = {name: _curve(of_setting, complete) for name, of_setting in points.items() if complete}
    # 2. One line for each setting, without numbers where it was not run or no sample is complete: at every
    # level the motion, then its difference to each setting in `against`, if it is none of these.
    lines = []
    digits, columns = comparison.layout.columns[equal.motion].digits, ["", *equal.against]
    for name in names if points else []:
        cells: list[Cell | None] = []
        for level, theirs in product(equal.levels, columns):
            if name not in curves or (theirs and (name in equal.against or theirs not in curves)):
                cells.append(None)
                continue
            interval = motion_at_equal_leakage(curves[name], level, curves.get(theirs))
            key = f"{level:g} minus {theirs}" if theirs else f"{level:g}"
            cells.append(Cell(key, replace(interval, n=len(complete)), digits, is_difference=bool(theirs)))
        n = count_of(complete) if name in points else NONE
        lines.append(Line(settings[name].labels, cells, n, ""))
    return Block(f"{group.title}; {comparison.layout.columns[leakage].label}", lines)


def _points(
    comparison: Comparison, table: TableLayout, equal: EqualLeakage, leakage: str, name: str, group: Group
) -> Points:
    """Empty where no scale of the setting was run."""
    if comparison.base is None:
        raise InputError("motion at equal leakage needs the setting that is marked `base`")
    setting = comparison.layout.settings[name]
    # The base model is the adapter at scale 0.
    scales = {"base": comparison.base}
    for scale in sorted(equal.scales):
        scales[f"adapter_scale={scale:g}"] = setting.at_scale(f"{scale:g}")
    columns = [comparison.layout.columns[key] for key in (equal.motion, leakage)]
    points = [
        [comparison.values(column, at_scale, group.select) for at_scale in scales.values()]
        for column in columns
    ]
    # The base model, at the first place, has rows although the setting was not run.
    if not any(values for at_scales in points for values in at_scales[1:]):
        return []
    subjects = set[Subject]().union(*(values for at_scales in points for values in at_scales))
    for column, at_scales in zip(columns, points, strict=True):
        for scale_name, values in zip(scales, at_scales, strict=True):
            if missing := sorted(subjects - values.keys(), key=str):
                raise InputError(
                    f"{table.file}, {group.title}: {column.metric} of setting {name} at {scale_name} lacks"
                    f" {len(missing)} of {len(subjects)} samples, for instance of {missing[0][0]}; a curve"
                    " has the same references, edits and seeds at all scales: run the sweep to its end"
                )
    return points


def _curve(points: Points, subjects: Collection[Subject]) -> Curve:
    """The means of R references at S scales, (S, R) for motion and for leakage."""
    # References in a fixed order: the bootstrap weighs them by their place.
    ordered = sorted(subjects, key=lambda subject: (subject[0], str(subject)))
    references = [[*group] for _, group in groupby(ordered, key=itemgetter(0))]
    # (S, R): the mean over a reference's edits and seeds.
    motion, leakage = (
        np.array(
            [[np.mean([values[subject] for subject in group]) for group in references] for values in scales]
        )
        for scales in points
    )
    return Curve(motion, leakage)
