"""Figures that compare models: shares of appearance and motion, their gap, and predicted onsets."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motionexp.probes.analysis.boundary import NONE, Boundary
from motionexp.probes.timesteps import EDGES
from motionexp.results.figures import style
from motionexp.results.figures.colours import APPEARANCE, MOTION, NEUTRAL, UNTUNED, model_styles
from motionexp.results.intervals import Replicates, percentile_interval
from motionexp.results.log_snr import log_snr_at
from motionexp.results.rows import contrast_order

FACTOR_MARKERS = {"motion": "o", "shape": "^", "background": "s", "surface": "D", "colour": "v"}


def shares(boundaries: Mapping[tuple[str, str], Boundary], log_snr: Mapping[str, np.ndarray]) -> Figure:
    """Shares of appearance and motion that a changed caption below t changes, and the boundary between them.

    Each appearance attribute has a thin line, and their mean a thick one.

    Args:
        boundaries: {(model, contrast): boundary}, a panel each: models across, contrasts down.
        log_snr: {model: (1001,)} for the axis above.
    """
    models, contrasts = _models_and_contrasts(boundaries)
    height = 0.8 + 1.9 * len(contrasts)
    figure, axes = style.new_figure(len(contrasts), len(models), height, sharex=True, sharey=True)
    for row, contrast in enumerate(contrasts):
        for column, model in enumerate(models):
            axis = axes[row, column]
            if (boundary := boundaries.get((model, contrast))) is None:
                axis.set_visible(False)
                continue
            _shares(axis, boundary)
            style.timestep_axis(axis)
            if row == 0:
                style.log_snr_axis(axis, log_snr[model], apart=120)
                axis.set_title(model)
            if row < len(contrasts) - 1:
                axis.set_xlabel("")
        axes[row, 0].set_ylabel(f"{style.contrast_title(contrast)}\nshare changed below t")
    lines = {"appearance": APPEARANCE, "motion": MOTION}
    style.style_legend(figure, {**lines, "boundary": {"color": UNTUNED, "linewidth": 1.0}})
    return figure


def _models_and_contrasts(keys: Mapping[tuple[str, str], object]) -> tuple[list[str], list[str]]:
    contrasts = sorted({contrast for _, contrast in keys}, key=contrast_order)
    return sorted({model for model, _ in keys}), contrasts


def _shares(axis: Axes, boundary: Boundary) -> None:
    for attribute in boundary.appearance.values():
        axis.plot(EDGES, attribute[0], color=APPEARANCE["color"], linewidth=0.6)
    appearance = np.mean(list(boundary.appearance.values()), axis=0)
    for line_style, draws in ((APPEARANCE, appearance), (MOTION, boundary.motion)):
        # Without a detectable effect there are no shares, and the panel says why.
        if np.isnan(draws[0]).all():
            continue
        low, high = np.nanpercentile(draws[1:], [2.5, 97.5], axis=0)
        axis.fill_between(EDGES, low, high, color=line_style["color"], alpha=0.25, linewidth=0)
        axis.plot(EDGES, draws[0], **line_style)
    if boundary.found:
        low, high = np.nanpercentile(boundary.tau[1:], [2.5, 97.5])
        axis.axvspan(low, high, color="0.85", linewidth=0, zorder=0)
        axis.axvline(boundary.tau[0], color=UNTUNED, linewidth=1.0, zorder=1)
    else:
        text = "no boundary" if boundary.verdict == NONE else textwrap.fill(boundary.verdict, 28)
        axis.annotate(text, (0.5, 0.02), xycoords="axes fraction", va="bottom", ha="center")
    # Room below the curves for the reason why there is no boundary.
    axis.update_datalim([(0, -0.45)])
    axis.autoscale_view()
    axis.set_yticks((0, 0.5, 1))


def gaps(boundaries: Mapping[tuple[str, str], Boundary], log_snr: Mapping[str, np.ndarray]) -> Figure:
    """The gap between appearance and motion, and above it the boundaries, of all models: in t and in log-SNR.

    Args:
        boundaries: {(model, contrast): boundary}; a row of panels for each contrast.
        log_snr: {model: (1001,)}.
    """
    models, contrasts = _models_and_contrasts(boundaries)
    styles = model_styles(models)
    figure, axes = style.new_figure(len(contrasts), 2, 0.5 + 2.2 * len(contrasts), sharey="row")
    for row, contrast in enumerate(contrasts):
        for number, (model, line_style) in enumerate(styles.items()):
            boundary = boundaries.get((model, contrast))
            if boundary is None or np.isnan(boundary.gaps[0]).any():
                continue
            # The curve and the boundary, first in t and then in log-SNR. Boundaries lie above the curves.
            at = log_snr_at(np.array(EDGES), log_snr[model])
            for axis, places, tau in (
                (axes[row, 0], np.array(EDGES), boundary.tau),
                (axes[row, 1], at, log_snr_at(boundary.tau, log_snr[model])),
            ):
                axis.plot(places, boundary.gaps[0], **line_style)
                if boundary.found:
                    height, value = 1.15 + 0.12 * number, tau[:, None]
                    axis.errorbar(
                        value[0], [height], xerr=style.bars(value), **{**line_style, "linestyle": "-"}
                    )
        axes[row, 0].set_ylabel(f"{style.contrast_title(contrast)}\nsmallest gap")
        for axis in axes[row]:
            axis.axhline(0, color=NEUTRAL, linewidth=0.6, zorder=0)
            axis.set_yticks((-0.5, 0, 0.5, 1))
        style.timestep_axis(axes[row, 0])
        axes[row, 1].set_xlabel("log-SNR (nats, noise → clean)")
    style.style_legend(figure, styles)
    return figure


Point = tuple[str, str, str, Replicates, float]
"""(model, contrast, factor, log-SNR (1 + N,) at which the factor is set, the predicted log-SNR)"""


def prediction(points: Sequence[Point]) -> Figure:
    """Measured against predicted log-SNR, a panel for each contrast, and the line of equality."""
    contrasts = sorted({contrast for _, contrast, *_ in points}, key=contrast_order)
    styles = model_styles(sorted({model for model, *_ in points}))
    markers = {factor: FACTOR_MARKERS.get(factor, "x") for _, _, factor, *_ in points}
    figure, axes = style.new_figure(1, len(contrasts), 3.4, sharex=True, sharey=True)
    ends = [
        value for *_, measured, predicted in points for value in (predicted, *percentile_interval(measured))
    ]
    # Both axes have one range, so that the line of equality is the diagonal.
    span = (np.nanmin(ends) - 0.5, np.nanmax(ends) + 0.5)
    for axis, contrast in zip(axes[0], contrasts, strict=True):
        axis.plot(span, span, color=NEUTRAL, linewidth=0.8, zorder=0)
        for model, _, factor, measured, predicted in (point for point in points if point[1] == contrast):
            value, marker = (
                measured[:, None],
                {"marker": markers[factor], "markersize": 5, "linestyle": "none"},
            )
            marker["color"] = styles[model]["color"]
            axis.errorbar([predicted], value[0], yerr=style.bars(value), elinewidth=0.6, **marker)
        axis.set_xticks(axis.get_yticks())
        title = style.contrast_title(contrast)
        axis.set(title=title, xlabel="predicted log-SNR (nats)", xlim=span, ylim=span)
        axis.set_aspect("equal")
    axes[0, 0].set_ylabel("measured log-SNR (nats)")
    colours = {model: {"color": line_style["color"], "linewidth": 3} for model, line_style in styles.items()}
    shapes = {name: {"color": UNTUNED, "marker": m, "linestyle": "none"} for name, m in markers.items()}
    entries = {**colours, **shapes}
    style.style_legend(figure, entries, len(entries) if len(entries) <= 5 else math.ceil(len(entries) / 2))
    return figure
