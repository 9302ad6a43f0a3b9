"""What a figure of a table's settings shows, and its curves over a number by which settings select.

Such a number is τ, the rank or the training steps. `points` draws figures without one.
"""

import json
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.flow_matching import read_schedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.results.comparisons import Comparison, mean_of
from motionexp.results.figures.colours import SETTINGS, Style, dotted, setting_styles
from motionexp.results.figures.style import (
    WIDTH,
    log_snr_axis,
    new_figure,
    style_legend,
    timestep_axis,
    zero_line,
)
from motionexp.results.intervals import Interval
from motionexp.results.layout import Column, FigureLayout, Group, Layout, TableLayout

LETTER = 0.06
"""Inches that a letter of 8 points takes, on average and with some to spare."""
Panel = TypeVar("Panel")
BASE_LINE: Style = {"color": SETTINGS["base model"]["color"], "linestyle": "--", "linewidth": 1}
OFFSET = 1.07
"""Factor between the x of two lines at the same x of a log axis, so that both bars are visible."""


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

    def interval(self, column: str, name: str, group: Group, scale: str = "") -> Interval:
        """One setting's mean of one column in one group, at an adapter scale or at the setting's own."""
        layout = self.comparison.layout
        setting = layout.settings[name].at_scale(scale) if scale else layout.settings[name]
        return mean_of(self.comparison.values(layout.columns[column], setting, group.select))

    def points(self, name: str, group: Group) -> list[tuple[Interval, Interval]]:
        """One setting's means of the two axes' columns in one group, at each of the figure's scales.

        A scale at which one of the two has no value has no point.
        """
        scales = [f"{scale:g}" for scale in self.figure.scales] or [""]
        keys = self.figure.x, self.figure.columns[0]
        means = [tuple(self.interval(key, name, group, scale) for key in keys) for scale in scales]
        return [(x, y) for x, y in means if x.n and y.n]

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


def in_rows(panels: Sequence[Panel], most: int = 3) -> list[Sequence[Panel]]:
    """The panels in rows of at most `most`, all but the last row as long as the first."""
    rows = math.ceil(len(panels) / most)
    across = math.ceil(len(panels) / rows)
    return [panels[start : start + across] for start in range(0, len(panels), across)]


def ends(intervals: Sequence[Interval]) -> np.ndarray:
    """(2, K) distances from the means to the ends; 0 where there is no interval."""
    distances = np.array([[entry.mean - entry.low, entry.high - entry.mean] for entry in intervals]).T
    return np.nan_to_num(np.clip(distances, 0, None))


def draw_curves(data: FigureData, panels: Sequence[Group]) -> Figure:
    """A row of panels for each column, each line a curve; of one group alone the columns are side by side."""
    columns, alone = data.figure.columns, len(panels) == 1
    # 1. (group, column) of the panels: a row for each column of at most three groups, then the next groups.
    rows: list[Sequence[tuple[Group, str]]] = [
        [(group, key) for group in row] for row in in_rows(panels) for key in columns
    ]
    if alone:
        rows = in_rows([(panels[0], key) for key in columns])
    # Inches: title and legend, the panels, and the x axes, one for each block of columns.
    height = 0.7 + 1.7 * len(rows) + 0.5 * math.ceil(len(rows) / len(columns))
    figure, axes = new_figure(len(rows), len(rows[0]), height)
    # 2. The panels; only those at the left and at the bottom have numbers on their axes.
    first: dict[str, Axes] = {}
    for row, cells in enumerate(rows):
        for axis, (group, key) in zip(axes[row], cells, strict=False):
            # The panels of one column share their y axis, whose numbers stand at the left.
            if not alone and first.setdefault(key, axis) is not axis:
                axis.sharey(first[key])
            _draw_lines(axis, data, key, group)
            left = alone or axis is axes[row, 0]
            axis.set_ylabel(data.columns[key].label if left else "")
            axis.tick_params(labelleft=left)
            _x_axis(axis, data, labelled=alone or key == columns[-1])
            if alone or key == columns[0]:
                _log_snr(axis, data, group)
                axis.set_title("" if alone else data.title(group, len(rows[0])))
        for axis in axes[row, len(cells) :]:
            axis.set_visible(False)
    # 3. The title, and a legend where there is more than one line.
    title = data.title(panels[0], 1).split("\n") if alone else []
    figure.suptitle(", ".join([data.figure.title, *title]))
    if len(styles := _legend(data)) > 1:
        style_legend(figure, styles, min(4, len(styles)))
    return figure


