"""Figures of one model's probes: heat maps, trade-off curves, and the onset of each attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from motionexp.probes.analysis.comparisons import SUFFICIENT
from motionexp.probes.analysis.onsets import Onset
from motionexp.probes.timesteps import EDGES
from motionexp.results.figures import style
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import timestep_at

BELOW, ABOVE, SET_AT, PREDICTED = "changed from t to 0", "changed from 1000 to t", "set at", "predicted"
# Triangles point to the changed part of the trajectory: the clean end is on the right.
ONSET_STYLES: Mapping[str, dict[str, Any]] = {
    BELOW: {"color": style.ORANGE, "marker": ">", "linestyle": "none"},
    ABOVE: {"color": style.BLUE, "marker": "<", "linestyle": "none"},
    SET_AT: {"color": style.BLACK, "marker": "o", "linestyle": "-"},
    PREDICTED: {"color": style.VERMILION, "marker": "D", "linestyle": "none", "fillstyle": "none"},
}


@dataclass(frozen=True)
class Quantity:
    """What one panel shows of every pair, with the words for its axis.

    Attributes:
        values: (1 + N, 11, 11) of the pairs, as `ProbeValues.values`.
        limits: of the axis or of the colours; None: those of the values.
    """

    title: str
    unit: str
    values: Replicates
    limits: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The label of an axis."""
        return f"{self.title} ({self.unit})"


def heat_maps(rows: Mapping[str, Sequence[Quantity]]) -> Figure:
    """Each pair of timesteps as a cell: its start on the vertical axis, its end on the horizontal one.

    Args:
        rows: {contrast: quantities}, a row of panels each. The panels of a column share one colour scale.
    """
    columns = list(zip(*rows.values(), strict=True))
    figure, axes = style.new_figure(len(rows), len(columns), 2.7 * len(rows))
    for column, quantities in enumerate(columns):
        # (rows, 10, 10) without the control; NaN where there is no pair.
        pairs = np.tri(len(EDGES), k=-1, dtype=bool)
        cells = np.stack([np.where(pairs, quantity.values[0], np.nan)[1:, :-1] for quantity in quantities])
        # A quantity without limits has one colour scale in its whole column.
        for axis, contrast, quantity, image_cells in zip(
            axes[:, column], rows, quantities, cells, strict=True
        ):
            low, high = quantity.limits or (np.nanmin(cells), np.nanmax(cells))
            image = axis.imshow(image_cells, cmap="cividis", vmin=low, vmax=high)
            axis.set_title(f"{style.contrast_title(contrast)}: {quantity.title}")
            axis.set_xticks(range(0, 10, 2), EDGES[:-1:2])
            axis.set_yticks(range(1, 10, 2), EDGES[2::2])
            axis.set(xlabel="until t", ylabel="from t")
            axis.spines[:].set_visible(False)
            figure.colorbar(image, ax=axis, label=quantity.unit, shrink=0.85)
    return figure


def trade_off(rows: Sequence[Mapping[str, tuple[Quantity, Quantity]]]) -> Figure:
    """What changes against what is preserved, for all pairs, and the curve of pairs that end at 0.

    Args:
        rows: {contrast: (change, preserved)}, a panel each; every row has its units.
    """
    contrasts = list(dict.fromkeys(contrast for row in rows for contrast in row))
    figure, axes = style.new_figure(len(rows), len(contrasts), 2.9 * len(rows), sharex="row", sharey="row")
    places = zip(axes.flat, product(rows, contrasts), strict=True)
    panels = [(axis, contrast, row.get(contrast)) for axis, (row, contrast) in places]
    for axis, contrast, quantities in panels:
        if quantities is None:
            axis.set_visible(False)
            continue
        change, preserved = quantities
        _pairs(axis, change.values, preserved.values)
        axis.set(title=style.contrast_title(contrast), xlabel=change.label, ylabel=preserved.label)
        for quantity, set_limits in ((change, axis.set_xlim), (preserved, axis.set_ylim)):
            if quantity.limits:
                set_limits(quantity.limits[0] - 0.12, quantity.limits[1] + 0.12)
    # Panels of a row share their limits, so labels can only be placed when all panels are drawn.
    for axis, _, quantities in panels:
        if quantities is not None:
            _label_starts(axis, *(quantity.values[0, 1:, 0] for quantity in quantities))
    style.axis_legend(figure, axes[0, 0])
    return figure


