"""What curves and points of a table's settings share: their panels, the titles of these, and the means."""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from motionexp.results.comparisons import Measured, Values, mean_of
from motionexp.results.figures.style import WIDTH
from motionexp.results.intervals import Interval
from motionexp.results.layout import FigureLayout, Group, Layout, TableLayout

MOST_ACROSS = 3
Cell = TypeVar("Cell")
LETTER = 0.06
"""Inches that a letter of 8 points takes, on average and with some to spare."""


def table_of(layout: Layout, wanted: FigureLayout) -> TableLayout:
    """The table whose groups are the figure's panels."""
    return next(each for each in layout.tables if Path(each.file).name == wanted.panels)


def panels_of(measured: Measured, wanted: FigureLayout) -> list[Group]:
    """The groups that have rows, in the order of the figure's `groups`, or else the table's."""
    groups = {group.title: group for group in table_of(measured.layout, wanted).groups}
    shown = [groups[title] for title in wanted.groups] or list(groups.values())
    return [group for group in shown if references_of(measured, wanted, group)]


def settings_of(wanted: FigureLayout) -> list[str]:
    """The keys of the settings that the figure shows."""
    return [name for names in wanted.lines.values() for name in names]


def references_of(measured: Measured, wanted: FigureLayout, group: Group) -> list[int]:
    """How many references each setting of a panel has, without the settings that have none."""
    layout = measured.layout
    keys = [wanted.columns[0], *([wanted.x] if wanted.x in layout.columns else [])]
    counts = []
    for name in settings_of(wanted):
        shown = [measured.values(layout.columns[key], layout.settings[name], group.select) for key in keys]
        counts.append(min(_references(each) for each in shown))
    return [count for count in counts if count]


def _references(values: Values) -> int:
    return len({subject[0] for subject, value in values.items() if not math.isnan(value)})


def in_rows(cells: Sequence[Cell]) -> list[Sequence[Cell]]:
    """The panels in rows of at most three, all but the last one as long as the first."""
    rows = math.ceil(len(cells) / MOST_ACROSS)
    across = math.ceil(len(cells) / rows)
    return [cells[start : start + across] for start in range(0, len(cells), across)]


def panel_title(measured: Measured, wanted: FigureLayout, group: Group, across: int) -> str:
    """A group's title, in lines that fit one of so many panels `across`, and its number of references."""
    counts = references_of(measured, wanted, group)
    number = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    # A number stays beside its sign, and what is in brackets together.
    kept = re.sub(r" = |\([^)]*\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), group.title)
    lines = textwrap.wrap(kept, int((WIDTH / across - 0.3) / LETTER), break_on_hyphens=False)
    return "\n".join([*lines, f"{number} reference" + ("" if number == "1" else "s")])


def interval_of(measured: Measured, column: str, name: str, group: Group) -> Interval:
    """One setting's mean of one column in one group."""
    layout = measured.layout
    return mean_of(measured.values(layout.columns[column], layout.settings[name], group.select))


def ends(intervals: Sequence[Interval]) -> np.ndarray:
    """(2, K) distances from the means to the ends; 0 where there is no interval."""
    distances = np.array([[each.mean - each.low, each.high - each.mean] for each in intervals]).T
    return np.nan_to_num(np.clip(distances, 0, None))
