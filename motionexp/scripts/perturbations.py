"""Dose response of the metrics: a test that every score measures what its name says.

The right sample is rendered from the ground truth and perturbed in one way, in growing doses. All metrics
score it. `EXPECTED` holds which scores must follow the dose, and which scores must not depend on it.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import Scene, Truth, edited
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.diffusion.progress import progress_bar
from motionexp.files import write_whole
from motionexp.metrics.base import Measurement
from motionexp.metrics.scorer import Scorer
from motionexp.results.formats import Grid


@dataclass(frozen=True)
class BentScene(Scene):
    """A scene whose first object leaves its path, and comes back, by up to `bend` pixels to either side."""

    bend: float = 0.0

    def truth(self, frames: int, period: int | None = None, thing: int = 0) -> Truth:
        """Return the ground truth of the bent path."""
        truth = super().truth(frames, period, thing)
        wave = np.sin(np.linspace(0, 2 * np.pi, frames))[:, None]
        position = truth.position + self.bend * wave * np.array([0.6, 0.8])
        return replace(truth, position=position, velocity=np.diff(position, axis=0))


def bend_path(target: Scene, reference: Scene, frames: int, pixels: float) -> np.ndarray:
    """Render the target with its path bent by `pixels`."""
    parts = {part.name: getattr(target, part.name) for part in fields(Scene)}
    return render(BentScene(**parts, bend=pixels), frames)


def off_colour(frame: np.ndarray, degrees: float, saturation: float) -> np.ndarray:
    """Return frames (..., H, W, 3), hues turned by ``degrees``, chroma multiplied by ``saturation``."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)) / np.sqrt(3)
    turn = np.array([[cos, -sin, sin], [sin, cos, -sin], [-sin, sin, cos]])
    luminance = frame.mean(-1, keepdims=True)
    return np.clip(np.round(luminance + saturation * (frame - luminance) @ turn.T), 0, 255).astype(np.uint8)


def turn_hue(target: Scene, reference: Scene, frames: int, degrees: float) -> np.ndarray:
    """Render the target and turn all colours about the grey axis."""
    return off_colour(render(target, frames), degrees, 1.0)


def hold(target: Scene, reference: Scene, frames: int, share: float) -> np.ndarray:
    """Render the target and let its last frames, this share of all, be still."""
    video = render(target, frames)
    return video[np.minimum(np.arange(frames), round((1 - share) * (frames - 1)))]


def drop(target: Scene, reference: Scene, frames: int, run: float) -> np.ndarray:
    """Render the target and show every `run`-th frame only, held until the next one."""
    return render(target, frames)[(np.arange(frames) // int(run)) * int(run)]


def blur(target: Scene, reference: Scene, frames: int, sigma: float) -> np.ndarray:
    """Render the target and blur each frame by a Gaussian of `sigma` pixels."""
    video = render(target, frames)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in video]) if sigma else video


def shuffle(target: Scene, reference: Scene, frames: int, share: float) -> np.ndarray:
    """Render the target and put this share of its frames, drawn once and for all, into another order."""
    random, order = np.random.RandomState(0), np.arange(frames)  # its stream is the same in every numpy
    drawn = np.sort(random.permutation(frames)[: round(share * frames)])
    order[drawn] = random.permutation(drawn)
    return render(target, frames)[order]


def swap_identity(target: Scene, reference: Scene, frames: int, share: float) -> np.ndarray:
    """Render the target with another object on the same path in its last frames, this share of all."""
    next_values = {
        name: values[(values.index(target.attributes[name]) + 1) % len(values)]
        for name, values in ATTRIBUTES.items()
        if name != "background"
    }
    before, after = render(target, frames), render(edited(target, next_values), frames)
    swap = round((1 - share) * frames)
    return np.concatenate([before[:swap], after[swap:]])


def restore_appearance(target: Scene, reference: Scene, frames: int, count: float) -> np.ndarray:
    """Render the target with the first `count` attributes as the reference has them."""
    restored = {name: reference.attributes[name] for name in list(ATTRIBUTES)[: int(count)]}
    return render(edited(target, restored), frames)


def change_nuisances(target: Scene, reference: Scene, frames: int, share: float) -> np.ndarray:
    """Render the target faded by this share into one with other nuisances."""
    ours = reference.nuisances
    moved = tuple((64 - x, 64 - y, radius, sign) for x, y, radius, sign in ours.distractors)
    phase = (ours.phase[0] + 2.0, ours.phase[1] + 1.0)
    theirs = replace(ours, phase=phase, orientation=-ours.orientation, distractors=moved)
    before, after = (render(replace(target, nuisances=nuisances), frames) for nuisances in (ours, theirs))
    return np.round(before * (1 - share) + after * share).astype(np.uint8)


@dataclass(frozen=True)
class Perturbation:
    """A change of growing size; the first dose changes nothing."""

    unit: str
    doses: tuple[float, ...]
    apply: Callable[[Scene, Scene, int, float], np.ndarray]


