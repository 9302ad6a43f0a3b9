"""The figure of published reconstructions: `python -m motionexp.scripts.inversion_figures` (`make figures`).

Writes it as .svg and .png beside the published strips of pictures, and a README.md with the captions.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.probes.analysis.figures import Captioned
from motionexp.probes.analysis.reports import write_captioned, write_published
from motionexp.results.figures.style import BLUE, GREY, ORANGE, contrast_title, new_figure
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.rows import Row, contrast_order
from motionexp.scripts.inversion import METRICS

EXPERIMENT = Path("experiments/inversion.yaml")
COLOURS = {"empty": BLUE, "caption": ORANGE}
MARKERS = {"empty": "o", "caption": "s"}

Run = tuple[str, str]
"""A prompt and a number of steps."""


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR of every model, prompt and number of steps: a column of panels a contrast, a row a metric."""
    contrasts = sorted({row.stratum("contrast") for row in rows}, key=contrast_order)
    models, runs = sorted({row.model for row in rows}), _runs(rows)
    drawn, axes = new_figure(len(METRICS), len(contrasts), 4.4, sharex=True, sharey="row")
    for i, (metric, label) in enumerate(METRICS.items()):
        for j, contrast in enumerate(contrasts):
            own = [row for row in rows if (row.metric, row.stratum("contrast")) == (metric, contrast)]
            _panel(axes[i, j], own, models, runs)
            if i == 0:
                axes[i, j].set_title(contrast_title(contrast))
        axes[i, 0].set_ylabel(f"PSNR {label}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(runs))
    return drawn


def _runs(rows: Sequence[Row]) -> list[Run]:
    found = {(row.stratum("prompt"), row.steps) for row in rows}
    ordered = sorted(found, key=lambda each: (list(COLOURS).index(each[0]), each[1]))
    return [(prompt, str(steps)) for prompt, steps in ordered]


def _panel(axis: Axes, rows: Sequence[Row], models: Sequence[str], runs: Sequence[Run]) -> None:
    """Each reference as a grey dot, their mean with its interval; open markers have the fewest steps."""
    fewest = min((steps for _, steps in runs), key=int)
    for number, (prompt, steps) in enumerate(runs):
        places = np.arange(len(models)) + 0.16 * (number - (len(runs) - 1) / 2)
        means = []
        for place, model in zip(places, models, strict=True):
            wanted = (model, prompt, steps)
            own = [row for row in rows if (row.model, row.stratum("prompt"), str(row.steps)) == wanted]
            axis.plot([place] * len(own), [row.value for row in own], ".", color=GREY, markersize=3)
            means.append(mean_interval([row.value for row in own], [row.reference for row in own]))
        axis.errorbar(
            places,
            [each.mean for each in means],
            yerr=_bars(means),
            fmt=MARKERS[prompt],
            color=COLOURS[prompt],
            markerfacecolor="white" if steps == fewest else COLOURS[prompt],
            elinewidth=0.9,
            label=f"{prompt} prompt, {steps} steps" if prompt == "empty" else f"{prompt}, {steps} steps",
        )
    axis.set_xticks(range(len(models)), models)
    axis.set_xlim(-0.6, len(models) - 0.4)


def _bars(means: Sequence[Interval]) -> np.ndarray:
    return np.array([[each.mean - each.low for each in means], [each.high - each.mean for each in means]])


def figures(rows: Sequence[Row]) -> Iterator[Captioned]:
    """The one there is."""
    references = {
        contrast: set[str]()
        for contrast in sorted({row.stratum("contrast") for row in rows}, key=contrast_order)
    }
    for row in rows:
        references[row.stratum("contrast")].add(row.reference)
    counts = "; ".join(f"{contrast_title(name)}, {len(each)}" for name, each in references.items())
    yield (
        "psnr",
        figure(rows),
        "References inverted to noise and sampled again, without guidance, with the empty prompt or with"
        " their captions: PSNR to the reference (above) and to what the model's own VAE gives back of it"
        " (below). Grey: each reference. Markers: their mean, open with the fewest steps. Bars: 95% bootstrap"
        f" intervals over references. References: {counts}.",
    )


def write(file: Path, rows: Sequence[Row]) -> list[Path]:
    """Write the figure into the folder `file`, and a README.md with it and with the strips that are there."""
    strips = "\n\n".join(_strip(path.stem) for path in sorted(file.glob("*-strip.png")))
    heading = "# Inversion\n\n`make figures` draws the figure from the published rows."
    return write_captioned(file, heading, figures(rows), strips)


def _strip(name: str) -> str:
    of = name.removesuffix("-strip")
    return (
        f"![{name}]({name}.png)\n\n**{of}.** Latents x_t of the reference, inverted with the empty prompt,"
        " and the x_0 that the model predicts from them, decoded, at t = 0, 100, ... 900, in two frames"
        ' (Figure 2 of "Video Diffusion Models Encode Motion in Early Timesteps" shows such latents).'
        " `make inversion` makes this picture, and publishing copies it."
    )


def main(arguments: Sequence[str]) -> int:
    """Draw the named experiments, or the one there is if it is published; returns the exit code."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
