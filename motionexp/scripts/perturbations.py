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
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import Scene, Truth, edited
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.files import write_whole
from motionexp.metrics.base import Measurement
from motionexp.metrics.scorer import Scorer
from motionexp.results.formats import Grid

Score = Callable[[np.ndarray, Reference, Edit], Mapping[str, Measurement]]


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


def turn_hue(target: Scene, reference: Scene, frames: int, degrees: float) -> np.ndarray:
    """Render the target and turn all colours about the grey axis."""
    turn, axis = np.deg2rad(degrees), np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    rotation = np.cos(turn) * np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * np.outer(axis, axis)
    turned = (render(target, frames) - 127.5) @ rotation.T + 127.5
    return np.clip(np.round(turned), 0, 255).astype(np.uint8)


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
EXPECTED: Mapping[str, Mapping[str, Answer]] = {
    "path bent": {
        "flow_similarity": "falls",
        "velocity_similarity": "falls",
        "path_error": "rises",
        "position_error": "rises",
        "nuisance_similarity": 0.02,
        "attribute_accuracy": 0.1,
        "replaced_attributes": 0.1,
        "text_alignment": 2.0,
        "pick_score": 2.0,
        "appearance_leakage": 0.1,
    },
    "hue turned": {
        "attribute_accuracy": "falls",
        "text_alignment": "falls",
        "pick_score": "falls",
        "flow_similarity": 0.05,
        "motion_fidelity": 0.05,
        "velocity_similarity": 0.02,
        "path_error": 0.1,
        "nuisance_similarity": 0.02,
    },
    "end held": {
        "flow_similarity": "falls",
        "motion_fidelity": "falls",
        "velocity_similarity": "falls",
        "path_error": "rises",
        "frame_consistency_consecutive": "rises",
        "nuisance_similarity": 0.05,
        "attribute_accuracy": 0.1,
        "text_alignment": 2.0,
    },
    "frames dropped": {
        "flow_similarity": "falls",
        "velocity_similarity": "falls",
        "frame_consistency_consecutive": "rises",
        "nuisance_similarity": 0.05,
        "attribute_accuracy": 0.1,
    },
    "frames shuffled": {
        "flow_similarity": "falls",
        "motion_fidelity": "falls",
        "velocity_similarity_counted": "falls",
        "frame_consistency_consecutive": "falls",
        "frame_consistency_pairs": 0.01,
        "text_alignment": 0.01,
        "attribute_accuracy": 0.1,
    },
    "frozen": {
        "flow_similarity": "falls",
        "motion_fidelity": "falls",
        "velocity_similarity_counted": "falls",
        "frame_consistency_consecutive": "rises",
        "frame_consistency_pairs": "rises",
        "nuisance_similarity": 0.05,
        "attribute_accuracy": 0.1,
        "text_alignment": 2.0,
    },
    "identity swapped": {
        "attribute_accuracy": "falls",
        "text_alignment": "falls",
        "pick_score": "falls",
        "motion_fidelity": 0.05,
        "velocity_similarity": 0.02,
        "nuisance_similarity": 0.05,
    },
    "blurred": {
        "nuisance_similarity": "falls",
        "pick_score": "falls",
        "text_alignment": "falls",
        "attribute_accuracy": "falls",
        "flow_similarity": 0.2,
        "motion_fidelity": 0.1,
        "velocity_similarity": 0.02,
        "path_error": 0.5,
    },
    "appearance restored": {
        "attribute_accuracy": "falls",
        "replaced_attributes": "rises",
        "appearance_leakage": "rises",
        "text_alignment": "falls",
        "flow_similarity": 0.25,
        "velocity_similarity": 0.02,
        "nuisance_similarity": 0.05,
    },
    "nuisances changed": {
        "nuisance_similarity": "falls",
        "flow_similarity": 0.1,
        "velocity_similarity": 0.02,
        "path_error": 0.1,
        "attribute_accuracy": 0.1,
        "text_alignment": 2.0,
    },
}
"""{perturbation: {value: whether it rises or falls with the dose, or how far it may stray from the first}}.

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


def dose_response(references: Sequence[Reference], score: Score) -> list[Response]:
    """Score perturbed renders of every reference's edit of all attributes.

    Args:
        references: of the bundled world, with one object each and an edit of kind `multiple`.
        score: gives {name of a value: measurement} of frames, reference and edit.
    """
    scored: dict[tuple[str, float], list[Mapping[str, Measurement]]] = defaultdict(list)
    for name, dose, _, measured in dosed(references, score):
        scored[name, dose].append(measured)
    responses = []
    for name, perturbation in PERTURBATIONS.items():
        for dose in perturbation.doses:
            scores = scored[name, dose]
            for value in scores[0]:
                numbers = np.array([measured[value].value for measured in scores])
                counted = numbers[~np.isnan(numbers)]
                mean = float(counted.mean()) if len(counted) else float("nan")
                responses.append(Response(name, dose, value, mean, len(counted)))
    return responses


def dosed(
    references: Sequence[Reference], score: Score, names: Collection[str] = tuple(PERTURBATIONS)
) -> Iterator[tuple[str, float, Reference, Mapping[str, Measurement]]]:
    """Yield (perturbation, dose, reference, measurements) of every dose; see `dose_response`."""
    unchanged: dict[str, Mapping[str, Measurement]] = {}
    for name in names:
        perturbation = PERTURBATIONS[name]
        for dose in perturbation.doses:
            for reference in references:
                if dose != perturbation.doses[0]:
                    measured = _score_one(reference, perturbation, dose, score)
                else:
                    # The first dose changes nothing, whatever the perturbation: scored once.
                    if reference.name not in unchanged:
                        unchanged[reference.name] = _score_one(reference, perturbation, dose, score)
                    measured = unchanged[reference.name]
                yield name, dose, reference, measured


def count_videos(references: Sequence[Reference], names: Collection[str] = tuple(PERTURBATIONS)) -> int:
    """How many videos `dosed` scores."""
    return len(references) * (1 + sum(len(PERTURBATIONS[name].doses) - 1 for name in names))


def _score_one(
    reference: Reference, perturbation: Perturbation, dose: float, score: Score
) -> Mapping[str, Measurement]:
    scene = reference.truth
    (edit,) = [edit for edit in reference.edits if edit.kind == "multiple"]
    assert isinstance(scene, Scene)
    assert edit.truth is not None
    target = edited(scene, {name: edit.truth[name] for name in ATTRIBUTES})
    return score(perturbation.apply(target, scene, len(reference.frames), dose), reference, edit)


def surprises(responses: Sequence[Response]) -> list[str]:
    """Return a line for each answer that `EXPECTED` does not allow; values not scored are left out."""
    lines = []
    means = {(response.perturbation, response.dose, response.value): response.mean for response in responses}
    for name, answers in EXPECTED.items():
        doses = PERTURBATIONS[name].doses
        for value, answer in answers.items():
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


def measure(progress: bool = False) -> list[Response]:
    """Score perturbed renders of `TUNING_REFERENCES` by all metrics, through the bundled models."""
    reader, scorer = ShapesReferences("tuning"), Scorer()
    references = [reader.read(reader.names()[index]) for index in TUNING_REFERENCES]
    bar = tqdm(total=count_videos(references), desc="score", unit="video", leave=False, disable=not progress)

    def score(frames: np.ndarray, reference: Reference, edit: Edit) -> Mapping[str, Measurement]:
        bar.update()
        measured = scorer.score(frames, reference, edit)
        return {name: value for values in measured.values() for name, value in values.items()}

    with bar:
        return dose_response(references, score)


def main(arguments: Sequence[str]) -> int:
    """Print and write the table; returns the exit code, 1 if a score answered as it should not."""
    responses = measure(progress=True)
    columns = list(dict.fromkeys(value for answers in EXPECTED.values() for value in answers))
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