PERTURBATIONS: Mapping[str, Perturbation] = {
    "path bent": Perturbation("px", (0, 1, 2, 4, 8), bend_path),
    "hue turned": Perturbation("degrees", (0, 15, 30, 45, 90), turn_hue),
    "end held": Perturbation("share", (0, 0.25, 0.5, 0.75), hold),
    "frames dropped": Perturbation("one kept of", (1, 2, 3, 4), drop),
    "frames shuffled": Perturbation("share", (0, 0.25, 0.5, 1), shuffle),
    "frozen": Perturbation("all", (0, 1), hold),
    "identity swapped": Perturbation("share", (0, 0.25, 0.5, 0.75), swap_identity),
    "blurred": Perturbation("px", (0, 1, 2, 4), blur),
    "appearance restored": Perturbation("of 4", (0, 1, 2, 3, 4), restore_appearance),
    "nuisances changed": Perturbation("share", (0, 0.25, 0.5, 0.75, 1), change_nuisances),
}

Answer = Literal["rises", "falls"] | float
EXPECTED: Mapping[str, Mapping[Answer, Sequence[str]]] = {
    "path bent": {
        "falls": ["flow_similarity", "velocity_similarity"],
        "rises": ["path_error", "position_error"],
        0.02: ["nuisance_similarity"],
        0.1: ["attribute_accuracy", "replaced_attributes", "appearance_leakage"],
        2.0: ["text_alignment", "pick_score"],
    },
    "hue turned": {
        "falls": ["attribute_accuracy", "text_alignment", "pick_score"],
        0.02: ["velocity_similarity", "nuisance_similarity"],
        0.05: ["flow_similarity", "motion_fidelity"],
        0.1: ["path_error"],
    },
    "end held": {
        "falls": ["flow_similarity", "motion_fidelity", "velocity_similarity"],
        "rises": ["path_error", "frame_consistency_consecutive"],
        0.05: ["nuisance_similarity"],
        0.1: ["attribute_accuracy"],
        2.0: ["text_alignment"],
    },
    "frames dropped": {
        "falls": ["flow_similarity", "velocity_similarity"],
        "rises": ["frame_consistency_consecutive"],
        0.05: ["nuisance_similarity"],
        0.1: ["attribute_accuracy"],
    },
    "frames shuffled": {
        "falls": [
            "flow_similarity",
            "motion_fidelity",
            "velocity_similarity_counted",
            "frame_consistency_consecutive",
        ],
        0.01: ["frame_consistency_pairs", "text_alignment"],
        0.1: ["attribute_accuracy"],
    },
    "frozen": {
        "falls": ["flow_similarity", "motion_fidelity", "velocity_similarity_counted"],
        "rises": ["frame_consistency_consecutive", "frame_consistency_pairs"],
        0.05: ["nuisance_similarity"],
        0.1: ["attribute_accuracy"],
        2.0: ["text_alignment"],
    },
    "identity swapped": {
        "falls": ["attribute_accuracy", "text_alignment", "pick_score"],
        0.02: ["velocity_similarity"],
        0.05: ["motion_fidelity", "nuisance_similarity"],
    },
    "blurred": {
        "falls": ["nuisance_similarity", "pick_score", "text_alignment", "attribute_accuracy"],
        0.02: ["velocity_similarity"],
        0.1: ["motion_fidelity"],
        0.2: ["flow_similarity"],
        0.5: ["path_error"],
    },
    "appearance restored": {
        "falls": ["attribute_accuracy", "text_alignment"],
        "rises": ["replaced_attributes", "appearance_leakage"],
        0.02: ["velocity_similarity"],
        0.05: ["nuisance_similarity"],
        0.25: ["flow_similarity"],
    },
    "nuisances changed": {
        "falls": ["nuisance_similarity"],
        0.02: ["velocity_similarity"],
        0.1: ["flow_similarity", "path_error", "attribute_accuracy"],
        2.0: ["text_alignment"],
    },
}
"""{perturbation: {answer: values}}: whether values rise or fall with the dose, or how far they may stray.

A score that rises or falls may rest where it has reached its end, but never turns back.
"""


@dataclass(frozen=True)
class Response:
    """Mean of one value under one dose, over the references on which it did not abstain, and their number."""

    perturbation: str
    dose: float
    value: str
    mean: float
    count: int


def dose_response(references: Sequence[Reference], scorer: Scorer) -> list[Response]:
    """Score perturbed renders of every reference's edit of all attributes; see `dosed`."""
    scored: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for name, dose, _, by_metric in dosed(references, scorer):
        for measured in by_metric.values():
            for value, measurement in measured.items():
                scored[name, dose, value].append(measurement.value)
    responses = []
    for key, values in scored.items():
        counted = np.array(values)[~np.isnan(values)]
        mean = float(counted.mean()) if len(counted) else float("nan")
        responses.append(Response(*key, mean, len(counted)))
    return responses


