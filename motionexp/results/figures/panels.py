"""What curves and points of a table's settings share: their panels, the titles of these, and the means."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from motionexp.results.comparisons import Comparison, mean_of
from motionexp.results.figures.style import WIDTH
from motionexp.results.intervals import Interval
from motionexp.results.layout import Column, FigureLayout, Group, Layout, TableLayout

MOST_ACROSS = 3
LETTER = 0.06
"""Inches that a letter of 8 points takes, on average and with some to spare."""
Panel = TypeVar("Panel")


def table_of(layout: Layout, figure: FigureLayout) -> TableLayout:
    """The table whose groups are the figure's panels."""
    return next(table for table in layout.tables if Path(table.file).name == figure.panels)


@dataclass(frozen=True)
class FigureData:
    """One figure's layout and the rows that it shows."""

    comparison: Comparison
    figure: FigureLayout

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of the experiment by their keys."""
        return self.comparison.layout.columns

    @property
    def settings(self) -> list[str]:
        """The keys of the settings that the figure shows."""
        return [name for names in self.figure.lines.values() for name in names]

    def panels(self) -> list[Group]:
        """The groups that have rows, in the order of the figure's `groups`, or else the table's."""
        groups = {group.title: group for group in table_of(self.comparison.layout, self.figure).groups}
        panels = [groups[title] for title in self.figure.groups] or list(groups.values())
        return [group for group in panels if self.references(group)]

    def interval(self, column: str, name: str, group: Group) -> Interval:
        """One setting's mean of one column in one group."""
        layout = self.comparison.layout
        return mean_of(self.comparison.values(layout.columns[column], layout.settings[name], group.select))

    def references(self, group: Group) -> list[int]:
        """The number of references of each setting in a panel, without settings that have none."""
        keys = [self.figure.columns[0], *([self.figure.x] if self.figure.x in self.columns else [])]
        counts = (min(self.interval(key, name, group).clusters for key in keys) for name in self.settings)
        return [count for count in counts if count]

    def title(self, group: Group, across: int) -> str:
        """A group's title, in lines that fit one of `across` panels side by side, and its references."""
        counts = self.references(group)
        number = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
        # No line break within brackets, nor between a value and its sign.
        unbroken = re.sub(
            r" = |\([^)]*\)", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), group.title
        )
        lines = textwrap.wrap(unbroken, int((WIDTH / across - 0.3) / LETTER), break_on_hyphens=False)
        return "\n".join([*lines, f"{number} reference" + ("" if number == "1" else "s")])


def in_rows(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    """The panels in rows of at most three, all but the last row as long as the first."""
    rows = math.ceil(len(panels) / MOST_ACROSS)
    across = math.ceil(len(panels) / rows)
    return [panels[start : start + across] for start in range(0, len(panels), across)]


def ends(intervals: Sequence[Interval]) -> np.ndarray:
    """(2, K) distances from the means to the ends; 0 where there is no interval."""
    distances = np.array([[entry.mean - entry.low, entry.high - entry.mean] for entry in intervals]).T
    return np.nan_to_num(np.clip(distances, 0, None))
