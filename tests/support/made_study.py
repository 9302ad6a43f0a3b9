"""Finished samples that a study can show, and simulated people of known preference who answer it."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from motionexp.data.base import Reference
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.videos import write_mp4
from motionexp.jobs.pages.study.answers import LETTERS
from motionexp.jobs.pages.study.forms import FORMS
from motionexp.jobs.pages.study.questionnaires import ELSE, REFERENCE
from motionexp.results.rows import append_rows
from tests.support.made_rows import made_row

DATA = {
    "_target_": "motionexp.data.shapes.splits.ShapesReferences",
    "split": "tuning",
    "appearances": 1,
    "chroma": 1.0,
    "unnamed": "",
}
SIZE = 16, 64, 64
METRICS = {
    "motion_fidelity": True,
    "nuisance_similarity": False,
    "frame_consistency": True,
    "foreground_share": None,
}
QUALITY = {"0": 0.2, "400": 0.5, "700": 0.9}
"""{tau: what the metrics say of its motion}."""


@cache
def references(count: int) -> list[Reference]:
    reader = ShapesReferences(split="tuning")
    return [reader.read(name, *SIZE) for name in reader.names()[:count]]


def write_samples(output: Path, count: int = 4, seeds: int = 2, edits: int = 2, base: bool = False) -> Path:
    """Write the cells of three windows, and maybe the base model, for some references; returns the folder."""
    taus = [*QUALITY, *["1000"] * base]
    for tau, reference in product(taus, references(count)):
        cell = output / "shapes" / "tiny_latte" / f"{tau}-{reference.name}"
        cell.mkdir(parents=True)
        model = {"height": SIZE[1], "width": SIZE[2], "frames": SIZE[0]}
        config = {"model": model, "frames": SIZE[0], "data": DATA}
        (cell / "config.yaml").write_text(yaml.safe_dump(config))
        (cell / "status.json").write_text(json.dumps({"state": "done", "reference": reference.name}))
        rows = []
        for edit, seed in product(reference.edits[:edits], range(seeds)):
            file = f"shapes/tiny_latte/{cell.name}/media/{edit.kind}-{seed}.mp4"
            _write_video(output / file, output / f".{tau}.mp4", int(tau))
            quality = QUALITY.get(tau, 0.1) + 0.01 * seed
            values = {
                "motion_fidelity": quality,
                "nuisance_similarity": -quality,
                "frame_consistency": 0.5,
                "foreground_share": 0.5,
            }
            about = {
                "reference": reference.name,
                "reference_hash": reference.content_hash,
                "edit_kind": edit.kind,
                "edit_caption": edit.caption,
                "seed": seed,
                "training_seed": None if tau == "1000" else 0,
                "tau": float(tau),
                "method": "base" if tau == "1000" else "lora",
                "sample_id": f"{cell.name}-{edit.kind}-{seed}",
                "sample_file": file,
                "settings": {"tau": float(tau), "rank": 4, "model": model},
            }
            rows += [
                made_row(metric=name, value=values[name], higher_is_better=better,
                         score_id=f"{about['sample_id']}-{name}", **about)
                for name, better in METRICS.items()
            ]  # fmt: skip
        append_rows(cell / "rows.jsonl", rows)
    return output


def _write_video(path: Path, source: Path, grey: int) -> None:
    """A dot that moves over a ground whose grey says which method made it."""
    if not source.exists():
        frames = np.full((16, 32, 32, 3), grey // 4, np.uint8)
        for index, frame in enumerate(frames):
            frame[12:18, index : index + 6] = 255
        write_mp4(source, frames, 8.0)
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, path)


def answered(
    key: Mapping[str, Any], code: str, choose: Callable[[str, Mapping[str, Any]], Any]
) -> dict[str, Any]:
    """The file of a person who passes the attention checks.

    Args:
        choose: (question, page of the key) -> the column's content, or {column's content: rating}.
    """
    form = FORMS[key["form"]]
    pages = []
    for number, page in enumerate(key["questionnaires"][code], start=1):
        answers: dict[str, Any] = {}
        for question in form.questions:
            if not page["check"]:
                choice = choose(question.name, page)
            elif form.has_picks:
                choice = ELSE if question.name == "motion diversity" else REFERENCE
            else:
                choice = {column: 5 if column == REFERENCE else 1 for column in page["columns"]}
            if form.has_picks:
                answers[question.name] = LETTERS[page["columns"].index(choice)]
            else:
                answers[question.name] = {
                    letter: choice[column] for letter, column in zip(LETTERS, page["columns"], strict=False)
                }
        pages.append({"page": number, "seconds": 20.0, "broken": False, "answers": answers})
    times = {"started": "2026-11-30T10:00:00Z", "finished": "2026-11-30T10:10:00Z"}
    return {"study": key["study"], "code": code, **times, "pages": pages}


def people_answer(
    folder: Path, key: Mapping[str, Any], preference: Mapping[str, Mapping[str, float]], seed: int = 0
) -> list[Path]:
    """Write the answers of people who pick by known probabilities, {question: {method: probability}}."""
    generator = np.random.default_rng(seed)

    def choose(question: str, page: Mapping[str, Any]) -> str:
        methods = [*preference[question]]
        return str(generator.choice(methods, p=[*preference[question].values()]))

    files = []
    for code in key["questionnaires"]:
        path = folder / f"answers-{code}.json"
        path.write_text(json.dumps(answered(key, code, choose)))
        files.append(path)
    return files