def dosed(
    references: Sequence[Reference], scorer: Scorer, names: Collection[str] = tuple(PERTURBATIONS)
) -> Iterator[tuple[str, float, Reference, Mapping[str, Mapping[str, Measurement]]]]:
    """Yield (perturbation, dose, reference, scores) of every dose of the named perturbations.

    Args:
        references: of the bundled world, with one object each and an edit of kind `multiple`.
        scorer: its measurements by metric and value are the scores.
        names: of perturbations.
    """
    # The first dose changes nothing, whatever the perturbation: scored once.
    doses = {name: PERTURBATIONS[name].doses for name in names}
    total = len(references) * (1 + sum(len(series) - 1 for series in doses.values()))
    scored: dict[tuple[str, str, float], Mapping[str, Mapping[str, Measurement]]] = {}
    with progress_bar(total, "dose response", "video") as bar:
        for name, dose in ((name, dose) for name, series in doses.items() for dose in series):
            for reference in references:
                key = (reference.name, name, dose) if dose != doses[name][0] else (reference.name, "", 0.0)
                if key not in scored:
                    frames, edit = perturbed(reference, PERTURBATIONS[name], dose)
                    scored[key] = scorer.score(frames, reference, edit)
                    bar.update()
                yield name, dose, reference, scored[key]


def perturbed(reference: Reference, perturbation: Perturbation, dose: float) -> tuple[np.ndarray, Edit]:
    """Return the perturbed render (F, H, W, 3) of a reference's edit of all attributes, and this edit."""
    scene = reference.truth
    (edit,) = [edit for edit in reference.edits if edit.kind == "multiple"]
    assert isinstance(scene, Scene)
    assert edit.truth is not None
    target = edited(scene, {name: edit.truth[name] for name in ATTRIBUTES})
    return perturbation.apply(target, scene, len(reference.frames), dose), edit


def surprises(responses: Sequence[Response]) -> list[str]:
    """Return a line for each answer that `EXPECTED` does not allow; values not scored are left out."""
    lines = []
    means = {(response.perturbation, response.dose, response.value): response.mean for response in responses}
    for name, answers in EXPECTED.items():
        doses = PERTURBATIONS[name].doses
        for answer, value in ((answer, value) for answer, values in answers.items() for value in values):
            series = [means[name, dose, value] for dose in doses if (name, dose, value) in means]
            if series and not _follows(series, answer):
                shown = ", ".join(f"{mean:.3f}" for mean in series)
                lines.append(f"{value} under {name}: {shown}; expected {answer}")
    return lines


def _follows(series: Sequence[float], answer: Answer) -> bool:
    if isinstance(answer, str):
        sign = 1 if answer == "rises" else -1
        steps = [sign * (after - before) for before, after in pairwise(series)]
        return min(steps) >= 0 and sum(steps) > 0
    return all(abs(mean - series[0]) <= answer for mean in series)


def markdown(responses: Sequence[Response], values: Sequence[str]) -> str:
    """Return a table with one row a dose and one column a value; (n) where some references abstained."""
    most = max(response.count for response in responses)
    cells = {(response.perturbation, response.dose, response.value): response for response in responses}
    lines = [
        [f"{name} ({perturbation.unit})", f"{dose:g}", *(_cell(cells[name, dose, v], most) for v in values)]
        for name, perturbation in PERTURBATIONS.items()
        for dose in perturbation.doses
    ]
    return Grid(["change", "dose", *values], lines).markdown() + "\n"


def _cell(response: Response, most: int) -> str:
    if not response.count:
        return "–"
    return f"{response.mean:.3f}" + (f" ({response.count})" if response.count < most else "")


TUNING_REFERENCES = (0, 4, 5, 6)
"""Of the tuning split: one of each motion that no caption names (wander, zigzag, hop, stop and go)."""


HEAD = """\
# Dose response of the metrics

The right sample, rendered from the ground truth with the edit's appearance, is perturbed in growing doses and
scored. Bundled world and models, means of four references of the tuning split (wander, zigzag, hop, stop and
go). A number in brackets is the number of references on which the score did not abstain, where it is below
four. `mf_ditflow` is left out: it abstains on all of these videos, since DiTFlow's code divides every step of
a track by its length, and points of the background do not move here.
"""


def measure() -> list[Response]:
    """Score perturbed renders of `TUNING_REFERENCES` by all metrics, through the bundled models."""
    reader = ShapesReferences("tuning")
    return dose_response([reader.read(reader.names()[index]) for index in TUNING_REFERENCES], Scorer())


def main(arguments: Sequence[str]) -> int:
    """Print and write the table; returns the exit code, 1 if a score answered as it should not."""
    responses = measure()
    columns = list(
        dict.fromkeys(
            value for answers in EXPECTED.values() for values in answers.values() for value in values
        )
    )
    unexpected = surprises(responses)
    verdict = [f"- not as expected: {line}" for line in unexpected] or ["Every score answers as it should."]
    text = "\n".join([HEAD, markdown(responses, columns), *verdict, ""])
    path = Path(*arguments[:1]) if arguments else Path("outputs/dose-response.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    print(text)
    print(f"written to {path}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