def _legend(data: FigureData) -> dict[str, Style]:
    """{label: style} of all lines, and of the base model and of all timesteps where they have a place."""
    styles = setting_styles([label for label in data.figure.lines if label])
    labels = [label for name in data.settings if (label := _end_label(data, name))]
    styles |= {label: dotted(SETTINGS[label]) for label in labels}
    return styles | ({"base model": BASE_LINE} if _separate_base(data) else {})


def _end_label(data: FigureData, name: str) -> str:
    """What a point at an end of the τ axis is: the ends are no windows."""
    tau = data.comparison.layout.settings[name].select.get("tau") if data.figure.x == "tau" else None
    return {"1000": "base model", "0": "all timesteps"}.get(tau or "", "")


def _draw_lines(axis: Axes, data: FigureData, key: str, group: Group) -> None:
    styles = setting_styles(list(data.figure.lines))
    for number, (label, names) in enumerate(data.figure.lines.items()):
        values = [(_x(data, name), name, data.interval(key, name, group)) for name in names]
        values = sorted([value for value in values if value[2].n], key=lambda value: value[0])
        if not values:
            continue
        offset = OFFSET ** (number - (len(data.figure.lines) - 1) / 2) if data.figure.log else 1
        places, means = [x * offset for x, *_ in values], [interval.mean for *_, interval in values]
        bars = ends([interval for *_, interval in values])
        axis.errorbar(places, means, bars, capsize=2, label=label, **styles[label])
        for (_, name, _), x, mean in zip(values, places, means, strict=True):
            if end := _end_label(data, name):
                axis.plot(x, mean, **dotted(SETTINGS[end]), zorder=3)
    zero_line(axis)
    if base := _separate_base(data):
        axis.axhline(data.interval(key, base, group).mean, **BASE_LINE)


def _separate_base(data: FigureData) -> str:
    """The key of the base model's setting, where it is no point of a curve."""
    settings = data.comparison.layout.settings
    base = next((name for name, setting in settings.items() if setting.base), "")
    return "" if base in data.settings else base


def _x(data: FigureData, name: str) -> float:
    return float(data.comparison.layout.settings[name].select[data.figure.x])


def _x_axis(axis: Axes, data: FigureData, labelled: bool) -> None:
    if data.figure.x == "tau":
        timestep_axis(axis)
    else:
        if data.figure.log:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_minor_locator(NullLocator())
        values = sorted({_x(data, name) for name in data.settings})
        axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xlabel(x_label(data.figure) if labelled else "")
    axis.tick_params(labelbottom=labelled)


def x_label(figure: FigureLayout) -> str:
    """The label of the x axis."""
    return "τ (noise → clean)" if figure.x == "tau" else figure.x_label or figure.x


def _log_snr(axis: Axes, data: FigureData, group: Group) -> None:
    """The second axis, where x is τ and all of the panel's rows are of one model, a bundled one."""
    metric, settings = data.columns[data.figure.columns[0]].metric, data.comparison.layout.settings
    rows = [
        row for name in data.settings for row in data.comparison.rows(metric, settings[name], group.select)
    ]
    models = {row.model for row in rows}
    table = log_snr_of(models.pop()) if len(models) == 1 and data.figure.x == "tau" else None
    if table is not None:
        log_snr_axis(axis, table, apart=120)


def log_snr_of(model: str) -> np.ndarray | None:
    """(1001,) log-SNR of a bundled model by its noise schedule; None for other models."""
    config = BUNDLED / model / "scheduler" / "scheduler_config.json"
    if not config.is_file():
        return None
    schedule = read_schedule(json.loads(config.read_text()))
    return np.array([float(schedule.log_snr(t)) for t in range(TIMESTEPS + 1)])


def setting_label(data: FigureData, name: str) -> str:
    """The figure's name of a setting, or its labels; a label without a word follows its column's heading."""
    if name in data.figure.names:
        return data.figure.names[name]
    layout = data.comparison.layout
    setting, headings = layout.settings[name], table_of(layout, data.figure).labels
    if setting.base:
        return "base model"
    return "; ".join(
        label if heading in label or re.search(r"[^\W\d_]{2}", label) else f"{heading} {label}"
        for heading, label in zip(headings, setting.labels, strict=True)
        if label not in ("", "–")
    )