def _pairs(axis: Axes, change: Replicates, preserved: Replicates) -> None:
    # Pairs that end above 0: the lower triangle without its first column, where the end is 0.
    rest = tuple(np.array([(i, j) for i in range(11) for j in range(1, i)]).T)
    axis.plot(change[0][rest], preserved[0][rest], ".", color=style.GREY, markersize=5, label="until t > 0")
    x, y = change[:, 1:, 0], preserved[:, 1:, 0]
    line = {**style.MOTION_STYLE, "elinewidth": 0.6, "label": "until t = 0"}
    axis.errorbar(x[0], y[0], xerr=style.bars(x), yerr=style.bars(y), **line)
    place = (0, EDGES.index(SUFFICIENT[0]), EDGES.index(SUFFICIENT[1]))
    axis.plot(change[place], preserved[place], "D", color=style.VERMILION, markersize=6, label="600 to 400")
    axis.margins(0.12)


def _label_starts(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Label points (10,) with the start of their pair; of points close to one another only the first."""
    axis.autoscale_view()
    labelled: list[np.ndarray] = []
    for number in reversed(range(len(x))):
        # In fractions of the panel: a label is about 0.16 wide and 0.06 high.
        place = axis.transLimits.transform((x[number], y[number]))
        if all(np.abs((place - label) / (0.16, 0.06)).max() >= 1 for label in labelled):
            labelled.append(place)
            start, point = str(EDGES[1:][number]), (x[number], y[number])
            text = axis.annotate(start, point, (5, 4), textcoords="offset points")
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def onset_panels(
    onsets: Mapping[str, Sequence[Onset]], predicted: Mapping[tuple[str, str], float], log_snr: np.ndarray
) -> Figure:
    """When each attribute is set, one line for an attribute and one panel for a contrast.

    Args:
        onsets: {contrast: onsets of the attributes}.
        predicted: {(contrast, factor): log-SNR}.
        log_snr: (1001,) of the model's schedule.
    """
    lines = [len(rows) for rows in onsets.values()]
    height = 1.0 + 0.26 * sum(lines) + 0.2 * len(lines)
    figure, axes = style.new_figure(len(lines), 1, height, sharex=True, height_ratios=lines)
    for axis, (contrast, rows) in zip(axes[:, 0], onsets.items(), strict=True):
        for place, onset in enumerate(rows):
            if np.isnan(onset.t[0]):
                end = {"xycoords": ("axes fraction", "data"), "va": "center"}
                axis.annotate("no detectable change", (0.02, place), **end)
            else:
                t = onset.t[:, None]
                axis.errorbar(t[0], [place], xerr=style.bars(t), zorder=3, **ONSET_STYLES[SET_AT])
                # Above and below the line's place, so that equal timesteps stay visible.
                axis.plot(onset.below[0], place - 0.22, **ONSET_STYLES[BELOW])
                axis.plot(onset.above[0], place + 0.22, **ONSET_STYLES[ABOVE])
            at = timestep_at(predicted.get((contrast, onset.factor.name), np.nan), log_snr)
            axis.plot(at, place, markersize=6, **ONSET_STYLES[PREDICTED])
        axis.set_yticks(range(len(rows)), [onset.factor.name for onset in rows])
        axis.set(ylim=(len(rows) - 0.5, -0.5), ylabel=style.contrast_title(contrast))
        axis.grid(axis="x", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    style.timestep_axis(axes[-1, 0])
    for axis in axes[:-1, 0]:
        axis.set_xlabel("")
    style.log_snr_axis(axes[0, 0], log_snr)
    style.style_legend(figure, ONSET_STYLES)
    return figure
