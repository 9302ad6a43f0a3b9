"""The figures of tables of tuning: `python -m motionexp.report.table_figures [EXPERIMENTS]` (`make figures`).

Drawn from the published rows alone, as .svg and .png, where an experiment's file says; settings.md beside
them holds their captions.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.atlas.drawing import (
    BLACK,
    BLUE,
    SETTINGS,
    VERMILION,
    log_snr_axis,
    model_styles,
    new_figure,
    save,
    timestep_axis,
)
from motionexp.config import BUNDLED, InputError
from motionexp.flow_matching import read_schedule
from motionexp.intervals import Interval, mean_interval
from motionexp.layouts import FigureLayout, Group, Layout, read_layout
from motionexp.publish import is_published, read_published
from motionexp.schedule import TIMESTEPS
from motionexp.tables import Measured

CAPTIONS = "settings.md"
MOST_PANELS = 3
"""Panels side by side."""
POINT_COLOURS = (BLUE, VERMILION, BLACK)


def write_figures(
    root: Path, layout: Layout, measured: Measured
) -> Iterator[tuple[FigureLayout, list[Path]]]:
    """Write a layout's figures under `root`; gives each with its files. One without rows is left out."""
    with matplotlib.rc_context(SETTINGS):
        for wanted in layout.figures:
            panels = [group for group in _groups(layout, wanted) if _has_rows(measured, wanted, group)]
            if panels:
                draw = _points if wanted.x in layout.columns else _curves
                file = root / wanted.file
                file.parent.mkdir(parents=True, exist_ok=True)
                yield wanted, save(draw(measured, wanted, panels), file)


def caption(wanted: FigureLayout, layout: Layout) -> str:
    """What stands beside the figure, as Markdown."""
    shown = " and ".join(layout.columns[key].label for key in wanted.columns)
    over = layout.columns[wanted.x].label if wanted.x in layout.columns else (wanted.x_label or wanted.x)
    return (
        f"**{Path(wanted.file).name}**: {wanted.title}. {shown} against {over}. Bars: 95% bootstrap intervals"
        f" over references. Table: {wanted.panels}.md"
    )


def interval_of(measured: Measured, column: str, name: str, group: Group) -> Interval:
    """One setting's mean of one column in one group."""
    layout = measured.layout
    values = measured.values(layout.columns[column], layout.settings[name], group.select)
    return mean_interval(list(values.values()), [subject[0] for subject in values])


def _groups(layout: Layout, wanted: FigureLayout) -> list[Group]:
    table = next(each for each in layout.tables if Path(each.file).name == wanted.panels)
    return [group for group in table.groups if not wanted.groups or group.title in wanted.groups]


def _has_rows(measured: Measured, wanted: FigureLayout, group: Group) -> bool:
    names = [name for line in wanted.lines.values() for name in line]
    return any(interval_of(measured, wanted.columns[0], name, group).n for name in names)


def _curves(measured: Measured, wanted: FigureLayout, panels: Sequence[Group]) -> Figure:
    """One row of panels for each column, each line a curve over what its settings select by."""
    shown = panels[: 2 * MOST_PANELS]
    figure, axes = new_figure(
        len(wanted.columns), len(shown), 0.9 + 1.75 * len(wanted.columns), sharex="col", sharey="row"
    )
    styles = model_styles(list(wanted.lines))
    for row, key in enumerate(wanted.columns):
        for axis, group in zip(axes[row], shown, strict=True):
            for label, names in wanted.lines.items():
                _curve(axis, measured, wanted, key, group, names, {**styles[label], "label": label})
            axis.axhline(0, color=BLACK, linewidth=0.4)
            _x_axis(axis, wanted, group, row, len(wanted.columns))
        axes[row, 0].set_ylabel(measured.layout.columns[key].label)
    if len(wanted.lines) > 1:
        axes[0, 0].legend(loc="best")
    figure.suptitle(wanted.title)
    return figure


def _curve(
    axis: Axes,
    measured: Measured,
    wanted: FigureLayout,
    key: str,
    group: Group,
    names: Sequence[str],
    style: dict[str, Any],
) -> None:
    points = [
        (float(measured.layout.settings[name].select[wanted.x]), interval_of(measured, key, name, group))
        for name in names
    ]
    known = sorted([(x, each) for x, each in points if each.n], key=lambda point: point[0])
    if known:
        means = np.array([each.mean for _, each in known])
        bars = _ends([each for _, each in known])
        axis.errorbar([x for x, _ in known], means, yerr=bars, **style, capsize=2, clip_on=False)


