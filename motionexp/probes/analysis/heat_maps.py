"""Figures of one model's probes: heat maps, trade-off curves, and the atlas of what is set when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from motionexp.probes.analysis.comparisons import ENOUGH
from motionexp.probes.analysis.onsets import Onset
from motionexp.probes.timesteps import EDGES
from motionexp.results.figures.style import (
    BLACK,
    BLUE,
    GREY,
    MOTION_STYLE,
    ORANGE,
    VERMILION,
    bars,
    contrast_title,
    log_snr_axis,
    new_figure,
    timestep_axis,
)
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import timestep_at

# They point to where the caption was changed: the clean end is on the right.
BELOW: dict[str, Any] = {"color": ORANGE, "marker": ">", "linestyle": "none"}
ABOVE: dict[str, Any] = {"color": BLUE, "marker": "<", "linestyle": "none"}
SET_AT: dict[str, Any] = {"color": BLACK, "marker": "o", "linestyle": "-", "linewidth": 1.2, "markersize": 4}
PREDICTED: dict[str, Any] = {
    "color": VERMILION, "marker": "D", "linestyle": "none", "fillstyle": "none", "markersize": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """What one panel shows of every pair, with the words for its axis.

    Attributes:
        values: (1 + N, 11, 11), of the pairs as `Probe.values`.
        limits: of its axis or colours; None: those of the values.
    """

    title: str
    unit: str
    values: Replicates
    limits: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """What stands beside an axis."""
        return f"{self.title} ({self.unit})"


def heat_maps(rows: Mapping[str, Sequence[Measure]]) -> Figure:
    """Each pair of timesteps as a cell: where it begins down, where it ends across.

    Args:
        rows: {contrast: measures}, a row of panels each. A column's panels have one scale of colours.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = new_figure(len(rows), columns, 2.7 * len(rows))
    for column in range(columns):
        measures = {contrast: own[column] for contrast, own in rows.items()}
        shown = {contrast: _cells(each.values[0]) for contrast, each in measures.items()}
        every = np.stack(list(shown.values()))
        for axis, (contrast, measure) in zip(axes[:, column], measures.items(), strict=True):
            low, high = measure.limits or (np.nanmin(every), np.nanmax(every))
            image = axis.imshow(shown[contrast], cmap="cividis", vmin=low, vmax=high)
            axis.set_title(f"{contrast_title(contrast)}: {measure.title}")
            axis.set_xticks(range(0, 10, 2), EDGES[:-1:2])
            axis.set_yticks(range(1, 10, 2), EDGES[2::2])
            axis.set(xlabel="until t", ylabel="from t")
            axis.spines[:].set_visible(False)
            figure.colorbar(image, ax=axis, label=measure.unit, shrink=0.85)
    return figure


def _cells(values: np.ndarray) -> np.ndarray:
    """(10, 10) of (11, 11): without the control, NaN where no pair is."""
    return np.where(np.tri(len(EDGES), k=-1, dtype=bool), values, np.nan)[1:, :-1]


def trade_off(rows: Sequence[Mapping[str, tuple[Measure, Measure]]]) -> Figure:
    """What changes against what is kept, for all pairs, and the curve of those that end at 0.

    Args:
        rows: {contrast: (change, kept)}, a panel each; each row in units of its own.
    """
    contrasts = list(dict.fromkeys(contrast for row in rows for contrast in row))
    figure, axes = new_figure(len(rows), len(contrasts), 2.9 * len(rows), sharex="row", sharey="row")
    panels = [
        (axes[number, column], contrast, row.get(contrast))
        for number, row in enumerate(rows)
        for column, contrast in enumerate(contrasts)
    ]
    for axis, contrast, measures in panels:
        if measures is None:
            axis.set_visible(False)
            continue
        change, kept = measures
        _pairs(axis, change.values, kept.values)
        axis.set(title=contrast_title(contrast), xlabel=change.label, ylabel=kept.label)
        for measure, set_limits in ((change, axis.set_xlim), (kept, axis.set_ylim)):
            if measure.limits:
                set_limits(measure.limits[0] - 0.12, measure.limits[1] + 0.12)
    # Panels of a row share their limits, so labels can only be placed when all are drawn.
    for axis, _, measures in panels:
        if measures is not None:
            _label_starts(axis, *(each.values[0, 1:, 0] for each in measures))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def _pairs(axis: Axes, change: Replicates, kept: Replicates) -> None:
    rest = tuple(np.array([(i, j) for i in range(11) for j in range(1, i)]).T)
    axis.plot(change[0][rest], kept[0][rest], ".", color=GREY, markersize=5, label="until t > 0")
    x, y = change[:, 1:, 0], kept[:, 1:, 0]
    axis.errorbar(x[0], y[0], xerr=bars(x), yerr=bars(y), elinewidth=0.6, label="until t = 0", **MOTION_STYLE)
    place = (0, EDGES.index(ENOUGH[0]), EDGES.index(ENOUGH[1]))
    axis.plot(change[place], kept[place], "D", color=VERMILION, markersize=6, label="600 to 400")
    axis.margins(0.12)


def _label_starts(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Write beside points (10,) where their pairs begin; of points close to each other only the first."""
    axis.autoscale_view()
    labelled: list[np.ndarray] = []
    for number in reversed(range(len(x))):
        place = axis.transLimits.transform((x[number], y[number]))
        if all(np.abs((place - other) / (0.16, 0.06)).max() >= 1 for other in labelled):
            labelled.append(place)
            label = axis.annotate(
                str(EDGES[1:][number]), (x[number], y[number]), (5, 4), textcoords="offset points"
            )
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])


def atlas(
    onsets: Mapping[str, Sequence[Onset]], predicted: Mapping[tuple[str, str], float], log_snr: np.ndarray
) -> Figure:
    """When each attribute is set, a line each, a panel for each contrast.

    Args:
        onsets: {contrast: of each attribute}.
        predicted: {(contrast, factor): log-SNR}.
        log_snr: (1001,) of the model's schedule.
    """
    lines = [len(each) for each in onsets.values()]
    height = 1.0 + 0.26 * sum(lines) + 0.2 * len(lines)
    figure, axes = new_figure(len(lines), 1, height, sharex=True, height_ratios=lines)
    for axis, (contrast, found) in zip(axes[:, 0], onsets.items(), strict=True):
        for place, each in enumerate(found):
            _onset(axis, place, each)
            at = timestep_at(predicted.get((contrast, each.factor.name), np.nan), log_snr)
            axis.plot(at, place, **PREDICTED)
        axis.set_yticks(range(len(found)), [each.factor.name for each in found])
        axis.set(ylim=(len(found) - 0.5, -0.5), ylabel=contrast_title(contrast))
        axis.grid(axis="x", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    timestep_axis(axes[-1, 0])
    for axis in axes[:-1, 0]:
        axis.set_xlabel("")
    log_snr_axis(axes[0, 0], log_snr)
    names = {
        "changed from t to 0": BELOW,
        "changed from 1000 to t": ABOVE,
        "set at": SET_AT,
        "predicted": PREDICTED,
    }
    handles = [Line2D([], [], label=name, **style) for name, style in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _onset(axis: Axes, place: int, onset: Onset) -> None:
    if np.isnan(onset.t[0]):
        axis.annotate("no sure change", (0.02, place), xycoords=("axes fraction", "data"), va="center")
        return
    t = onset.t[:, None]
    axis.errorbar(t[0], [place], xerr=bars(t), zorder=3, **SET_AT)
    axis.plot(onset.below[0], place - 0.22, **BELOW)
    axis.plot(onset.above[0], place + 0.22, **ABOVE)
