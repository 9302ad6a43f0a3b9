"""Figures of settings without a number: points in the plane of two columns, or a row for each setting.

In a plane the setting is written at its point. Where settings are too many for that, or lie too near to each
other, each has a row of its own, and the columns of the table are the panels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from motionexp.results.figures.colours import NEUTRAL, OPEN, Style, dotted, model_styles, setting_styles
from motionexp.results.figures.drawing import FigureData, ends, in_rows, setting_label
from motionexp.results.figures.labels import write_labels
from motionexp.results.figures.style import new_figure, style_legend, zero_line
from motionexp.results.layout import Group

MANY = 6
"""With more settings than this, two panels stand side by side and not three."""
SPREAD = 0.56
"""The part of a row's height over which its points lie."""


def draw_points(data: FigureData, panels: Sequence[Group]) -> Figure:
    """One panel for each group, all on the same axes; each setting is written at its point."""
    # 1. The figure's lines without the settings that have no point in any panel.
    lines = {
        label: [name for name in names if any(data.points(name, group) for group in panels)]
        for label, names in data.figure.lines.items()
    }
    data = replace(data, figure=replace(data.figure, lines={k: names for k, names in lines.items() if names}))
    # 2. The size of a panel follows from the number of its texts. Inches.
    rows = in_rows(panels, 2 if len(data.settings) > MANY else 3)
    titles = [data.title(group, len(rows[0])) for group in panels]
    height = (
        1.9
        + (0.07 if len(panels) > 1 else 0.15) * len(data.settings)
        + 0.14 * max(title.count("\n") for title in titles)
    )
    figure, axes = new_figure(len(rows), len(rows[0]), 0.5 + height * len(rows), sharex=True, sharey=True)
    # 3. The panels and their colours.
    styles = setting_styles(list(data.figure.lines))
    labels: dict[Axes, list[tuple[str, Line2D]]] = {}
    for axis, group, title in zip(axes.flat, panels, titles, strict=False):
        labels[axis] = _draw_plane(axis, data, group, styles)
        axis.set(title=title, xlabel=data.columns[data.figure.x].label)
        axis.tick_params(labelbottom=True)
        axis.margins(0.08)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(data.columns[data.figure.columns[0]].label)
    figure.suptitle(data.figure.title)
    if len(styles) > 1:
        style_legend(figure, {label: dotted(style) for label, style in styles.items()})
    write_labels(figure, labels)
    return figure


def _draw_plane(
    axis: Axes, data: FigureData, group: Group, styles: dict[str, Style]
) -> list[tuple[str, Line2D]]:
    """Draw a group's points; returns each with its text."""
    labels = []
    bars: dict[str, Any] = {"fmt": "none", "ecolor": NEUTRAL, "elinewidth": 0.5, "zorder": 1}
    for line, names in data.figure.lines.items():
        for name in names:
            points = data.points(name, group)
            for x, y in points:
                axis.errorbar(x.mean, y.mean, ends([y]), ends([x]), **bars)
                (dot,) = axis.plot(x.mean, y.mean, **dotted(styles[line]), zorder=3)
            if points:
                # The text stands at the last point, which has the largest scale.
                labels.append((setting_label(data, name), dot))
            if len(points) > 1:
                means = zip(*((x.mean, y.mean) for x, y in points), strict=True)
                axis.plot(*means, **{**styles[line], "marker": ""}, linewidth=0.7, zorder=2)
    return labels


def draw_rows(data: FigureData, groups: Sequence[Group]) -> Figure:
    """One panel for each column, one row for each setting, and in it a point for each group."""
    styles = _group_styles(groups)
    # Inches; rows of more groups are higher.
    height = 1.0 + (0.12 + 0.07 * len(groups)) * len(data.settings)
    figure, axes = new_figure(1, len(data.figure.columns), height, sharey=True)
    shifts = np.linspace(-SPREAD / 2, SPREAD / 2, len(groups)) if len(groups) > 1 else [0.0]
    for axis, key in zip(axes[0], data.figure.columns, strict=True):
        for group, shift in zip(groups, shifts, strict=True):
            _draw_group(axis, data, key, group, shift, styles[group.title])
        for row in range(1, len(data.settings)):
            axis.axhline(row - 0.5, color=NEUTRAL, linewidth=0.3)
        zero_line(axis, vertical=True)
        axis.set(xlabel=data.columns[key].label, ylim=(len(data.settings) - 0.5, -0.5))
        axis.set_yticks(range(len(data.settings)), [setting_label(data, name) for name in data.settings])
        axis.tick_params(axis="y", length=0)
    figure.suptitle(data.figure.title)
    legend = {data.title(group, 2).replace("\n", ", "): dotted(styles[group.title]) for group in groups}
    style_legend(figure, legend, 1)
    return figure


def _group_styles(groups: Sequence[Group]) -> dict[str, Style]:
    """{title: style}: a group has its model's colour, and a second group of the model open markers."""
    models = [group.select.get("model", group.title) for group in groups]
    of_model = model_styles(list(dict.fromkeys(models)))
    return {
        group.title: {**of_model[model], **(OPEN if model in models[:place] else {})}
        for place, (group, model) in enumerate(zip(groups, models, strict=True))
    }


def _draw_group(axis: Axes, data: FigureData, key: str, group: Group, shift: float, style: Style) -> None:
    means = [(row, data.interval(key, name, group)) for row, name in enumerate(data.settings)]
    means = [(row, mean) for row, mean in means if mean.n]
    intervals = [mean for _, mean in means]
    places, values = [row + shift for row, _ in means], [mean.mean for mean in intervals]
    axis.errorbar(values, places, xerr=ends(intervals), elinewidth=0.7, **dotted(style), zorder=3)
