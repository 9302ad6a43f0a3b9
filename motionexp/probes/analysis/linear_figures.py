"""Figures of the linear probe's published rows (`make figures`).

Writes each as .svg, .pdf and .png into a folder beside the rows, and a README.md there.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.probes.analysis.linear_rows import (
    BLOCKS,
    OBSERVER,
    TARGETS,
    X_T,
    X_T_CLEAN,
    ProbeAccuracy,
    read_accuracies,
)
from motionexp.probes.analysis.linear_tables import EXPERIMENT
from motionexp.probes.analysis.published import Captioned, write_captioned, write_published
from motionexp.probes.analysis.rows import Key
from motionexp.results.figures import colours, style
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_tables
from motionexp.results.rows import Row

ORIGIN = "`make figures` draws these figures from the published rows."
STYLES: Mapping[str, dict[str, Any]] = {
    OBSERVER: {"color": colours.NEUTRAL, "linestyle": "-", "linewidth": 3.0},
    X_T_CLEAN: {"color": colours.LATENTS, "marker": "o", "linestyle": "-"},
    X_T: {"color": colours.LATENTS, "marker": "o", "linestyle": ":", **colours.OPEN},
    BLOCKS[0]: {"color": colours.EARLY, "marker": "^", "linestyle": "-"},
    BLOCKS[1]: {"color": colours.MIDDLE, "marker": "s", "linestyle": "--"},
    BLOCKS[2]: {"color": colours.LATE, "marker": "D", "linestyle": "-."},
}
HOW = (
    "Two-alternative accuracy: how often the true class scores above another one, mean over all other"
    f" classes, by ridge regression. {X_T_CLEAN}: the regression is learnt from clean latents. At chance (the"
    " dotted line) the attribute cannot be read linearly; it may be present nevertheless. Bands: 95%"
    " bootstrap intervals over groups of test videos."
)


def figures(
    accuracies: Mapping[Key, ProbeAccuracy], log_snr: Mapping[str, np.ndarray]
) -> Iterator[Captioned]:
    """A comparison of all models, then each model and contrast."""
    yield (
        "motion-and-appearance",
        all_models(accuracies, log_snr),
        "Two-alternative accuracy of motion (circles) and appearance (squares, the mean of colour, surface,"
        f" shape and background), read from x_t (filled: {X_T_CLEAN}) and from the network's {BLOCKS[1]}"
        " (open)."
        f" {HOW} {_counts(accuracies.values())}",
    )
    for (model, contrast), accuracy in accuracies.items():
        names = accuracy.blocks
        blocks = "; ".join(f"{place}: {names[place]}" for place in BLOCKS if place in names)
        yield (
            f"{model}-{contrast}",
            attributes(accuracy, log_snr[model]),
            f"{model}, {contrast}. Two-alternative accuracy of each attribute, and of an ideal observer who"
            " distinguishes two videos that differ in the attribute alone."
            f" {HOW} {_counts([accuracy])} {blocks}.",
        )


def _counts(accuracies: Iterable[ProbeAccuracy]) -> str:
    counted = [
        f"{accuracy.counts[X_T]} test videos in {accuracy.groups(X_T)} groups; {accuracy.counts[OBSERVER]}"
        " pairs of each attribute for the observer."
        for accuracy in accuracies
    ]
    return " ".join(dict.fromkeys(counted))


def all_models(accuracies: Mapping[Key, ProbeAccuracy], log_snr: Mapping[str, np.ndarray]) -> Figure:
    """Motion and appearance: a column of panels for a model, a row for a contrast."""
    models, contrasts = (list(dict.fromkeys(key[place] for key in accuracies)) for place in (0, 1))
    height = 1.2 + 2 * len(contrasts)
    figure, axes = style.new_figure(len(contrasts), len(models), height, sharex=True, sharey=True)
    for i, contrast in enumerate(contrasts):
        for j, model in enumerate(models):
            axis = axes[i, j]
            _dress(axis)
            axis.set_title(f"{model}, {contrast}")
            if (model, contrast) in accuracies:
                _motion_and_appearance(axis, accuracies[model, contrast])
            if i == 0:
                style.log_snr_axis(axis, log_snr[model], apart=110)
            axis.set_xlabel(axis.get_xlabel() if i == len(contrasts) - 1 else "")
        axes[i, 0].set_ylabel("two-alternative accuracy")
    style.axis_legend(figure, axes[0, 0], 2)
    return figure


def _motion_and_appearance(axis: Axes, accuracy: ProbeAccuracy) -> None:
    # Filled markers: what x_t holds. Open ones: what the network reads of it.
    for features, fill in ((X_T_CLEAN, {}), (BLOCKS[1], colours.OPEN)):
        if features in accuracy.features:
            motion = {**colours.MOTION, **fill, "label": f"motion, from {features}"}
            appearance = {**colours.APPEARANCE, **fill, "label": f"appearance, from {features}"}
            _curve(axis, accuracy, accuracy.draws(features, "motion"), motion)
            _curve(axis, accuracy, accuracy.appearance(features), appearance)


def attributes(accuracy: ProbeAccuracy, log_snr: np.ndarray) -> Figure:
    """Every kind of features: a panel for each attribute, and the legend in the last one.

    Args:
        accuracy: of one model and contrast.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    figure, axes = style.new_figure(3, 2, 6.4, sharex=True, sharey=True)
    for number, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=False)):
        _dress(axis)
        for features in accuracy.features:
            _curve(axis, accuracy, accuracy.draws(features, target), {**STYLES[features], "label": features})
        if number < 2:
            style.log_snr_axis(axis, log_snr, apart=70)
        # No panel below the fourth one shows the axis of its column.
        axis.tick_params(labelbottom=number >= 3)
        axis.set_xlabel(axis.get_xlabel() if number >= 3 else "")
        axis.set_title(target)
    for row in axes:
        row[0].set_ylabel("two-alternative accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[-1, -1].axis("off")
    axes[-1, -1].legend(handles, [textwrap.fill(label, 40) for label in labels], loc="center")
    return figure


def _dress(axis: Axes) -> None:
    axis.axhline(0.5, color=colours.NEUTRAL, linewidth=0.6, linestyle=(0, (1, 3)))
    axis.set_ylim(0.4, 1.02)
    style.timestep_axis(axis)


def _curve(axis: Axes, accuracy: ProbeAccuracy, draws: Replicates, line_style: dict[str, Any]) -> None:
    """Means with their intervals as a band."""
    below, above = style.bars(draws)
    band = draws[0] - below, draws[0] + above
    axis.fill_between(accuracy.timesteps, *band, color=line_style["color"], alpha=0.15, linewidth=0)
    axis.plot(accuracy.timesteps, draws[0], **line_style)


def write(file: Path, rows: Sequence[Row], origin: str = ORIGIN) -> list[Path]:
    """Write all figures into the folder `file`, and a README.md with their captions."""
    return write_captioned(
        file, f"# The linear probe\n\n{origin}", figures(read_accuracies(rows), log_snr_tables(rows))
    )


def main(arguments: Sequence[str]) -> int:
    """Draw the named experiments, or `EXPERIMENT` if it is published; returns the exit code."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
