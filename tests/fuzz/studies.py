"""Cases of a user study (key, files of participants, cells that it is made of) and of an adapter's card."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from safetensors import safe_open

from motionexp.config.compose import load
from motionexp.diffusion.backbone import Backbone
from motionexp.jobs import card_folder
from motionexp.jobs.card import card
from motionexp.jobs.pages.study.answers import read_answers, read_key
from motionexp.jobs.pages.study.command import study
from motionexp.jobs.pages.study.forms import FORMS
from motionexp.jobs.pages.study.metric_agreement import metric_table
from motionexp.jobs.pages.study.tally import tally_tables
from motionexp.methods.adapters import METADATA_KEY
from motionexp.results.formats import to_csv, to_markdown
from tests.fuzz.damage import Damage
from tests.support.made_adapter import write_adapter
from tests.support.made_study import answered, write_samples

METHODS = ["tau=0", "tau=700"]


def _key(form: str) -> dict[str, Any]:
    wrong = "another motion" if form == "picks" else "a still"
    pages = [
        {"pair": "1", "check": False, "columns": METHODS},
        {"pair": "2", "check": True, "columns": ["the reference", wrong]},
        {"pair": "2", "check": False, "columns": METHODS[::-1]},
    ]
    about = {"suite": "shapes", "edit_kind": "style", "caption": "a dog", "seconds": 2.0}
    scores = {"tau=0": {"pick_score": 1.0, "text_alignment": 2}, "tau=700": {"pick_score": 2.0}}
    return {
        "study": "abc", "version": 1, "form": form, "seed": 0, "methods": METHODS,
        "metrics": {"pick_score": True, "text_alignment": None},
        "pairs": {name: {"reference": name, "scores": scores, **about} for name in ("1", "2")},
        "questionnaires": {"001-a": pages, "002-b": pages},
    }  # fmt: skip


def tally(damage: Damage, folder: Path) -> None:
    """A key, and answers, of which some are damaged."""
    key = _key(damage.random.choice([*FORMS]))
    picks = key["form"] == "picks"

    def choose(question: str, page: Any) -> Any:
        return "tau=700" if picks else {"tau=0": 2, "tau=700": 4}

    contents = {code: answered(key, code, choose) for code in key["questionnaires"]}
    damaged = damage.tree(key) if damage.maybe(0.5) else key
    (folder / "key.json").write_bytes(damage.encoded(damage.dumped(damaged)))
    for code, content in contents.items():
        text = damage.dumped(damage.tree(content) if damage.maybe(0.6) else content)
        (folder / f"{code}.json").write_bytes(damage.encoded(text))
    stored = read_key(folder / "key.json")
    answers = read_answers(stored, sorted(folder.glob("0*.json")))
    if answers.valid:
        tables = [*tally_tables(stored, answers), *filter(None, [metric_table(stored, answers.valid)])]
        to_csv(tables)
        for table in tables:
            to_markdown(table)


@cache
def _samples() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-study-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_samples(folder / "outputs", count=1, edits=1)


def made(damage: Damage, folder: Path) -> None:
    """Cells with damaged rows or settings, of which a study is made."""
    output = folder / "outputs"
    shutil.copytree(_samples(), output)
    for path in output.rglob("rows.jsonl"):
        if damage.maybe(0.3):
            lines = [damage.tree(json.loads(line)) for line in path.read_text().splitlines()]
            path.write_bytes(damage.encoded("".join(damage.dumped(line) + "\n" for line in lines)))
    for path in output.rglob("config.yaml"):
        if damage.maybe(0.3):
            path.write_text(yaml.safe_dump(damage.tree(yaml.safe_load(path.read_text()))), errors="replace")
    words = ["pages=1", "people=1", damage.random.choice(["form=picks", "form=vmc"])]
    study([f"folder={folder / 'new'}", f"output={output}", *words])


@cache
def _backbone() -> Backbone:
    return card_folder._without_weights(load(["model=tiny_cogvideox"]).model)


def adapter_card(damage: Damage, folder: Path) -> None:
    """An adapter's card, where what the file says of itself is damaged, under the right digest."""
    write_adapter(folder / "whole")
    with safe_open(folder / "whole" / "adapter.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()[METADATA_KEY])
    try:
        write_adapter(folder / "damaged", **json.loads(damage.dumped(damage.tree(about))))
    except (TypeError, ValueError):
        return  # no JSON, or no object: `adapter` has those
    # A backbone looks for devices, outside the folder, and is no part of the adapter.
    backbone = _backbone()
    with patch.object(card_folder, "_without_weights", return_value=backbone):
        card([f"adapter={folder / 'damaged'}"])
    parts = (folder / "damaged" / "card" / "README.md").read_text().split("---\n", 2)
    assert isinstance(yaml.safe_load(parts[1]), dict)


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    "study_answers": (tally, 400),
    "study_cells": (made, 100),
    "card": (adapter_card, 100),
}
