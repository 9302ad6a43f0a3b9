"""The style of all figures: their final size for print, 8 pt letters, axes, legends and files.

`colours` says what each colour means. Denoising reads as text does: every axis in t has noise at the left or
at the top, and the clean video at the right or at the bottom.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from motionexp.files import write_whole
from motionexp.results.figures.colours import NEUTRAL
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import timestep_at

WIDTH = 6.75
"""Inches: the width of a page's text."""
DPI = 200
FORMATS = {
    ".svg": ("Date", "Creator"),
    ".pdf": ("CreationDate", "Creator", "Producer"),
    ".png": ("Software",),
}
"""{suffix: metadata that are left out, because dates and versions would change the bytes}"""
LOG_SNRS = (0, -4, -8, 4, -2, -6, 8, -10, -12)
"""Ticks, the most important first."""
SETTINGS = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 8, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.2,
    "lines.markersize": 4, "legend.frameon": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "figure.constrained_layout.use": True, "svg.hashsalt": "motionexp",
    "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip
"""The settings of matplotlib for every figure; letters stay text in .svg and .pdf."""


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure as wide as the text, `height` inches high, and its axes (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height))
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(w_pad=0.06, h_pad=0.05, wspace=0.04)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, file: Path) -> list[Path]:
    """Write `file` in each of `FORMATS`, the same bytes for the same figure; returns the files."""
    paths = []
    for suffix, without in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=DPI, metadata=dict.fromkeys(without))
        paths.append(file.with_name(file.name + suffix))
        write_whole(paths[-1], content.getvalue())
    return paths


def bars(replicates: Replicates) -> np.ndarray:
    """(2, K) distances from the first of (1 + N, K) to the ends of its 95% interval, for `errorbar`."""
    low, high = np.nanpercentile(replicates[1:], [2.5, 97.5], axis=0)
    return np.clip([replicates[0] - low, high - replicates[0]], 0, None)


def timestep_axis(axis: Axes) -> None:
    """An x axis from noise at the left to the clean video at the right, the direction of denoising."""
    axis.set_xlim(1040, -40)  # room for the markers and bars at both ends
    axis.set_xticks(range(0, 1001, 200))
    axis.set_xlabel("timestep t (noise → clean)")


def zero_line(axis: Axes, vertical: bool = False) -> None:
    """A thin line where the values of an axis are 0."""
    draw = axis.axvline if vertical else axis.axhline
    draw(0, color=NEUTRAL, linewidth=0.6, zorder=0)


def log_snr_axis(axis: Axes, log_snr: np.ndarray, apart: float = 40) -> None:
    """A second x axis above one in t: the log-SNR by its table (1001,); ticks are at least `apart` in t."""
    # At t = 0 and 1000 the log-SNR may be infinite. Ticks that are too close to a more important one go.
    finite = log_snr[np.isfinite(log_snr)]
    ticks: dict[int, float] = {}
    for value in LOG_SNRS:
        t = float(timestep_at(value, log_snr))
        if finite.min() <= value <= finite.max() and all(abs(t - tick) >= apart for tick in ticks.values()):
            ticks[value] = t
    above = axis.secondary_xaxis("top")
    above.set_xticks(list(ticks.values()), [f"{value}".replace("-", "\N{MINUS SIGN}") for value in ticks])
    above.set_xlabel("log-SNR (nats)")


def axis_legend(figure: Figure, axis: Axes, columns: int = 0) -> None:
    """A legend below the figure with the entries of one axis; without `columns` in one row."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns or len(handles))


MOST_IN_ROW = 100
"""Letters of the labels of a legend in one row."""


def style_legend(figure: Figure, styles: Mapping[str, Mapping[str, Any]], columns: int = 0) -> None:
    """A legend below the figure with {label: style of its line}; without `columns` in one row, if it fits."""
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    across = len(handles) if sum(map(len, styles)) < MOST_IN_ROW else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns or across)


def contrast_title(contrast: str) -> str:
    """The title of a contrast's panel; a suite without contrasts has one panel of all references."""
    return contrast or "all references"
