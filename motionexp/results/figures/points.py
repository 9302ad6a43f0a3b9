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

from motionexp.results.comparisons import Measured
from motionexp.results.figures.panels import (
    LETTER,
    ends,
    in_rows,
    interval_of,
    panel_title,
    settings_of,
    table_of,
)
from motionexp.results.figures.style import BLACK, GREY, WIDTH, model_styles, new_figure
from motionexp.results.layout import FigureLayout, Group, Layout

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


RINGS = (9, 13, 18, 24, 31, 39)
"""Distances of a label from its point."""


ANGLES = np.deg2rad(np.arange(0, 360, 15) + 45)
"""Of places that are as good the first is taken: above, to the right."""


PASSES = 6


LABEL = np.array([10.0, 8.5])
"""Width and height of a label's box: two digits of 7 points."""


MARKER = 5.0


def offsets(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(N, 2) how far each label's centre is from its point.

    Args:
        points: (N, 2), from the panel's lower left corner.
        size: (2,) the panel's width and height.
    """
    rings = np.array([[ring * np.cos(angle), ring * np.sin(angle)] for ring in RINGS for angle in ANGLES])
    chosen = np.full(points.shape, np.nan)
    for _ in range(PASSES):
        for own in range(len(points)):
            others = np.arange(len(points)) != own
            placed = others & ~np.isnan(chosen[:, 0])
            cost = _cost(points[own], rings, points[others], points[placed], chosen[placed], size)
            chosen[own] = rings[np.argmin(cost)]
    return chosen


def _cost(
    point: np.ndarray,
    rings: np.ndarray,
    others: np.ndarray,
    placed: np.ndarray,
    placed_offsets: np.ndarray,
    size: np.ndarray,
) -> np.ndarray:
    """(K,) what is wrong with each place; `others` are all other points, `placed` those that have a label."""
    at, labels = point + rings, placed + placed_offsets
    lines = at[:, None]
    outside = np.any((at < LABEL / 2) | (at > size - LABEL / 2), axis=1)
    on_labels = np.all(np.abs(lines - labels) < LABEL, axis=2).sum(axis=1)
    on_points = np.all(np.abs(lines - np.vstack([others, point])) < (LABEL + MARKER) / 2, axis=2).sum(axis=1)
    over_labels = (_distance(labels, point, lines) < LABEL[1] / 2).sum(axis=1)
    under_lines = (_distance(lines, placed, labels) < LABEL[1] / 2).sum(axis=1)
    crossings = _crosses(point, lines, placed, labels).sum(axis=1)
    over_points = (_distance(others, point, lines) < MARKER / 2).sum(axis=1)
    bad = 200 * outside + 100 * on_labels + 50 * on_points + 30 * (over_labels + under_lines)
    cost: np.ndarray = bad + 20 * crossings + 8 * over_points + 0.5 * np.hypot(*rings.T)
    return cost


def _crosses(
    start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray
) -> np.ndarray:
    """Whether the line from `start` to `end` crosses the other, all (..., 2)."""
    apart = _side(start, end, other_start) * _side(start, end, other_end) < 0
    crosses: np.ndarray = apart & (
        _side(other_start, other_end, start) * _side(other_start, other_end, end) < 0
    )
    return crosses


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """On which side of a line a point is, by its sign."""
    along, to = end - start, point - start
    side: np.ndarray = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return side


def _distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of a point from the line between `start` and `end`, all (..., 2)."""
    along, to = end - start, point - start
    share = np.clip((to * along).sum(axis=-1) / (along * along).sum(axis=-1), 0, 1)
    distance: np.ndarray = np.linalg.norm(to - share[..., None] * along, axis=-1)
    return distance
