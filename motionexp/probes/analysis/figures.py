"""All figures of what was found, with their captions: of one model, and of several compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from motionexp.files import write_whole
from motionexp.probes.analysis import model_figures
from motionexp.probes.analysis.boundary import FEWEST_REFERENCES
from motionexp.probes.analysis.findings import Findings
from motionexp.probes.analysis.heat_maps import Measure, atlas, heat_maps, trade_off
from motionexp.probes.analysis.model_figures import Point
from motionexp.probes.analysis.onsets import Onset, changes, shares
from motionexp.probes.analysis.rows import (
    MOTION_TAMPERING,
    PARTIAL_GUIDANCE,
    TAMPERING,
    Probe,
    draw,
    kept_looks,
    means,
    new_motion,
)
from motionexp.results.figures.style import SETTINGS, contrast_title, save

NAMES = {
    TAMPERING: "Prompt tampering, the looks' words changed",
    MOTION_TAMPERING: "Prompt tampering, the motion's words changed",
    PARTIAL_GUIDANCE: "Partial guidance",
}
SHARE = (0.0, 1.0)
INTERVALS = "Bars and bands: 95% bootstrap intervals over references."
GAIN = (
    " CLIP's gain is over the control without another caption (over the reference's own video in partial"
    " guidance)."
)

BELOW = (
    " Below: as shares of what 1000 to 0 changes; the motion kept is of edits of the motion's own words,"
    " where there are any."
)

Captioned = tuple[str, Figure, str]
"""A file's name without suffix, its figure, and its caption."""


def figures(findings: Findings) -> Iterator[Captioned]:
    """All that there are rows for."""
    for model in findings.log_snr:
        for method in NAMES:
            probes = _probes(findings, model, method)
            if probes:
                yield _heat_maps(model, method, probes)
                yield from _trade_off(findings, model, method, probes)
        onsets = {contrast: found for (of, contrast), found in findings.onsets.items() if of == model}
        if onsets:
            yield _atlas(findings, model, onsets)
    yield from _boundaries(findings)
    yield from _prediction(findings)


def _probes(findings: Findings, model: str, method: str) -> dict[str, Probe]:
    """{contrast: probe}; of tampering on the references that both of its kinds have."""
    if method == PARTIAL_GUIDANCE:
        found = findings.probes.get(method, {})
    else:
        found = {key: own[method] for key, own in findings.tampering.items() if method in own}
    return {contrast: probe for (of, contrast), probe in found.items() if of == model}


def _counts(counted: Iterable[tuple[str, int, int]]) -> str:
    """How many samples and references there are, of (contrast, samples, references) of each model."""
    words = [
        f"{contrast_title(contrast)}, {_number(samples, 'sample')} of {_number(references, 'reference')}"
        for contrast, samples, references in counted
    ]
    return "; ".join(dict.fromkeys(words))


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _intervals(references: Iterable[int]) -> str:
    """What bars and bands are, where a panel each has so many references."""
    if min(references) >= FEWEST_REFERENCES:
        return INTERVALS
    return f"{INTERVALS} Of fewer than {FEWEST_REFERENCES} references such an interval says nothing."


def _sizes(probes: Mapping[str, Probe]) -> str:
    return _counts((contrast, each.samples(), len(each.references)) for contrast, each in probes.items())


def _heat_maps(model: str, method: str, probes: Mapping[str, Probe]) -> Captioned:
    return (
        f"{model}-{method.replace('_', '-')}-pairs",
        heat_maps({contrast: _measured(probe, method) for contrast, probe in probes.items()}),
        f"{model}. {NAMES[method]} between two timesteps, from noise on; each cell is such a pair."
        f"{GAIN if method != MOTION_TAMPERING else ''} Means over references: {_sizes(probes)}.",
    )


def _measured(probe: Probe, method: str) -> list[Measure]:
    """What pairs change and keep, as the second paper (section 3.3) measures it, or with roles swapped."""
    weights = draw(len(probe.references))
    if method != MOTION_TAMPERING:
        return [
            Measure(
                "looks changed",
                "CLIP logit, gain",
                changes(probe.values["text_alignment"], weights),
            ),
            Measure("motion kept", "flow similarity", means(probe.values["flow_similarity"], weights)),
        ]
    kept, moved = kept_looks(probe), changes(new_motion(probe), weights)
    if kept is None:
        return [Measure("motion changed", "flow similarity, loss", moved)]
    return [
        Measure("motion changed", "share of samples", moved, SHARE),
        Measure("looks kept", "share of attributes", means(kept, weights), SHARE),
    ]


