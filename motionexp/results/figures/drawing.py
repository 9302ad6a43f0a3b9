"""Figures of a table's settings: curves over a number, or points in the plane of two columns.

The number of a curve is one by which settings select: τ, the rank, the training steps. Points show motion
against leakage, each with the number of its setting.
"""

import json
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.flow_matching import read_schedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.results.comparisons import Comparison, mean_of
from motionexp.results.figures.style import (
    BLACK,
    GREY,
    WIDTH,
    log_snr_axis,
    model_styles,
    new_figure,
    timestep_axis,
)
from motionexp.results.intervals import Interval
from motionexp.results.layout import Column, FigureLayout, Group, Layout, TableLayout

LETTER = 0.06
"""Inches that a letter of 8 points takes, on average and with some to spare."""
Panel = TypeVar("Panel")
BASE_LINE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1, "label": "base model"}
OFFSET = 1.07
"""Factor between the x of two lines at the same x of a log axis, so that both bars are visible."""
Points = dict[int, tuple[float, float]]
"""{a setting's number: its means}."""
# adjustText: the room around a label, and how strongly labels and points push labels away. A limit on
# iterations, not on time, gives the same figure on every machine.
PLACEMENT: dict[str, Any] = {
    "expand": (2.2, 1.9), "force_text": (0.6, 0.8), "force_static": (0.4, 0.6), "force_pull": (0.005, 0.005),
    "max_move": (5, 5), "min_arrow_len": 0, "iter_lim": 500,
}  # fmt: skip


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

    def point(self, name: str, group: Group) -> list[Interval]:
        """One setting's means of the two axes' columns in one group; empty where one has no value."""
        means = [self.interval(key, name, group) for key in (self.figure.x, *self.figure.columns)]
        return means if all(mean.n for mean in means) else []

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
    rows = math.ceil(len(panels) / 3)
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
    styles = model_styles(list(data.figure.lines))
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items() if label]
    handles += [Line2D([], [], **BASE_LINE)] if _separate_base(data) else []
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _draw_lines(axis: Axes, data: FigureData, key: str, group: Group) -> None:
    styles = model_styles(list(data.figure.lines))
    for number, (label, names) in enumerate(data.figure.lines.items()):
        points = [(_x(data, name), data.interval(key, name, group)) for name in names]
        points = sorted([point for point in points if point[1].n], key=lambda point: point[0])
        if points:
            intervals = [interval for _, interval in points]
            offset = OFFSET ** (number - (len(data.figure.lines) - 1) / 2) if data.figure.log else 1
            x, means = [x * offset for x, _ in points], [interval.mean for interval in intervals]
            axis.errorbar(x, means, ends(intervals), capsize=2, clip_on=False, label=label, **styles[label])
    axis.axhline(0, color=BLACK, linewidth=0.4)
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
        axis.set_xlim(1040, -40)  # so that the first bar is off the axis
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
    return "τ (1000: the base model)" if figure.x == "tau" else figure.x_label or figure.x


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


def draw_points(data: FigureData, panels: Sequence[Group]) -> Figure:
    """One panel for each group, all on the same axes, and the key to the numbers below them."""
    # 1. The figure's lines without the settings that have no point in any panel.
    lines = {
        label: [name for name in names if any(data.point(name, group) for group in panels)]
        for label, names in data.figure.lines.items()
    }
    data = replace(data, figure=replace(data.figure, lines=lines))
    # 2. The height of the figure follows from the titles and from the key.
    rows = in_rows(panels)
    titles = [data.title(group, len(rows[0])) for group in panels]
    labels = [f"{number}  {setting_label(data, name)}" for number, name in enumerate(data.settings, start=1)]
    key_columns = max(1, int(WIDTH / (LETTER * max(map(len, labels)) + 0.3)))
    # Inches; more numbers in a panel need more room, and so does each line of a title.
    panel_height = 1.7 if len(panels) > 1 else 2.3
    panel_height += 0.05 * len(labels) + 0.14 * max(title.count("\n") for title in titles)
    height = 0.4 + panel_height * len(rows) + 0.17 * math.ceil(len(labels) / key_columns)
    figure, axes = new_figure(len(rows), len(rows[0]), height, sharex=True, sharey=True)
    # 3. Panels and key.
    points = {}
    for axis, group, title in zip(axes.flat, panels, titles, strict=False):
        points[axis] = _draw_panel(axis, data, group)
        axis.set_title(title)
        axis.set_xlabel(data.columns[data.figure.x].label)
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(data.columns[data.figure.columns[0]].label)
    figure.suptitle(data.figure.title)
    styles = _markers(data)
    handles = [Line2D([], [], **styles[label]) for label, names in data.figure.lines.items() for _ in names]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=key_columns, handlelength=1, handletextpad=0.3
    )
    # 4. The numbers, once the layout has settled where on the page the points are.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, of_panel in points.items():
        _draw_numbers(axis, of_panel)
    return figure


def setting_label(data: FigureData, name: str) -> str:
    """A setting's labels; a label without a word follows the heading of its column."""
    layout = data.comparison.layout
    setting, headings = layout.settings[name], table_of(layout, data.figure).labels
    if setting.base:
        return "base model"
    return "; ".join(
        label if heading in label or re.search(r"[^\W\d_]{2}", label) else f"{heading} {label}"
        for heading, label in zip(headings, setting.labels, strict=True)
        if label not in ("", "–")
    )


def _draw_panel(axis: Axes, data: FigureData, group: Group) -> Points:
    points = {}
    markers = _markers(data)
    settings = [(label, name) for label, names in data.figure.lines.items() for name in names]
    for number, (label, name) in enumerate(settings, start=1):
        if point := data.point(name, group):
            x, y = point
            points[number] = x.mean, y.mean
            bars: dict[str, Any] = {"fmt": "none", "ecolor": GREY, "elinewidth": 0.6, "zorder": 1}
            axis.errorbar(x.mean, y.mean, ends([y]), ends([x]), **bars)
            axis.plot(x.mean, y.mean, **markers[label], zorder=3)
    return points


def _markers(data: FigureData) -> dict[str, dict[str, Any]]:
    """{line: the style of its points}; white edges separate points that touch."""
    edge = {"linestyle": "none", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.4}
    return {label: {**style, **edge} for label, style in model_styles(list(data.figure.lines)).items()}


def _draw_numbers(axis: Axes, points: Points) -> None:
    """Each number beside its point, with a line to it."""
    axis.autoscale(False)
    texts = [
        axis.text(
            x, y, str(number), ha="center", va="center", fontsize=7, zorder=5,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )
        for number, (x, y) in points.items()
    ]  # fmt: skip
    arrow = {"arrowstyle": "-", "linewidth": 0.4, "color": BLACK, "shrinkA": 0, "shrinkB": 0, "zorder": 2}
    x, y = zip(*points.values(), strict=True)
    adjust_text(texts, x, y, ax=axis, arrowprops=arrow, **PLACEMENT)
