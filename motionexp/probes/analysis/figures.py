"""All figures of an analysis with their captions: of one model, and comparisons of models."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from motionexp.probes.analysis import heat_maps, model_figures
from motionexp.probes.analysis.boundary import FEWEST_REFERENCES
from motionexp.probes.analysis.heat_maps import Quantity
from motionexp.probes.analysis.onsets import Onset, changes, shares
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.published import Captioned, write_captioned
from motionexp.probes.analysis.rows import (
    MOTION_TAMPERING,
    PARTIAL_GUIDANCE,
    TAMPERING,
    ProbeValues,
    bootstrap_weights,
    means,
    new_motion,
    old_appearance,
)
from motionexp.results.figures.style import contrast_title
from motionexp.results.formats import amount

NAMES = {
    TAMPERING: "Prompt tampering, the words about appearance changed",
    MOTION_TAMPERING: "Prompt tampering, the words about motion changed",
    PARTIAL_GUIDANCE: "Partial guidance",
}
SHARE = (0.0, 1.0)
INTERVALS = "Bars and bands: 95% bootstrap intervals over references."
GAIN = (
    " The gain of CLIP is over the control without another caption (in partial guidance, over the reference's"
    " video)."
)

BELOW = (
    " Below: shares of what 1000 to 0 changes. The preserved motion is that of edits of the motion's words,"
    " if there are any."
)


def figures(analysis: Analysis) -> Iterator[Captioned]:
    """All figures for which the analysis has values."""
    for model in analysis.log_snr:
        for method in NAMES:
            by_key = analysis.probes_of(method)
            if probes := {contrast: probe for (name, contrast), probe in by_key.items() if name == model}:
                yield from _pairs(analysis, model, method, probes)
        yield from _onsets(analysis, model)
    yield from _boundaries(analysis)
    yield from _prediction(analysis)


def _counts(numbers: Iterable[tuple[str, int, int]]) -> str:
    """The numbers in (contrast, samples, references) in words."""
    words = [
        f"{contrast_title(contrast)}, {amount(samples, 'sample')} of {amount(references, 'reference')}"
        for contrast, samples, references in numbers
    ]
    return "; ".join(dict.fromkeys(words))


def _intervals(references: Iterable[int]) -> str:
    """What bars and bands are, given the number of references of each panel."""
    if min(references) >= FEWEST_REFERENCES:
        return INTERVALS
    return f"{INTERVALS} Of fewer than {FEWEST_REFERENCES} references such an interval says nothing."


def _pairs(
    analysis: Analysis, model: str, method: str, probes: Mapping[str, ProbeValues]
) -> Iterator[Captioned]:
    """The heat maps of all pairs, and what pairs change against what they preserve."""
    quantities = {contrast: _quantities(probe, method) for contrast, probe in probes.items()}
    sizes = _counts((contrast, probe.samples(), len(probe.references)) for contrast, probe in probes.items())
    sizes = f"Means over references: {sizes}."
    name = f"{model}-{method.replace('_', '-')}"
    yield (
        f"{name}-pairs",
        heat_maps.heat_maps(quantities),
        f"{model}. {NAMES[method]} between two timesteps, from noise on; each cell is such a pair. Noise"
        " is at the left and at the top."
        f"{GAIN if method != MOTION_TAMPERING else ''} {sizes}",
    )
    rows = [{contrast: (pair[0], pair[1]) for contrast, pair in quantities.items() if len(pair) == 2}]
    if method != MOTION_TAMPERING:
        rows.append(_shares(analysis, model, method))
    if filled := [row for row in rows if row]:
        yield (
            f"{name}-trade-off",
            heat_maps.trade_off(filled),
            f"{model}. {NAMES[method]} between two timesteps: what it changes against what it preserves. The"
            " line connects pairs that end at 0; their starts stand beside them. Grey: all other pairs."
            f"{BELOW if len(filled) > 1 else ''}"
            f" {_intervals(len(probe.references) for probe in probes.values())} {sizes}",
        )


def _quantities(probe: ProbeValues, method: str) -> list[Quantity]:
    """What pairs change and preserve, as in the second paper (section 3.3), or with exchanged roles."""
    weights = bootstrap_weights(len(probe.references))
    if method != MOTION_TAMPERING:
        gain = changes(probe.values["text_alignment"], weights)
        flow = means(probe.values["flow_similarity"], weights)
        return [
            Quantity("appearance changed", "CLIP logit, gain", gain),
            Quantity("motion preserved", "flow similarity", flow),
        ]
    preserved, moved = old_appearance(probe), changes(new_motion(probe), weights)
    if preserved is None:
        return [Quantity("motion changed", "flow similarity, loss", moved)]
    return [
        Quantity("motion changed", "share of samples", moved, SHARE),
        Quantity("appearance preserved", "share of attributes", means(preserved, weights), SHARE),
    ]


def _shares(analysis: Analysis, model: str, method: str) -> dict[str, tuple[Quantity, Quantity]]:
    """{contrast: shares of changed appearance and of preserved motion}, without undetermined ones."""
    return {
        contrast: (
            Quantity("appearance changed", "share", shares(effects.appearance), SHARE),
            Quantity("motion preserved", "share", 1 - shares(effects.motion), SHARE),
        )
        for (name, contrast), effects in analysis.pair_effects(method)
        if name == model and not effects.undetermined
    }


def _onsets(analysis: Analysis, model: str) -> Iterator[Captioned]:
    onsets = {contrast: rows for (name, contrast), rows in analysis.onsets.items() if name == model}
    predicted = {place[1:]: value for place, value in analysis.predicted.items() if place[0] == model}
    if onsets:
        yield (
            f"{model}-onsets",
            heat_maps.onset_panels(onsets, predicted, analysis.log_snr[model]),
            f"{model}. When each attribute is set. Triangles: the t at which a changed caption from t to 0,"
            " or from 1000 to t, has half of the effect of a changed caption everywhere. Points: their mean."
            " Open diamonds: where an ideal observer detects the attribute."
            f" {_onset_references(onsets.items())}",
        )


def _prediction(analysis: Analysis) -> Iterator[Captioned]:
    points = [
        (*key, onset.factor.name, measured, predicted)
        for key in analysis.onsets
        for onset, measured, predicted in analysis.measured(key)
    ]
    if points:
        n = _onset_references((contrast, onsets) for (_, contrast), onsets in analysis.onsets.items())
        yield (
            "prediction",
            model_figures.prediction(points),
            "Where each attribute is set, measured against predicted by its energy in the model's latents; on"
            f" the grey line both are equal. {n}",
        )


def _onset_references(onsets: Iterable[tuple[str, Sequence[Onset]]]) -> str:
    """What bars are, and the number of references, of (contrast, onsets) of each model."""
    counted = [(contrast_title(contrast), rows[0].references) for contrast, rows in onsets]
    words = dict.fromkeys(f"{contrast}, {references}" for contrast, references in counted)
    return f"{_intervals(references for _, references in counted)} References: {'; '.join(words)}."


def _boundaries(analysis: Analysis) -> Iterator[Captioned]:
    boundaries = analysis.boundaries
    if not boundaries:
        return
    n = _counts((key[1], *boundary.counts) for key, boundary in boundaries.items())
    end = f"{_intervals(boundary.gap.clusters for boundary in boundaries.values())} Appearance: {n}."
    curves = [curve for b in boundaries.values() for curve in (b.motion, *b.appearance.values())]
    if any(np.isfinite(curve[0]).any() for curve in curves):
        yield (
            "shares",
            model_figures.shares(boundaries, analysis.log_snr),
            "Shares of the appearance and of the motion that a changed caption below t changes, of what a"
            " changed caption everywhere changes. Thin lines: each appearance attribute; the thick line is"
            " their mean. Black line and grey band: the boundary with its interval. The lowest thin line"
            f" decides it, not the mean. No band: all references agree. {end}",
        )
    if any(np.isfinite(boundary.gaps[0]).any() for boundary in boundaries.values()):
        yield (
            "gaps",
            model_figures.gaps(boundaries, analysis.log_snr),
            "The gap between the shares of an appearance attribute and of the motion, for the attribute with"
            " the smallest gap: in the model's t (left) and in log-SNR (right). The points with bars above"
            f" the curves are the boundaries, of models that have one. {end}",
        )


def write_figures(folder: Path, analysis: Analysis, origin: str) -> list[Path]:
    """Write every figure into a folder, and a README.md with their captions.

    Args:
        folder: made if there is anything to write.
        analysis: of one model or more.
        origin: a sentence for the README.md about where the figures come from.

    Returns:
        The files; none if nothing can be drawn.
    """
    return write_captioned(folder, f"# Figures of the probes\n\n{origin}", figures(analysis))
