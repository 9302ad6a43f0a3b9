"""One numbered point a setting in the plane of two columns: motion against leakage."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from motionexp.atlas.drawing import BLACK, GREY, WIDTH, model_styles, new_figure
from motionexp.layouts import FigureLayout, Group, Layout
from motionexp.measured import Measured
from motionexp.report.offset_labels import offsets
from motionexp.report.table_panels import (
    LETTER,
    ends,
    in_rows,
    interval_of,
    panel_title,
    settings_of,
    table_of,
)

Points = dict[int, tuple[float, float]]
"""{a setting's number: its means}."""


def draw_points(measured: Measured, wanted: FigureLayout, panels: Sequence[Group]) -> Figure:
    """One panel a group, all on the same axes, and the key to the numbers below; each line has its marker."""
    layout, (y,) = measured.layout, wanted.columns
    wanted = replace(wanted, lines=_with_points(measured, wanted, panels))
    rows = in_rows(panels)
    titles = [panel_title(measured, wanted, group, len(rows[0])) for group in panels]
    labels = [f"{number}  {setting_label(layout, wanted, name)}"
              for number, name in enumerate(settings_of(wanted), start=1)]  # fmt: skip
    key_columns = max(1, int(WIDTH / (LETTER * max(map(len, labels)) + 0.3)))
    panel_height = (
        (1.7 if len(panels) > 1 else 2.3)
        + 0.05 * len(labels)
        + 0.14 * max(title.count("\n") for title in titles)
    )
    height = 0.4 + panel_height * len(rows) + 0.17 * math.ceil(len(labels) / key_columns)
    figure, axes = new_figure(len(rows), len(rows[0]), height, sharex=True, sharey=True)
    drawn = {}
    for axis, group, title in zip(axes.flat, panels, titles, strict=False):
        drawn[axis] = _draw_panel(axis, measured, wanted, group)
        axis.set_title(title)
        axis.set_xlabel(layout.columns[wanted.x].label)
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(layout.columns[y].label)
    figure.suptitle(wanted.title)
    _draw_key(figure, wanted, labels, key_columns)
    figure.draw_without_rendering()  # only then is it known where on the page the points are
    for axis, points in drawn.items():
        _draw_numbers(axis, points)
    return figure


def _with_points(measured: Measured, wanted: FigureLayout, panels: Sequence[Group]) -> dict[str, list[str]]:
    """The figure's lines without the settings that have no point in any panel."""

    def has_point(name: str) -> bool:
        keys = (wanted.x, *wanted.columns)
        return any(all(interval_of(measured, key, name, group).n for key in keys) for group in panels)

    return {label: [name for name in names if has_point(name)] for label, names in wanted.lines.items()}


def setting_label(layout: Layout, wanted: FigureLayout, name: str) -> str:
    """A setting's labels; those without a word say nothing without the heading of their column."""
    setting, headings = layout.settings[name], table_of(layout, wanted).labels
    if setting.base:
        return "base model"
    return "; ".join(
        label if heading in label or re.search(r"[^\W\d_]{2}", label) else f"{heading} {label}"
        for heading, label in zip(headings, setting.labels, strict=True)
        if label not in ("", "–")
    )


def _draw_panel(axis: Axes, measured: Measured, wanted: FigureLayout, group: Group) -> Points:
    points, number = {}, 0
    for label, style in _markers(wanted).items():
        for name in wanted.lines[label]:
            number += 1
            x, y = (interval_of(measured, key, name, group) for key in (wanted.x, *wanted.columns))
            if x.n and y.n:
                axis.errorbar(
                    x.mean, y.mean, ends([y]), ends([x]), fmt="none", ecolor=GREY, elinewidth=0.6, zorder=1
                )
                axis.plot(x.mean, y.mean, **style, zorder=3)
                points[number] = x.mean, y.mean
    return points


def _markers(wanted: FigureLayout) -> dict[str, dict[str, Any]]:
    """{line: how its points are drawn}; their white edges part those that touch."""
    edge = {"linestyle": "none", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.4}
    return {label: {**style, **edge} for label, style in model_styles(list(wanted.lines)).items()}


def _draw_key(figure: Figure, wanted: FigureLayout, labels: Sequence[str], columns: int) -> None:
    styles = _markers(wanted)
    handles = [Line2D([], [], **styles[label]) for label, names in wanted.lines.items() for _ in names]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=1, handletextpad=0.3
    )


def _draw_numbers(axis: Axes, points: Points) -> None:
    """Each number beside its point, with a line to it; they are no part of the layout, which is settled."""
    box, inch = axis.get_window_extent(), axis.figure.dpi / 72
    at = axis.transData.transform(list(points.values()))
    moved = offsets((at - [box.x0, box.y0]) / inch, np.array([box.width, box.height]) / inch)
    for (number, point), offset in zip(points.items(), moved, strict=True):
        text = axis.annotate(
            str(number), point, tuple(offset), textcoords="offset points", ha="center", va="center",
            fontsize=7, zorder=5, path_effects=[withStroke(linewidth=1.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": BLACK, "shrinkA": 0, "shrinkB": 0,
                        "zorder": 2},
        )  # fmt: skip
        text.set_in_layout(False)
