"""The figure of a sweep's table: its first scores over the swept number, and motion against leakage."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from motionexp.results.figures.colours import NEUTRAL, SPARE, Style, dotted
from motionexp.results.figures.colours import SETTINGS as MEANINGS
from motionexp.results.figures.drawing import BASE_LINE, ends
from motionexp.results.figures.labels import write_labels
from motionexp.results.figures.style import SETTINGS, new_figure, style_legend, timestep_axis, zero_line
from motionexp.results.formats import Line, Table
from motionexp.results.intervals import Interval

ROW = 2.3
"""Inches."""
MOST_OF_NAME = 16
"""Characters beside a point."""
MOST_NAMES = 12
"""Points of a panel that have names."""


@dataclass(frozen=True)
class _Plot:
    """The lines of a block that are means: `x` is the place of the label that is swept as a number, or -1."""

    table: Table
    title: str
    lines: Sequence[Line]
    x: int

    def curve_of(self, line: Line) -> str:
        """The other labels of a line, which name its curve."""
        labels = zip(self.table.labels, line.labels, strict=True)
        return ", ".join(
            f"{name} {text}" for place, (name, text) in enumerate(labels) if place != self.x and text
        )

    def name_of(self, line: Line) -> str:
        """What is written beside the line's point: the swept number, or all labels, if there is room."""
        if _is_base(line):
            return line.labels[0]
        name = ", ".join(filter(None, line.labels)) if self.x < 0 else line.labels[self.x]
        return name if len(name) <= MOST_OF_NAME else f"{name[:MOST_OF_NAME]} ..."


def draw_sweep(table: Table) -> Figure | None:
    """A row for each block of a sweep's main table; None where it has no two lines to compare."""
    plots = [plot for plot in _plots(table) if len(plot.lines) > 1]
    count = min(2, len(table.columns))
    if not plots or not count:
        return None
    with matplotlib.rc_context(SETTINGS):
        lines = [(plot, line) for plot in plots for line in plot.lines if not _is_base(line)]
        curves = list(dict.fromkeys(plot.curve_of(line) for plot, line in lines))
        styles = {curve: SPARE[number % len(SPARE)] for number, curve in enumerate(curves)}
        figure, axes = new_figure(len(plots), count + (count > 1), 0.6 + ROW * len(plots))
        texts: dict[Axes, list[tuple[str, Line2D]]] = {}
        for plot, of_plot in zip(plots, axes, strict=True):
            for column in range(count):
                _draw_curves(of_plot[column], plot, column, styles)
            of_plot[0].set_title(plot.title, loc="left")
            if count > 1:
                texts[of_plot[2]] = _draw_plane(of_plot[2], plot, styles)
        if (
            len(shown := {name: style for name, style in styles.items() if name} | {"base model": BASE_LINE})
            > 1
        ):
            style_legend(figure, shown, min(2, len(shown)))
        write_labels(figure, texts)
    return figure


def _plots(table: Table) -> list[_Plot]:
    plots = []
    for block in table.blocks:
        lines = [line for line in block.lines if not line.is_difference and line.source == "measured"]
        numbers = [
            {_number(line.labels[place]) for line in lines} - {None} for place in range(len(table.labels))
        ]
        x = next((place for place, values in enumerate(numbers) if len(values) > 1), -1)
        plots.append(_Plot(table, block.title, lines, x))
    return plots


def _is_base(line: Line) -> bool:
    return "base model" in line.labels[0]


def _number(text: str) -> float | None:
    """The number that a label begins with."""
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return None


def _interval(line: Line, column: int) -> Interval | None:
    cell = line.cells[column]
    return cell.interval if cell is not None and cell.interval.n else None


def _draw_curves(axis: Axes, plot: _Plot, column: int, styles: dict[str, Style]) -> None:
    """One column's means with their intervals, over the swept number or a line each."""
    points: dict[str, list[tuple[float, Interval]]] = {curve: [] for curve in styles}
    for number, line in enumerate(plot.lines):
        x = _number(line.labels[plot.x]) if plot.x >= 0 else float(number)
        interval = _interval(line, column)
        if interval is not None and _is_base(line):
            axis.axhline(interval.mean, **BASE_LINE)
        elif interval is not None and x is not None:
            points[plot.curve_of(line)].append((x, interval))
    for curve, of_curve in points.items():
        if of_curve := sorted(of_curve, key=lambda point: point[0]):
            intervals = [interval for _, interval in of_curve]
            places, means = [x for x, _ in of_curve], [interval.mean for interval in intervals]
            style = styles[curve] if plot.x >= 0 else dotted(styles[curve])
            axis.errorbar(places, means, ends(intervals), capsize=2, **style)
    zero_line(axis)
    axis.set_ylabel(plot.table.columns[column])
    if plot.x < 0:
        axis.set_xticks(
            range(len(plot.lines)), [plot.name_of(line) for line in plot.lines], rotation=30, ha="right"
        )
    elif plot.table.labels[plot.x] == "tau":
        timestep_axis(axis)
        axis.set_xlabel("τ (noise → clean)")
    else:
        axis.set_xlabel(plot.table.labels[plot.x])


def _draw_plane(axis: Axes, plot: _Plot, styles: dict[str, Style]) -> list[tuple[str, Line2D]]:
    """The first column against the second; returns each point with the name of its line."""
    labels = []
    for line in plot.lines:
        y, x = _interval(line, 0), _interval(line, 1)
        if x and y:
            axis.errorbar(x.mean, y.mean, ends([y]), ends([x]), fmt="none", ecolor=NEUTRAL, elinewidth=0.5)
            style = MEANINGS["base model"] if _is_base(line) else styles[plot.curve_of(line)]
            (dot,) = axis.plot(x.mean, y.mean, **dotted(style), zorder=3)
            labels.append((plot.name_of(line) if len(plot.lines) <= MOST_NAMES else "", dot))
    axis.set(xlabel=plot.table.columns[1], ylabel=plot.table.columns[0])
    axis.margins(0.15)
    return labels
