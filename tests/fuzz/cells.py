"""Cases of what jobs leave: samples, encodings, and the records of cells."""

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from motionexp.data.base import Edit
from motionexp.data.videos import write_mp4
from motionexp.diffusion.backbone import Conditioning
from motionexp.files import BLANK_SEAL, seal
from motionexp.jobs import finished
from motionexp.jobs.cell import Cell, Sample, SampleRequest, read_fit_record, write_grid
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.pages.report.command import write_report
from motionexp.jobs.unfinished import Unfinished
from motionexp.metrics.feature_cache import FeaturePass
from motionexp.results.rows import append_rows, as_json
from tests.fuzz.damage import Damage
from tests.fuzz.stored import Payload, split
from tests.support.made_output import moving_square, settings_of
from tests.support.made_rows import made_row
from tests.support.squares import Squares
from tests.support.tiny_jobs import job_settings

REQUEST = SampleRequest(Edit("style", "a cat"), 0, "abc")
CPU = torch.device("cpu")


@cache
def _sample() -> bytes:
    about = {"caption": "a cat", "adapter_steps": 3, "seconds": 1.5, "peak_memory": 100}
    memory = io.BytesIO()
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez_compressed(memory, frames=frames, about=np.array(json.dumps(about)))
    return memory.getvalue()


def sample(damage: Damage, folder: Path) -> None:
    cell = Cell(folder / "cell")
    cell.media.mkdir(parents=True)
    content = _sample()
    if damage.maybe(0.5):
        about = damage.dumped(
            damage.tree({"caption": "a", "adapter_steps": 3, "seconds": 1.5, "peak_memory": 1})
        )
        choices: tuple[Callable[[], Any], ...] = (
            lambda: np.zeros((2, 8, 8, 3), np.uint8),
            lambda: np.zeros((2, 8, 8), np.uint8),
            lambda: np.zeros((0, 8, 8, 3), np.uint8),
            lambda: np.zeros((2, 8, 8, 3), np.float32),
            lambda: np.array([Payload()], dtype=object),
            lambda: np.zeros((2, 8, 8, 3), [("a", "u1")]),
            lambda: np.array("text"),
        )
        memory = io.BytesIO()
        parts = {"frames": damage.random.choice(choices)(), "about": np.array(about)}
        if damage.maybe(0.2):
            parts.pop(damage.random.choice(list(parts)))
        np.savez(memory, **parts)
        content = memory.getvalue()
    else:
        content = damage.bytes(content)
    cell.sample_path(REQUEST, ".npz").write_bytes(content)
    read = cell.read_sample(REQUEST)
    assert isinstance(read, Sample)
    assert read.frames.dtype == np.uint8


def cell_records(damage: Damage, folder: Path) -> None:
    """The status, the series and the record of the training of a cell."""
    cell = Cell(folder / "cell")
    (cell.adapter).mkdir(parents=True)
    cell.media.mkdir()
    contents = {
        "status.json": {"state": "done", "pid": 1, "updated": "2026-01-01T00:00:00+00:00"},
        "adapter/fit.json": {
            "suite": "squares",
            "reference": "one",
            "steps": 2,
            "seconds": 1.0,
            "losses": [1.0],
        },
        str(cell.sample_path(REQUEST, ".series.json").relative_to(cell.folder)): {"brightness": [1.0, None]},
    }
    damaged = damage.random.choice(list(contents))
    for name, content in contents.items():
        text = damage.dumped(damage.tree(content)) if name == damaged else json.dumps(content)
        (cell.folder / name).write_bytes(damage.encoded(text) if name == damaged else text.encode())
    cell.status()
    read_fit_record(cell.adapter)
    cell.add_series(REQUEST, {"darkness": np.array([1.0, float("nan")])})


