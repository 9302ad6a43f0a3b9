"""The figures of the published probes: `python -m motionexp.report.figures [EXPERIMENTS]` (`make figures`).

Writes each as .svg and .png into `figures/` beside the rows, and a README.md there with all their captions.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from motionexp.atlas.curves import Onset, changes, shares
from motionexp.atlas.findings import Findings
from motionexp.atlas.readings import (
    MOTION_TAMPERING,
    PARTIAL_GUIDANCE,
    TAMPERING,
    Probe,
    draw,
    kept_looks,
    means,
    new_motion,
)
from motionexp.config import InputError
from motionexp.report import model_figures
from motionexp.report.drawing import SETTINGS, contrast_title, save
from motionexp.report.model_figures import Point
from motionexp.report.probe_figures import Measure, atlas, heat_maps, trade_off
from motionexp.report.published_probes import read_findings
from motionexp.results import write_whole

NAMES = {
    TAMPERING: "Prompt tampering, the looks' words changed",
    MOTION_TAMPERING: "Prompt tampering, the motion's words changed",
    PARTIAL_GUIDANCE: "Partial guidance",
}
SHARE = (0.0, 1.0)
INTERVALS = "Bars and bands: 95% bootstrap intervals over references."

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
    if findings.boundaries:
        yield from _boundaries(findings)
    points = [
        Point(*key, onset.factor.name, measured, predicted)
        for key in findings.onsets
        for onset, measured, predicted in findings.measured(key)
    ]
    if points:
        n = _counts((key[1], found[0].samples, found[0].references) for key, found in findings.onsets.items())
        yield (
            "prediction",
            model_figures.prediction(points),
            "Where each attribute is set, measured against predicted by its energy in the model's latents; on"
            f" the grey line both are equal. {INTERVALS} Motion: {n}.",
        )


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
        f"{contrast_title(contrast)}, {samples} samples of {references} references"
        for contrast, samples, references in counted
    ]
    return "; ".join(dict.fromkeys(words))


def _sizes(probes: Mapping[str, Probe]) -> str:
    return _counts((contrast, each.samples(), len(each.references)) for contrast, each in probes.items())


def _heat_maps(model: str, method: str, probes: Mapping[str, Probe]) -> Captioned:
    return (
        f"{model}-{method.replace('_', '-')}-pairs",
        heat_maps({contrast: _measured(probe, method) for contrast, probe in probes.items()}),
        f"{model}. {NAMES[method]} between two timesteps, from noise on; each cell is such a pair. Means over"
        f" references: {_sizes(probes)}.",
    )


def _measured(probe: Probe, method: str) -> list[Measure]:
    """What pairs change and keep, as the second paper (section 3.3) measures it, or with roles swapped."""
    weights = draw(len(probe.references))
    if method != MOTION_TAMPERING:
        return [
            Measure("looks changed", "CLIP logit, gain", changes(probe.values["text_alignment"], weights)),
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
        below = " Below: as shares of what 1000 to 0 changes." if len(kept) > 1 else ""
        yield (
            f"{model}-{method.replace('_', '-')}-trade-off",
            trade_off(kept),
            f"{model}. {NAMES[method]} between two timesteps: what that changes against what it keeps. The"
            f" line joins pairs that end at 0, labelled by where they begin; grey: all others.{below}"
            f" {INTERVALS} Means over references: {_sizes(probes)}.",
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
    n = "; ".join(f"{contrast_title(contrast)}, {found[0].references}" for contrast, found in onsets.items())
    return (
        f"{model}-atlas",
        atlas(onsets, predicted, findings.log_snr[model]),
        f"{model}. When each attribute is set. Triangles: where changing the caption from t to 0, or from"
        " 1000 to t, has half the effect of changing it everywhere. Points: their mean. Open diamonds: where"
        f" an ideal observer tells the attribute apart. {INTERVALS} References: {n}.",
    )


def _boundaries(findings: Findings) -> Iterator[Captioned]:
    found = findings.boundaries
    n = _counts((key[1], each.gap.n, each.gap.clusters) for key, each in found.items())
    yield (
        "shares",
        model_figures.shares(found, findings.log_snr),
        "Shares of the looks and of the motion that changing the caption below t changes, of what changing it"
        f" everywhere changes. Black line and grey band: the boundary with its interval."
        f" {INTERVALS} Looks: {n}.",
    )
    yield (
        "gaps",
        model_figures.gaps(found, findings.log_snr),
        "The gap between the two shares in each model's t (left) and in log-SNR (right). The points with bars"
        f" above the curves are the boundaries, of models that have one. {INTERVALS} Looks: {n}.",
    )


def write_figures(folder: Path, findings: Findings) -> list[Path]:
    """Write every figure into a folder, and a README.md with their captions; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, text = [], ["# Figures of the probes", "`make figures` draws them from the published rows."]
    with matplotlib.rc_context(SETTINGS):
        for name, figure, caption in figures(findings):
            paths += save(figure, folder / name)
            text.append(f"![{name}]({name}.png)\n\n**{name}.** {caption}")
    write_whole(folder / "README.md", ("\n\n".join(text) + "\n").encode())
    return [*paths, folder / "README.md"]


def main(arguments: Sequence[str]) -> int:
    """Write the figures of the named experiments, or of all probes; returns the exit code."""
    try:
        folder, findings = read_findings(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for path in write_figures(folder / "figures", findings):
        print(os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
