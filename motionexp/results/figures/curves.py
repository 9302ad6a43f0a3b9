"""Curves over a number by which a table's settings select: τ, the rank, the training steps."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.flow_matching import read_schedule
from motionexp.diffusion.schedule import TIMESTEPS
from motionexp.results.figures.panels import FigureData, ends, in_rows
from motionexp.results.figures.style import (
    BLACK,
    GREY,
    log_snr_axis,
    model_styles,
    new_figure,
    timestep_axis,
)
from motionexp.results.layout import FigureLayout, Group

BASE_LINE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1, "label": "base model"}
OFFSET = 1.07
"""Factor between the x of two lines at the same x of a log axis, so that both bars are visible."""


def draw_curves(data: FigureData, panels: Sequence[Group]) -> Figure:
    """A row of panels for each column, each line a curve; of one group alone the columns are side by side."""
    columns, alone = data.figure.columns, len(panels) == 1
    rows = in_rows([(panels[0], key) for key in columns]) if alone else _blocks(columns, panels)
    height = 0.7 + 1.7 * len(rows) + 0.5 * math.ceil(len(rows) / len(columns))
    figure, axes = new_figure(len(rows), len(rows[0]), height)
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
    title = data.title(panels[0], 1).split("\n") if alone else []
    figure.suptitle(", ".join([data.figure.title, *title]))
    styles = model_styles(list(data.figure.lines))
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items() if label]
    handles += [Line2D([], [], **BASE_LINE)] if _separate_base(data) else []
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _blocks(columns: Sequence[str], panels: Sequence[Group]) -> list[Sequence[tuple[Group, str]]]:
    """Rows of panels: a row for each column of at most three groups, above those of the next groups."""
    return [[(group, key) for group in row] for row in in_rows(panels) for key in columns]


def _draw_lines(axis: Axes, data: FigureData, key: str, group: Group) -> None:
    styles = model_styles(list(data.figure.lines))
    for number, (label, names) in enumerate(data.figure.lines.items()):
        points = [(_x(data, name), data.interval(key, name, group)) for name in names]
        points = sorted([point for point in points if point[1].n], key=lambda point: point[0])
        if points:
            intervals = [interval for _, interval in points]
            style: dict[str, Any] = {**styles[label], "label": label, "capsize": 2, "clip_on": False}
            offset = OFFSET ** (number - (len(data.figure.lines) - 1) / 2) if data.figure.log else 1
            means = [interval.mean for interval in intervals]
            axis.errorbar([x * offset for x, _ in points], means, yerr=ends(intervals), **style)
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
