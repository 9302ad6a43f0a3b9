"""Dominance at measured points: every setting of one side against every one of the other, at adapter scales.

Nothing is interpolated: each line compares two settings at scales that were run. A setting dominates another
where it has more motion *and* less leakage, both with an interval that excludes zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison, count_of
from motionexp.results.formats import FEWEST, Block, Cell, Line, Table, excludes_zero
from motionexp.results.layout import Dominance, Group, TableLayout
from motionexp.results.significance import LEVEL, MeasuredDifference, equal_p
from motionexp.results.subjects import Values

DOMINATES, IS_DOMINATED, TRADE_OFF = "dominates", "is dominated", "trade-off"
EQUIVALENT, UNDECIDED = "equivalent", "undecided"
LABELS = ["setting", "at scale", "against", "at scale", "verdict"]


@dataclass(frozen=True)
class Point:
    """A setting at an adapter scale, with the motion and the leakage of each subject."""

    setting: str
    scale: str
    motion: Values
    leakage: Values


def dominance_table(comparison: Comparison, table: TableLayout, dominance: Dominance) -> Table:
    """The table of a layout with `dominance`: all pairs of measured points, and the verdict of each.

    Raises:
        InputError: a setting lacks samples at a scale that another point has.
    """
    layout = comparison.layout
    pairs = [pair for pair in product(dominance.ours, dominance.theirs) if pair[0] != pair[1]]
    places = product(table.groups, pairs)
    blocks = [_block(comparison, table, dominance, group, *pair) for group, pair in places]
    rules = [
        "Each setting at the adapter scale beside it, as it was run; nothing is interpolated.",
        f"{DOMINATES}: more motion and less leakage, and both intervals exclude zero; {IS_DOMINATED}: the"
        f" reverse; {TRADE_OFF}: more of both or less of both.",
    ]
    if layout.margin:
        rules.append(
            f"{EQUIVALENT}: both differences are within {layout.margin:g} of zero (two one-sided t tests over"
            f" references, p at most {LEVEL:g})."
        )
    rules.append(f"{UNDECIDED}: none of these, or fewer than {max(layout.n, FEWEST)} references.")
    columns = [layout.columns[key].label for key in (dominance.motion, dominance.leakage)]
    blocks = [block for block in blocks if block.lines]
    return Table(table.title, LABELS, columns, blocks, [*rules, *table.notes], table.unit)


def verdict_of(motion: MeasuredDifference, leakage: MeasuredDifference, margin: float, n: int) -> str:
    """Whether a setting with these differences of motion and leakage to another dominates it.

    Args:
        margin: of equivalence; with 0 nothing is equivalent.
        n: the least number of references; fewer than `FEWEST` never decide.
    """
    both = [motion, leakage]
    if any(difference.interval.clusters < max(n, FEWEST) for difference in both):
        return UNDECIDED
    if all(excludes_zero(difference.interval) for difference in both):
        gains = (motion.interval.mean > 0) + (leakage.interval.mean < 0)
        return (IS_DOMINATED, TRADE_OFF, DOMINATES)[gains]
    if margin and all(equal_p(difference.means, margin) <= LEVEL for difference in both):
        return EQUIVALENT
    return UNDECIDED


def _block(
    comparison: Comparison, table: TableLayout, dominance: Dominance, group: Group, ours: str, theirs: str
) -> Block:
    """All pairs of points of two settings; without lines where one of them was not run."""
    layout = comparison.layout
    points = {name: list(_points(comparison, dominance, group, name)) for name in (ours, theirs)}
    _check_subjects(f"{table.file}, {group.title}", [*points[ours], *points[theirs]])
    lines = []
    for our, their in product(points[ours], points[theirs]):
        motion = MeasuredDifference.of(our.motion, their.motion)
        leakage = MeasuredDifference.of(our.leakage, their.leakage)
        verdict = verdict_of(motion, leakage, layout.margin, layout.n)
        cells: list[Cell | None] = [
            Cell(dominance.motion, motion.interval, layout.columns[dominance.motion].digits),
            Cell(dominance.leakage, leakage.interval, layout.columns[dominance.leakage].digits),
        ]
        labels = [our.setting, our.scale, their.setting, their.scale, verdict]
        lines.append(Line(labels, cells, count_of(our.motion), "", is_difference=True))
    verdicts = [line.labels[-1] for line in lines]
    counts = " and ".join(f"{verdict} at {verdicts.count(verdict)}" for verdict in (DOMINATES, IS_DOMINATED))
    names = [_name(comparison, name) for name in (ours, theirs)]
    return Block(f"{group.title}: {' against '.join(names)}: {counts} of {len(lines)} pairs", lines)


def _points(comparison: Comparison, dominance: Dominance, group: Group, name: str) -> Iterator[Point]:
    """A setting at every scale that was run."""
    columns = [comparison.layout.columns[key] for key in (dominance.motion, dominance.leakage)]
    setting = comparison.layout.settings[name]
    for scale in (f"{scale:g}" for scale in sorted(dominance.scales)):
        motion, leakage = (
            comparison.values(column, setting.at_scale(scale), group.select) for column in columns
        )
        if motion or leakage:
            yield Point(_name(comparison, name), scale, motion, leakage)


def _name(comparison: Comparison, name: str) -> str:
    return ", ".join(filter(None, comparison.layout.settings[name].labels))


def _check_subjects(place: str, points: list[Point]) -> None:
    """Refuses points that were not measured on the same references, edits and seeds."""
    values = [(point, of_column) for point in points for of_column in (point.motion, point.leakage)]
    subjects = set().union(*(of_column for _, of_column in values))
    for point, of_column in values:
        if missing := sorted(subjects - of_column.keys(), key=str):
            raise InputError(
                f"{place}: {point.setting} at adapter_scale={point.scale} lacks {len(missing)} of the"
                f" {len(subjects)} samples, for instance of {missing[0][0]}; all points have the same"
                " references, edits and seeds: run the sweep to its end"
            )