def _trade_off(
    findings: Findings, model: str, method: str, probes: Mapping[str, Probe]
) -> Iterator[Captioned]:
    measured = {contrast: _measured(probe, method) for contrast, probe in probes.items()}
    rows = [{contrast: (own[0], own[1]) for contrast, own in measured.items() if len(own) == 2}]
    if method != MOTION_TAMPERING:
        rows.append(_shares(findings, model, method))
    if kept := [row for row in rows if row]:
        below = BELOW if len(kept) > 1 else ""
        yield (
            f"{model}-{method.replace('_', '-')}-trade-off",
            trade_off(kept),
            f"{model}. {NAMES[method]} between two timesteps: what that changes against what it keeps. The"
            f" line joins pairs that end at 0, labelled by where they begin; grey: all others.{below}"
            f" {_intervals(len(each.references) for each in probes.values())} Means over references:"
            f" {_sizes(probes)}.",
        )


def _shares(findings: Findings, model: str, method: str) -> dict[str, tuple[Measure, Measure]]:
    """{contrast: shares of changed looks and of kept motion}, without those that cannot be told."""
    return {
        contrast: (
            Measure("looks changed", "share", shares(changed.looks), SHARE),
            Measure("motion kept", "share", 1 - shares(changed.motion), SHARE),
        )
        for (of, contrast), changed in findings.pair_changes(method)
        if of == model and not changed.unknown
    }


def _atlas(findings: Findings, model: str, onsets: Mapping[str, Sequence[Onset]]) -> Captioned:
    predicted = {
        (contrast, factor): value
        for (of, contrast, factor), value in findings.predicted.items()
        if of == model
    }
    return (
        f"{model}-atlas",
        atlas(onsets, predicted, findings.log_snr[model]),
        f"{model}. When each attribute is set. Triangles: where changing the caption from t to 0, or from"
        " 1000 to t, has half the effect of changing it everywhere. Points: their mean. Open diamonds: where"
        f" an ideal observer tells the attribute apart. {_onset_references(onsets.items())}",
    )


def _prediction(findings: Findings) -> Iterator[Captioned]:
    points = [
        Point(*key, onset.factor.name, measured, predicted)
        for key in findings.onsets
        for onset, measured, predicted in findings.measured(key)
    ]
    if points:
        n = _onset_references((contrast, found) for (_, contrast), found in findings.onsets.items())
        yield (
            "prediction",
            model_figures.prediction(points),
            "Where each attribute is set, measured against predicted by its energy in the model's latents; on"
            f" the grey line both are equal. {n}",
        )


def _onset_references(onsets: Iterable[tuple[str, Sequence[Onset]]]) -> str:
    """What bars are, and how many references there are, of (contrast, onsets) of each model."""
    counted = [(contrast_title(contrast), found[0].references) for contrast, found in onsets]
    words = dict.fromkeys(f"{contrast}, {references}" for contrast, references in counted)
    return f"{_intervals(references for _, references in counted)} References: {'; '.join(words)}."


def _boundaries(findings: Findings) -> Iterator[Captioned]:
    found = findings.boundaries
    n = _counts((key[1], each.gap.n, each.gap.clusters) for key, each in found.items())
    if any(
        np.isfinite([each.motion[0], *(look[0] for look in each.looks.values())]).any()
        for each in found.values()
    ):
        yield (
            "shares",
            model_figures.shares(found, findings.log_snr),
            "Shares of the looks and of the motion that changing the caption below t changes, of what"
            " changing it everywhere changes. Thin lines: each look alone, the thick one is their mean. Black"
            " line and grey band: the boundary with its interval; it goes by the lowest thin line, not by the"
            " mean. No band: all references agree."
            f" {_intervals(each.gap.clusters for each in found.values())} Looks: {n}.",
        )
    if any(np.isfinite(each.gaps[0]).any() for each in found.values()):
        yield (
            "gaps",
            model_figures.gaps(found, findings.log_snr),
            "The gap between a look's share and the motion's, of the look with the smallest: in a model's t"
            " (left) and in log-SNR (right). The points with bars above the curves are the boundaries, of"
            " models that have one."
            f" {_intervals(each.gap.clusters for each in found.values())} Looks: {n}.",
        )


def write_figures(folder: Path, findings: Findings, origin: str) -> list[Path]:
    """Write every figure into a folder, and a README.md with their captions.

    Args:
        folder: made if there is anything to write.
        findings: of one model or more.
        origin: whence the figures come, a sentence for the README.md.

    Returns:
        The files; none where nothing can be drawn.
    """
    paths: list[Path] = []
    text = ["# Figures of the probes", origin]
    with matplotlib.rc_context(SETTINGS):
        for name, figure, caption in figures(findings):
            folder.mkdir(parents=True, exist_ok=True)
            paths += save(figure, folder / name)
            text.append(f"![{name}]({name}.png)\n\n**{name}.** {caption}")
    if not paths:
        return []
    write_whole(folder / "README.md", ("\n\n".join(text) + "\n").encode())
    return [*paths, folder / "README.md"]
