"""The figure of the inversion's published rows (`make figures`).

Writes it as .svg, .pdf and .png beside the published strips of pictures, and a README.md with the captions.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.probes.analysis.published import Captioned, write_captioned, write_published
from motionexp.results.figures.colours import NEUTRAL, UNTUNED
from motionexp.results.figures.style import axis_legend, contrast_title, new_figure
from motionexp.results.intervals import mean_interval
from motionexp.results.rows import Row, contrast_order

METRICS = {"reconstruction_psnr": "to the video, dB", "reconstruction_psnr_to_vae": "to the VAE's, dB"}
EXPERIMENT = Path("experiments/inversion.yaml")
ORIGIN = "`make figures` draws the figure from the published rows."
MARKERS = {"empty": "o", "caption": "s"}

STRIP = (
    "Latents x_t of the reference, inverted with the empty prompt, and the decoded x_0 that the model"
    ' predicts from them, at t = 900, 800, ... 0, in two frames (Figure 2 of "Video Diffusion Models Encode'
    ' Motion in Early Timesteps" shows such latents). `probe=inversion` makes this picture, and publishing'
    " copies it."
)

Run = tuple[str, int]
"""A prompt and a number of steps."""


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR of every model, prompt and number of steps: a column of panels a contrast, a row a metric."""
    contrasts = sorted({row.stratum("contrast") for row in rows}, key=contrast_order)
    models, prompts = sorted({row.model for row in rows}), list(MARKERS)
    runs = sorted(
        {(row.stratum("prompt"), row.steps) for row in rows}, key=lambda run: (prompts.index(run[0]), run[1])
    )
    drawn, axes = new_figure(len(METRICS), len(contrasts), 4.4, sharex=True, sharey="row")
    for i, (metric, label) in enumerate(METRICS.items()):
        for j, contrast in enumerate(contrasts):
            panel = [row for row in rows if (row.metric, row.stratum("contrast")) == (metric, contrast)]
            _panel(axes[i, j], panel, models, runs)
            if i == 0:
                axes[i, j].set_title(contrast_title(contrast))
        axes[i, 0].set_ylabel(f"PSNR {label}")
    axis_legend(drawn, axes[0, 0])
    return drawn


def _panel(axis: Axes, rows: Sequence[Row], models: Sequence[str], runs: Sequence[Run]) -> None:
    """Each reference as a grey dot, and their mean with its interval; open markers: the fewest steps."""
    fewest = min(steps for _, steps in runs)
    for number, (prompt, steps) in enumerate(runs):
        places = np.arange(len(models)) + 0.16 * (number - (len(runs) - 1) / 2)
        means = []
        for place, model in zip(places, models, strict=True):
            run = (model, prompt, steps)
            dots = [row for row in rows if (row.model, row.stratum("prompt"), row.steps) == run]
            values = [row.value for row in dots]
            axis.plot([place] * len(dots), values, ".", color=NEUTRAL, markersize=3)
            means.append(mean_interval(values, [row.reference for row in dots]))
        mean, low, high = np.array([(interval.mean, interval.low, interval.high) for interval in means]).T
        axis.errorbar(
            places,
            mean,
            yerr=[mean - low, high - mean],
            fmt=MARKERS[prompt],
            color=UNTUNED,
            markerfacecolor="white" if steps == fewest else UNTUNED,
            elinewidth=0.9,
            label=f"{prompt} prompt, {steps} steps" if prompt == "empty" else f"{prompt}, {steps} steps",
        )
    axis.set_xticks(range(len(models)), models)
    axis.set_xlim(-0.6, len(models) - 0.4)


def figures(rows: Sequence[Row]) -> Iterator[Captioned]:
    """The figure and its caption."""
    references: dict[str, set[str]] = {}
    for row in rows:
        references.setdefault(row.stratum("contrast"), set()).add(row.reference)
    contrasts = sorted(references, key=contrast_order)
    counts = "; ".join(f"{contrast_title(name)}, {len(references[name])}" for name in contrasts)
    yield (
        "psnr",
        figure(rows),
        "References inverted to noise and sampled again, without guidance, with the empty prompt or with"
        " their captions: PSNR to the reference (above) and to the reference after the model's VAE alone"
        " (below). Grey: each reference. Markers: their mean, open with the fewest steps. Bars: 95% bootstrap"
        f" intervals over references. References: {counts}.",
    )


def write(file: Path, rows: Sequence[Row], origin: str = ORIGIN) -> list[Path]:
    """Write the figure into the folder `file`, and a README.md with it and with the strips in that folder."""
    strips = "\n\n".join(
        f"![{path.stem}]({path.name})\n\n**{path.stem.removesuffix('-strip')}.** {STRIP}"
        for path in sorted(file.glob("*-strip.png"))
    )
    return write_captioned(file, f"# Inversion\n\n{origin}", figures(rows), strips)


def main(arguments: Sequence[str]) -> int:
    """Draw the named experiments, or `EXPERIMENT` if it is published; returns the exit code."""
    return write_published(arguments, EXPERIMENT, write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
