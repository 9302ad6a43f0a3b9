"""Figures of one model's probes: heat maps, trade-off curves, and the onset of each attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from motionexp.probes.analysis.comparisons import SUFFICIENT
from motionexp.probes.analysis.onsets import Onset
from motionexp.probes.timesteps import EDGES
from motionexp.results.figures import style
from motionexp.results.figures.colours import (
    APPEARANCE,
    MOTION,
    NEUTRAL,
    OPEN,
    PAIR_OF_THE_PAPER,
    UNTUNED,
    Style,
)
from motionexp.results.figures.labels import write_labels
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import timestep_at

BELOW, ABOVE, SET_AT, PREDICTED = "changed from t to 0", "changed from 1000 to t", "set at", "ideal observer"
# Triangles point to the changed part of the trajectory: the clean end is on the right.
ONSET_MARKERS: Mapping[str, dict[str, Any]] = {
    BELOW: {"marker": ">", "linestyle": "none", **OPEN},
    ABOVE: {"marker": "<", "linestyle": "none", **OPEN},
    SET_AT: {"marker": "o", "linestyle": "-"},
}
OBSERVER: dict[str, Any] = {"color": NEUTRAL, "marker": "D", "linestyle": "none", "markersize": 6, **OPEN}
PAIR: dict[str, Any] = {
    "color": PAIR_OF_THE_PAPER,
    "marker": "D",
    "linestyle": "none",
    "markersize": 6,
    "markeredgecolor": "black",
}
OTHER_PAIRS: dict[str, Any] = {"color": NEUTRAL, "marker": ".", "linestyle": "none", "markersize": 5}
TO_THE_END: Style = {"color": UNTUNED, "marker": "o", "linestyle": "-"}


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

    Noise is at the left and at the top.

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
            image = axis.imshow(image_cells[::-1, ::-1], cmap="cividis", vmin=low, vmax=high)
            axis.set_title(f"{style.contrast_title(contrast)}: {quantity.title}")
            axis.set_xticks(range(1, 10, 2), EDGES[-3::-2])
            axis.set_yticks(range(0, 10, 2), EDGES[:0:-2])
            axis.set(xlabel="until t (noise → clean)", ylabel="from t (clean ← noise)")
            axis.spines[:].set_visible(False)
            figure.colorbar(image, ax=axis, label=quantity.unit, shrink=0.85)
    return figure


def trade_off(rows: Sequence[Mapping[str, tuple[Quantity, Quantity]]]) -> Figure:
    """What changes against what is preserved, for all pairs, and the curve of pairs that end at 0.

    Args:
        rows: {contrast: (change, preserved)}, a panel each; every row has its units.
    """
    contrasts = list(dict.fromkeys(contrast for row in rows for contrast in row))
    figure, axes = style.new_figure(len(rows), len(contrasts), 2.9 * len(rows), sharex="row")
    places = zip(axes.flat, product(rows, contrasts), strict=True)
    panels = [(axis, contrast, row.get(contrast)) for axis, (row, contrast) in places]
    labels: dict[Axes, list[tuple[str, Line2D]]] = {}
    for axis, contrast, quantities in panels:
        if quantities is None:
            axis.set_visible(False)
            continue
        change, preserved = quantities
        labels[axis] = _pairs(axis, change.values, preserved.values)
        axis.set(title=style.contrast_title(contrast), xlabel=change.label, ylabel=preserved.label)
        axis.tick_params(labelleft=True)
    pair = " to ".join(map(str, SUFFICIENT))
    style.style_legend(figure, {"until t = 0": TO_THE_END, "until t > 0": OTHER_PAIRS, pair: PAIR})
    write_labels(figure, labels)
    return figure


def _pairs(axis: Axes, change: Replicates, preserved: Replicates) -> list[tuple[str, Line2D]]:
    """Draw all pairs; returns the points that end at 0, each with its start."""
    # Pairs that end above 0: the lower triangle without its first column, where the end is 0.
    rest = tuple(np.array([(i, j) for i in range(11) for j in range(1, i)]).T)
    axis.plot(change[0][rest], preserved[0][rest], **OTHER_PAIRS)
    x, y = change[:, 1:, 0], preserved[:, 1:, 0]
    axis.errorbar(
        x[0], y[0], xerr=style.bars(x), yerr=style.bars(y), elinewidth=0.5, ecolor=NEUTRAL, **TO_THE_END
    )
    place = (0, EDGES.index(SUFFICIENT[0]), EDGES.index(SUFFICIENT[1]))
    pair = axis.plot(change[place], preserved[place], **PAIR)[0]
    axis.margins(0.1)
    # Each point once more and alone: texts keep off points, and a line is more than its points.
    alone: Style = {**TO_THE_END, "linestyle": "none"}
    starts = zip(_starts(x[0], y[0]), x[0], y[0], strict=True)
    return [*((text, axis.plot(*place, **alone)[0]) for text, *place in starts), ("", pair)]


def _starts(x: np.ndarray, y: np.ndarray) -> list[str]:
    """The text at each point (10,): its start, or a range at the first of neighbours in one place."""
    texts, starts = [""] * len(x), EDGES[1:]
    first = len(x) - 1
    for number in reversed(range(len(x))):
        # A hundredth of the range: such points cover each other. All values may be equal.
        distance = (np.abs(value[number] - value[first]) for value in (x, y))
        ranges = (0.01 * np.ptp(value) for value in (x, y))
        near = all(step <= limit for step, limit in zip(distance, ranges, strict=True))
        first = first if near else number
        texts[first] = f"{starts[first]}" if first == number else f"{starts[first]} to {starts[number]}"
    return texts


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
                colour = {"color": (MOTION if onset.factor.name == "motion" else APPEARANCE)["color"]}
                axis.errorbar(t[0], [place], xerr=style.bars(t), zorder=3, **ONSET_MARKERS[SET_AT], **colour)
                # Above and below the line's place, so that equal timesteps stay visible.
                axis.plot(onset.below[0], place - 0.22, **ONSET_MARKERS[BELOW], **colour)
                axis.plot(onset.above[0], place + 0.22, **ONSET_MARKERS[ABOVE], **colour)
            at = timestep_at(predicted.get((contrast, onset.factor.name), np.nan), log_snr)
            axis.plot(at, place, **OBSERVER)
        axis.set_yticks(range(len(rows)), [onset.factor.name for onset in rows])
        axis.set(ylim=(len(rows) - 0.5, -0.5), ylabel=style.contrast_title(contrast))
        axis.grid(axis="x", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    style.timestep_axis(axes[-1, 0])
    for axis in axes[:-1, 0]:
        axis.set_xlabel("")
    style.log_snr_axis(axes[0, 0], log_snr)
    markers = {label: {"color": UNTUNED, **marker} for label, marker in ONSET_MARKERS.items()}
    style.style_legend(figure, {**markers, PREDICTED: OBSERVER})
    return figure
