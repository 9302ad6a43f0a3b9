"""Every metric's dose response: `python -m motionexp.report.dose_response [FILE]` (`make dose-response`).

Prints the table, and writes it to FILE (default: `outputs/dose-response.md`).
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.files import write_whole
from motionexp.metrics.base import Measurement
from motionexp.metrics.dose_response import (
    EXPECTED,
    PERTURBATIONS,
    Response,
    dose_response,
    markdown,
    surprises,
)
from motionexp.metrics.scorer import Scorer

TUNING_REFERENCES = (0, 4, 5, 6)
"""Of the tuning split: one of each motion that no caption names (wander, zigzag, hop, stop and go)."""

HEAD = """\
# Dose response of the metrics

The right sample, rendered from the ground truth with the edit's looks, is changed step by step and scored.
Measured: bundled world and models, means of four references of the tuning split (wander, zigzag, hop, stop
and go); in brackets how many where some abstained. `mf_ditflow` is left out: it abstains on all of these
videos, for the peers' code divides each step of a track by its length, and here points of the ground stand
still.
"""


def measure(progress: bool = False) -> list[Response]:
    """Score perturbed renders of `TUNING_REFERENCES` by all metrics, through the bundled models."""
    reader, scorer = ShapesReferences("tuning"), Scorer()
    references = [reader.read(reader.names()[index]) for index in TUNING_REFERENCES]
    videos = len(references) * sum(len(each.doses) for each in PERTURBATIONS.values())
    bar = tqdm(total=videos, desc="score", unit="video", leave=False, disable=not progress)

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
    found = surprises(responses)
    verdict = [f"- not as expected: {line}" for line in found] or ["Every score answers as it should."]
    text = "\n".join([HEAD, markdown(responses, columns), *verdict, ""])
    path = Path(*arguments[:1]) if arguments else Path("outputs/dose-response.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    print(text)
    print(f"written to {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
