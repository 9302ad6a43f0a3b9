"""Curves over what a table's settings select by: τ, the rank, the number of training steps."""

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
from motionexp.results.comparisons import Measured
from motionexp.results.figures.panels import ends, in_rows, interval_of, panel_title, settings_of
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
ASIDE = 1.07
"""By how much two lines are apart at the same x of a log axis, so that both bars are seen."""


def draw_curves(measured: Measured, wanted: FigureLayout, panels: Sequence[Group]) -> Figure:
    """A row of panels for each column, each line a curve; of one group alone the columns are side by side."""
    alone = len(panels) == 1
    rows = in_rows([(panels[0], key) for key in wanted.columns]) if alone else _blocks(wanted, panels)
    height = 0.7 + 1.7 * len(rows) + 0.5 * math.ceil(len(rows) / len(wanted.columns))
    figure, axes = new_figure(len(rows), len(rows[0]), height)
    first: dict[str, Axes] = {}
    for row, cells in enumerate(rows):
        for axis, (group, key) in zip(axes[row], cells, strict=False):
            if not alone and first.setdefault(key, axis) is not axis:
                axis.sharey(first[key])
            _draw_lines(axis, measured, wanted, key, group)
            left = alone or axis is axes[row, 0]
            axis.set_ylabel(measured.layout.columns[key].label if left else "")
            axis.tick_params(labelleft=left)
            _x_axis(axis, measured, wanted, labelled=alone or key == wanted.columns[-1])
            if alone or key == wanted.columns[0]:
                _log_snr(axis, measured, wanted, group)
                axis.set_title("" if alone else panel_title(measured, wanted, group, len(rows[0])))
        for axis in axes[row, len(cells) :]:
            axis.set_visible(False)
    title = panel_title(measured, wanted, panels[0], 1).split("\n") if alone else []
    figure.suptitle(", ".join([wanted.title, *title]))
    styles = model_styles(list(wanted.lines))
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items() if label]
    handles += [Line2D([], [], **BASE_LINE)] if _base_beside(measured, wanted) else []
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _blocks(wanted: FigureLayout, panels: Sequence[Group]) -> list[Sequence[tuple[Group, str]]]:
    """Rows of panels: a row for each column of at most three groups, above those of the next groups."""
    return [[(group, key) for group in row] for row in in_rows(panels) for key in wanted.columns]


def _draw_lines(axis: Axes, measured: Measured, wanted: FigureLayout, key: str, group: Group) -> None:
    styles = model_styles(list(wanted.lines))
    for number, (label, names) in enumerate(wanted.lines.items()):
        points = [(_x(measured, wanted, name), interval_of(measured, key, name, group)) for name in names]
        known = sorted([(x, each) for x, each in points if each.n], key=lambda point: point[0])
        if known:
            means = np.array([each.mean for _, each in known])
            bars = ends([each for _, each in known])
            style: dict[str, Any] = {**styles[label], "label": label, "capsize": 2, "clip_on": False}
            aside = ASIDE ** (number - (len(wanted.lines) - 1) / 2) if wanted.log else 1
            axis.errorbar([x * aside for x, _ in known], means, yerr=bars, **style)
    axis.axhline(0, color=BLACK, linewidth=0.4)
    if base := _base_beside(measured, wanted):
        axis.axhline(interval_of(measured, key, base, group).mean, **BASE_LINE)


def _base_beside(measured: Measured, wanted: FigureLayout) -> str:
    """The key of the base model's setting, where it is none of the curves' points."""
    names = (name for name, setting in measured.layout.settings.items() if setting.base)
    base = next(names, "")
    return "" if base in settings_of(wanted) else base


def _x(measured: Measured, wanted: FigureLayout, name: str) -> float:
    return float(measured.layout.settings[name].select[wanted.x])


def _x_axis(axis: Axes, measured: Measured, wanted: FigureLayout, labelled: bool) -> None:
    if wanted.x == "tau":
        timestep_axis(axis)
        axis.set_xlim(1040, -40)  # so that the first bar is off the axis
    else:
        if wanted.log:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_minor_locator(NullLocator())
        values = sorted({_x(measured, wanted, name) for name in settings_of(wanted)})
        axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.set_xlabel(x_label(wanted) if labelled else "")
    axis.tick_params(labelbottom=labelled)


def x_label(wanted: FigureLayout) -> str:
    """What curves are drawn over, in words."""
    return "τ (1000: the base model)" if wanted.x == "tau" else wanted.x_label or wanted.x


def _log_snr(axis: Axes, measured: Measured, wanted: FigureLayout, group: Group) -> None:
    """The second axis, where x is τ and all of the panel's rows are of one model, a bundled one."""
    metric, settings = measured.layout.columns[wanted.columns[0]].metric, measured.layout.settings
    rows = [
        row for name in settings_of(wanted) for row in measured.rows(metric, settings[name], group.select)
    ]
    models = {row.model for row in rows}
    table = log_snr_of(models.pop()) if len(models) == 1 and wanted.x == "tau" else None
    if table is not None:
        log_snr_axis(axis, table, apart=120)


def log_snr_of(model: str) -> np.ndarray | None:
    """(1001,) log-SNR of a bundled model by its own schedule; None for other models."""
    config = BUNDLED / model / "scheduler" / "scheduler_config.json"
    if not config.is_file():
        return None
    schedule = read_schedule(json.loads(config.read_text()))
    return np.array([float(schedule.log_snr(t)) for t in range(TIMESTEPS + 1)])
