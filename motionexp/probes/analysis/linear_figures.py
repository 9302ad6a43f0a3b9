"""Figures of the linear probe's published rows (`make figures`).

Writes each as .svg and .png beside the rows, into a folder of their name, and a README.md there.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.probes.analysis.figures import Captioned
from motionexp.probes.analysis.linear_rows import BLOCKS, Reading, read
from motionexp.probes.analysis.reports import write_captioned, write_published
from motionexp.probes.analysis.rows import Key
from motionexp.probes.linear_probe import OBSERVER, TARGETS, X_T, X_T_CLEAN
from motionexp.results.figures.style import (
    APPEARANCE_STYLE,
    BLACK,
    BLUE,
    GREY,
    MOTION_STYLE,
    ORANGE,
    VERMILION,
    bars,
    log_snr_axis,
    new_figure,
    timestep_axis,
)
from motionexp.results.intervals import Replicates
from motionexp.results.log_snr import log_snr_tables
from motionexp.results.rows import Row

EXPERIMENT = Path("experiments/linear-probe.yaml")
STYLES: Mapping[str, dict[str, Any]] = {
    OBSERVER: {"color": GREY, "linestyle": "-", "linewidth": 3.0},
    X_T_CLEAN: {"color": BLACK, "marker": "o", "linestyle": "-"},
    X_T: {"color": BLACK, "marker": "o", "linestyle": ":", "markerfacecolor": "white"},
    BLOCKS[0]: {"color": ORANGE, "marker": "^", "linestyle": "-"},
    BLOCKS[1]: {"color": BLUE, "marker": "s", "linestyle": "--"},
    BLOCKS[2]: {"color": VERMILION, "marker": "D", "linestyle": "-."},
}
COMPARED: Mapping[str, dict[str, Any]] = {X_T_CLEAN: {}, BLOCKS[1]: {"markerfacecolor": "white"}}
"""Features that the figure of all models shows, filled and open."""
HOW = (
    "Right of two classes: how often the true class scores above another one, mean over all others, by a"
    f" linear reading (ridge regression). {X_T_CLEAN}: a reading learnt on clean latents. What is at chance"
    " (the dotted line) cannot be read linearly; it may be there all the same. Bands: 95% bootstrap"
    " intervals over groups of test videos."
)


def figures(found: Mapping[Key, Reading], log_snr: Mapping[str, np.ndarray]) -> Iterator[Captioned]:
    """All models beside each other, then each model and contrast."""
    yield (
        "motion-and-looks",
        compared(found, log_snr),
        "How often motion (blue) and looks (orange, the mean of colour, surface, shape and background) are"
        f" read right of two classes from x_t (filled: {X_T_CLEAN}) and from the network's {BLOCKS[1]}"
        f" (open). {HOW} {_counts(found.values())}",
    )
    for (model, contrast), reading in found.items():
        blocks = "; ".join(f"{place}: {reading.blocks[place]}" for place in BLOCKS if place in reading.blocks)
        yield (
            f"{model}-{contrast}",
            attributes(reading, log_snr[model]),
            f"{model}, {contrast}. How often each attribute is read right of two classes, and how often an"
            " ideal observer tells two videos apart that differ in it alone."
            f" {HOW} {_counts([reading])} {blocks}.",
        )


def _counts(readings: Iterable[Reading]) -> str:
    counted = [
        f"{each.counts[X_T]} test videos in {each.groups(X_T)} groups; {each.counts[OBSERVER]} pairs of each"
        " attribute for the observer."
        for each in readings
    ]
    return " ".join(dict.fromkeys(counted))


def compared(found: Mapping[Key, Reading], log_snr: Mapping[str, np.ndarray]) -> Figure:
    """Motion and looks: a column of panels a model, a row a contrast."""
    models, contrasts = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    drawn, axes = new_figure(len(contrasts), len(models), 1.2 + 2 * len(contrasts), sharex=True, sharey=True)
    for i, contrast in enumerate(contrasts):
        for j, model in enumerate(models):
            axis = axes[i, j]
            _dress(axis)
            axis.set_title(f"{model}, {contrast}")
            if (model, contrast) in found:
                _motion_and_looks(axis, found[model, contrast])
            if i == 0:
                log_snr_axis(axis, log_snr[model], apart=110)
            axis.set_xlabel(axis.get_xlabel() if i == len(contrasts) - 1 else "")
        axes[i, 0].set_ylabel("right of two classes")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=2)
    return drawn


def _motion_and_looks(axis: Axes, reading: Reading) -> None:
    for features, fill in COMPARED.items():
        if features not in reading.features:
            continue
        for name, style, draws in (
            ("motion", MOTION_STYLE, reading.draws(features, "motion")),
            ("looks", APPEARANCE_STYLE, reading.looks(features)),
        ):
            _curve(axis, reading, draws, {**style, **fill, "label": f"{name}, from {features}"})


def attributes(reading: Reading, log_snr: np.ndarray) -> Figure:
    """Every kind of features: a panel for each attribute, and the legend in the last one.

    Args:
        reading: of one model and contrast.
        log_snr: (1001,) of the model's schedule at t = 0, 1, ... 1000.
    """
    drawn, axes = new_figure(3, 2, 6.4, sharex=True, sharey=True)
    for number, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=False)):
        _dress(axis)
        for features in reading.features:
            _curve(axis, reading, reading.draws(features, target), {**STYLES[features], "label": features})
        if number < 2:
            log_snr_axis(axis, log_snr, apart=70)
        # Below the fourth panel there is none that could carry its axis.
        axis.tick_params(labelbottom=number >= 3)
        axis.set_xlabel(axis.get_xlabel() if number >= 3 else "")
        axis.set_title(target)
    for row in axes:
        row[0].set_ylabel("right of two classes")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[-1, -1].axis("off")
    axes[-1, -1].legend(handles, [textwrap.fill(label, 40) for label in labels], loc="center")
    return drawn


def _dress(axis: Axes) -> None:
    axis.axhline(0.5, color=BLACK, linewidth=0.6, linestyle=(0, (1, 3)))
    axis.set_ylim(0.4, 1.02)
    timestep_axis(axis)


def _curve(axis: Axes, reading: Reading, draws: Replicates, style: dict[str, Any]) -> None:
    """Means with their intervals as a band."""
    below, above = bars(draws)
    band = draws[0] - below, draws[0] + above
    axis.fill_between(reading.timesteps, *band, color=style["color"], alpha=0.15, linewidth=0)
    axis.plot(reading.timesteps, draws[0], **style)


def write(file: Path, rows: Sequence[Row]) -> list[Path]:
    """Write all figures into the folder `file`, and a README.md with their captions."""
    heading = "# The linear probe\n\n`make figures` draws these figures from the published rows."
    return write_captioned(file, heading, figures(read(rows), log_snr_tables(rows)))


def main(arguments: Sequence[str]) -> int:
    """Draw the named experiments, or the one there is if it is published; returns the exit code."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
