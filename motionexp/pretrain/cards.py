"""Model cards of the bundled checkpoints, written from what was measured."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motionexp.jobs.provenance import device_name


@dataclass(frozen=True)
class Facts:
    """What a card says of a model.

    Attributes:
        title: of the card. library: which loads the folder. purpose: what it is and is for, in sentences.
        command: which trains it. data: what it has seen. samples: how many, in words. seeds: in words.
        steps: how many were taken. training: folder of the run, as ``loop.train`` leaves it.
        parameters: how many. quality: figures by row and column, on data not trained on.
        measured: how, in sentences. origin: what training began with.
    """

    title: str
    library: str
    purpose: str
    command: str
    data: str
    samples: str
    seeds: str
    steps: int
    training: Path
    parameters: int
    quality: Mapping[str, Mapping[str, float]]
    measured: str
    origin: str = "nothing"


def seen(steps: int, batch: int) -> str:
    """Say how many samples a training with one batch size has seen."""
    return f"{steps * batch:,} ({batch} a step)"


def steps_taken(folder: Path) -> int:
    """Return how many steps a run has taken, by its ``checkpoint.pt``."""
    return int(torch.load(folder / "checkpoint.pt", weights_only=True, mmap=True)["step"])


def read_log(folder: Path) -> tuple[float, float]:
    """Return a run's seconds and last loss from its ``log.jsonl``; pauses between its calls do not count."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    gaps = np.diff([record["time"] for record in records])
    seconds = float(gaps[gaps < 10 * np.median(gaps)].sum()) if len(gaps) else 0.0
    return seconds, float(records[-1]["loss"])


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:.3f}" if column in row else "" for column in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_card(folder: Path, facts: Facts) -> None:
    """Write ``README.md`` into a model's folder."""
    seconds, loss = read_log(facts.training)
    machine = f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    rows = {
        "data": facts.data,
        "parameters": f"{facts.parameters:,}",
        "steps": f"{facts.steps:,}",
        "samples seen": facts.samples,
        "seeds": facts.seeds,
        "time": f"{seconds / 60:.0f} minutes",
        "machine": f"{machine}, torch {torch.__version__}",
        "final loss": f"{loss:.4f} (mean of the last steps)",
    }
    training = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    (folder / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: {facts.library}
---
# {facts.title}

{facts.purpose}

Licence: Apache-2.0. Origin: trained from {facts.origin} by `{facts.command}`, on pictures that motionexp
renders; no data or weights of others.

## Training

{training}

## Quality

{facts.measured}

{_table(facts.quality)}

It knows this world's words and pictures alone, and says nothing about photographs.
"""
    )
