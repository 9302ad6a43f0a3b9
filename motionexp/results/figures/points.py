"""One numbered point for each setting in the plane of two columns: motion against leakage."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from motionexp.results.figures.panels import LETTER, FigureData, ends, in_rows, table_of
from motionexp.results.figures.style import BLACK, GREY, WIDTH, model_styles, new_figure
from motionexp.results.layout import Group

Points = dict[int, tuple[float, float]]
"""{a setting's number: its means}."""
# adjustText: the room around a label, and how strongly labels and points push labels away. A limit on
# iterations, not on time, gives the same figure on every machine.
PLACEMENT: dict[str, Any] = {
    "expand": (2.2, 1.9), "force_text": (0.6, 0.8), "force_static": (0.4, 0.6), "force_pull": (0.005, 0.005),
    "max_move": (5, 5), "min_arrow_len": 0, "iter_lim": 500,
}  # fmt: skip


def draw_points(data: FigureData, panels: Sequence[Group]) -> Figure:
    """One panel for each group, all on the same axes, and the key to the numbers below them."""
    data = replace(data, figure=replace(data.figure, lines=_with_points(data, panels)))
    # 1. The height of the figure follows from the titles and from the key.
    rows = in_rows(panels)
    titles = [data.title(group, len(rows[0])) for group in panels]
    labels = [f"{number}  {setting_label(data, name)}" for number, name in enumerate(data.settings, start=1)]
    key_columns = max(1, int(WIDTH / (LETTER * max(map(len, labels)) + 0.3)))
    panel_height = 1.7 if len(panels) > 1 else 2.3
    panel_height += 0.05 * len(labels) + 0.14 * max(title.count("\n") for title in titles)
    height = 0.4 + panel_height * len(rows) + 0.17 * math.ceil(len(labels) / key_columns)
    figure, axes = new_figure(len(rows), len(rows[0]), height, sharex=True, sharey=True)
    # 2. Panels and key.
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
    _draw_key(figure, data, labels, key_columns)
    # 3. The numbers, once the layout has settled where on the page the points are.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, of_panel in points.items():
        _draw_numbers(axis, of_panel)
    return figure


def _with_points(data: FigureData, panels: Sequence[Group]) -> dict[str, list[str]]:
    """The figure's lines without the settings that have no point in any panel."""

    def has_point(name: str) -> bool:
        keys = (data.figure.x, *data.figure.columns)
        return any(all(data.interval(key, name, group).n for key in keys) for group in panels)

    return {label: [name for name in names if has_point(name)] for label, names in data.figure.lines.items()}


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
    points, number = {}, 0
    for label, style in _markers(data).items():
        for name in data.figure.lines[label]:
            number += 1
            x, y = (data.interval(key, name, group) for key in (data.figure.x, *data.figure.columns))
            if x.n and y.n:
                axis.errorbar(
                    x.mean, y.mean, ends([y]), ends([x]), fmt="none", ecolor=GREY, elinewidth=0.6, zorder=1
                )
                axis.plot(x.mean, y.mean, **style, zorder=3)
                points[number] = x.mean, y.mean
    return points


def _markers(data: FigureData) -> dict[str, dict[str, Any]]:
    """{line: the style of its points}; white edges separate points that touch."""
    edge = {"linestyle": "none", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.4}
    return {label: {**style, **edge} for label, style in model_styles(list(data.figure.lines)).items()}


def _draw_key(figure: Figure, data: FigureData, labels: Sequence[str], columns: int) -> None:
    styles = _markers(data)
    handles = [Line2D([], [], **styles[label]) for label, names in data.figure.lines.items() for _ in names]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=1, handletextpad=0.3
    )


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