def finished_record(damage: Damage, folder: Path) -> None:
    """The record by which a finished job is found again, with its cells."""
    cfg = job_settings(
        "motionexp.backbones.latte.LatteBackbone", folder, (4, 16, 16), output=str(folder / "out")
    )
    cfg = replace(cfg, references=1)
    cell = Cell(folder / "out" / "squares" / "tiny" / "abc")
    cell.media.mkdir(parents=True)
    cell.sample_path(REQUEST, ".npz").write_bytes(_sample())
    append_rows(cell.folder / "rows.jsonl", [made_row(score_id="s", sample_id="abc")])
    (cell.folder / "status.json").write_text('{"state": "done"}')
    reference = Squares().read("one", 4, 16, 16)
    grid = folder / "out" / "squares" / "tiny" / "one.mp4", [("tuned", cell, (REQUEST,))]
    whole = finished.FinishedCell(reference, cell, (REQUEST,), [cell], cell.rows(), (cell, cell.rows()), grid)
    record = {"cells": [finished._entry(whole, folder / "out")]}
    file = folder / "out" / "record.json"
    file.write_bytes(damage.encoded(damage.dumped(damage.tree(record))))
    # Its name is a hash of the whole code, which costs more than the case.
    path, finished._path = finished._path, lambda *_: file
    try:
        for entry in finished.read_record(cfg, [reference]) or []:
            write_grid(entry.grid[0], entry.reference, [])
    finally:
        finished._path = path


# encodings


def _backbone() -> Any:
    conditioning = Conditioning(torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    return SimpleNamespace(
        device=CPU, weights_hash="w", encode=lambda _: torch.ones(1, 4, 2, 4, 4), embed=lambda _: conditioning
    )


def encoding(damage: Damage, folder: Path) -> None:
    """Stored latents, captions and features, with or without the right seal."""
    reference = Squares().read("one", 4, 16, 16)
    backbone = _backbone()

    def read() -> None:
        cache = EncodingCache(folder / "cache", backbone, "fp32")
        cache.latents(reference)
        cache.conditioning("a cat")
        model: Any = SimpleNamespace(identity="clip", embed_frames=lambda frames: torch.ones(len(frames), 4))
        FeaturePass(model, None, folder=folder / "features").frames(reference.frames, ["clip"])
        unfinished = Unfinished(Cell(folder / "cell"), CPU)
        if not (folder / "cell").exists():
            unfinished.add_block(3, torch.ones(2, 4, 2, 4, 4))
        unfinished.blocks()

    read()
    file = damage.random.choice(sorted(folder.rglob("*.safetensors")))
    content = file.read_bytes()
    if damage.maybe(0.4):
        header, numbers = split(content)
        header["__metadata__"] = {"seal": BLANK_SEAL}
        text = damage.dumped(damage.tree(header)).encode(errors="surrogatepass")
        content = len(text).to_bytes(8, "little") + text + numbers
        content = bytes(seal(content)) if BLANK_SEAL.encode() in content else content
    else:
        content = damage.bytes(content)
    file.write_bytes(content)
    read()


@cache
def _video() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_mp4(Path(folder) / "a.mp4", moving_square(0)[:2], 8.0)
        return (Path(folder) / "a.mp4").read_bytes()


def report(damage: Damage, folder: Path) -> None:
    """The report of an output folder in which one file is damaged."""
    name = "style-0-abc"
    about = {"score_id": "s", "sample_id": "abc", "sample_file": f"shapes/tiny_latte/id/media/{name}.mp4"}
    row = made_row(reference="01-wander-cyan-square", settings=settings_of(700.0), **about)
    contents: dict[str, Any] = {
        "rows.jsonl": as_json(row),
        "config.yaml": settings_of(700.0),
        "status.json": {"state": "failed", "reference": "a", "error": "b", "log": "error.log"},
        f"media/{name}.series.json": {"text_alignment": [1.0, None]},
    }
    cell = folder / "out" / "shapes" / "tiny_latte" / "id"
    (cell / "media").mkdir(parents=True)
    damaged = damage.random.choice([*contents, "media"])
    for file, content in contents.items():
        text = damage.dumped(damage.tree(content)) if file == damaged else json.dumps(content)
        (cell / file).write_bytes(damage.encoded(text) if file == damaged else text.encode())
    video = damage.bytes(_video()) if damaged == "media" else _video()
    (cell / "media" / f"{name}.mp4").write_bytes(video)
    write_report([folder / "out"], folder / "new", {})


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    "sample": (sample, 500),
    "cell_records": (cell_records, 400),
    "finished_record": (finished_record, 300),
    "encoding": (encoding, 500),
    "report": (report, 300),
}