def _x_axis(axis: Axes, wanted: FigureLayout, group: Group, row: int, rows: int) -> None:
    if wanted.x == "tau":
        timestep_axis(axis)
        axis.set_xlabel("τ (1000: the base model)" if row == rows - 1 else "")
        log_snr = log_snr_of(group.select.get("model", ""))
        if row == 0 and log_snr is not None:
            log_snr_axis(axis, log_snr, apart=120)
    else:
        if wanted.log:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.set_xlabel(wanted.x_label or wanted.x if row == rows - 1 else "")
    if row == 0:
        axis.set_title(group.title)


def log_snr_of(model: str) -> np.ndarray | None:
    """(1001,) log-SNR of a bundled model by its own schedule; None for other models."""
    config = BUNDLED / model / "scheduler" / "scheduler_config.json"
    if not model or not config.is_file():
        return None
    schedule = read_schedule(json.loads(config.read_text()))
    return np.array([float(schedule.log_snr(t)) for t in range(TIMESTEPS + 1)])


def _points(measured: Measured, wanted: FigureLayout, panels: Sequence[Group]) -> Figure:
    """One panel a group, one numbered point a setting, and the key to the numbers below."""
    names = [name for line in wanted.lines.values() for name in line]
    columns = min(MOST_PANELS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 0.7 + 2.0 * rows + 0.16 * math.ceil(len(names) / 2)
    figure, axes = new_figure(rows, columns, height, sharex=True, sharey=True)
    layout, (y,) = measured.layout, wanted.columns
    for axis, group in zip(axes.flat, panels, strict=False):
        for number, (name, colour) in enumerate(zip(names, cycle(POINT_COLOURS), strict=False), start=1):
            at = [interval_of(measured, key, name, group) for key in (wanted.x, y)]
            if all(each.n for each in at):
                _point(axis, at, number, colour, ", ".join(filter(None, layout.settings[name].labels)))
        axis.set_title(group.title)
        axis.set_xlabel(layout.columns[wanted.x].label)
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(layout.columns[y].label)
    figure.suptitle(wanted.title)
    _key(figure, axes)
    return figure


def _point(axis: Axes, at: Sequence[Interval], number: int, colour: str, label: str) -> None:
    x, y = at
    axis.errorbar(
        x.mean, y.mean, xerr=_ends([x]), yerr=_ends([y]), color=colour, linewidth=0.5, linestyle="none"
    )
    # The number on a white disc, so that neither colour nor shape has to tell points apart.
    axis.plot(x.mean, y.mean, "o", color="white", markersize=8, markeredgecolor=colour, markeredgewidth=0.6)
    axis.plot(
        x.mean, y.mean, marker=f"${number}$", color=colour, linestyle="none", markersize=4 + (number > 9),
        label=f"{number}  {label}", zorder=4,
    )  # fmt: skip


def _key(figure: Figure, axes: np.ndarray) -> None:
    found: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    labels = sorted(found, key=lambda label: int(label.split()[0]))
    figure.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=2)


def _ends(intervals: Sequence[Interval]) -> np.ndarray:
    """(2, K) distances from the means to the ends; 0 where there is no interval."""
    ends = np.array([[each.mean - each.low, each.high - each.mean] for each in intervals]).T
    return np.nan_to_num(np.clip(ends, 0, None))


def main(arguments: Sequence[str]) -> int:
    """Draw the figures of the named experiments, or of all with published rows; returns the exit code."""
    captions: dict[Path, list[str]] = {}
    try:
        for path in map(Path, arguments or sorted(map(str, Path("experiments").glob("*.yaml")))):
            root, layout = path.resolve().parent.parent, read_layout(path)
            if not layout.figures or not (arguments or is_published(path, layout)):
                continue
            measured = Measured(layout, read_published(root / layout.rows))
            for wanted, written in write_figures(root, layout, measured):
                print(*map(os.path.relpath, written), sep="\n")
                captions.setdefault(written[0].parent, []).append(caption(wanted, layout))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for folder, lines in captions.items() if not arguments else ():
        (folder / CAPTIONS).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
