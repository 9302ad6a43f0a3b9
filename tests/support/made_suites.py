"""TGVE and DAVIS in the layouts that users have, made of small frames that carry numbers."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).parents[3] / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real captions and prompts are not at {DATA}")

COUNTS = {"DAVIS_480p": 16, "youtube_480p": 23, "videvo_480p": 37}
LENGTHS = {"DAVIS_480p": 32, "youtube_480p": 128, "videvo_480p": 32}
HEADINGS = {"DAVIS_480p": "DAVIS Videos:", "youtube_480p": "Youtube Videos:", "videvo_480p": "Videvo Videos:"}
HEADER = [
    *("Video name", "Our GT caption", "Style Change Caption", "Object Change Caption"),
    *("Background Change Caption", "Multiple Changes Caption", "Source"),
]
KINDS = ("style", "object", "background", "multiple")
SIZE = (24, 32)
"""Height and width of every made frame."""


def numbers_of(frames: np.ndarray) -> list[int]:
    return [round(float(value)) - 20 for value in frames.mean((1, 2, 3))]


@cache
def jpeg(index: int, size: tuple[int, int] = SIZE) -> bytes:
    """A frame that is as bright as its number says."""
    memory = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 20 + index, np.uint8)).save(memory, "JPEG", quality=95)
    return memory.getvalue()


def made_lines() -> dict[str, list[list[str]]]:
    """{source: [name, caption, four edits] of each video}."""
    return {
        source: [
            [f"{source[:3].lower()}-{n}", f"thing {n} moves", *(f"thing {n} by {kind}" for kind in KINDS)]
            for n in range(count)
        ]
        for source, count in COUNTS.items()
    }


def write_table(folder: Path, lines: dict[str, list[list[str]]], header: list[str] = HEADER) -> None:
    """The CSV as the benchmark's has it: a heading before each source, a blank row after."""
    with (folder / "LOVEU-TGVE-2023_Dataset.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for source, of_source in lines.items():
            writer.writerow([HEADINGS[source]])
            writer.writerows([*line, "https://..."] for line in of_source)
            writer.writerow([""] * len(header))


def make_tgve(
    folder: Path, lines: dict[str, list[list[str]]] | None = None, lengths: Mapping[str, int] = LENGTHS
) -> Path:
    """All 76 videos as numbered JPEGs; `lengths` are the numbers of frames by source."""
    lines = lines or made_lines()
    images = folder.with_name("images")
    images.mkdir(parents=True)
    for index in range(128):
        (images / f"{index:05d}.jpg").write_bytes(jpeg(index))
    for source, of_source in lines.items():
        for name, *_ in of_source:
            frames = folder / source / "480p_frames" / name.strip()
            frames.mkdir(parents=True)
            for index in range(lengths[source]):
                os.link(images / f"{index:05d}.jpg", frames / f"{index:05d}.jpg")
    write_table(folder, lines)
    return folder


def linked(folder: Path, to: Path) -> Path:
    """A copy that a test may change, but for the pixels of its images."""

    def link(source: str, target: str) -> None:
        (os.link if source.endswith(".jpg") else shutil.copy)(source, target)

    shutil.copytree(folder, to, copy_function=link)
    return to


def make_davis(folder: Path, prompts: list[dict], size: tuple[int, int] = (480, 64)) -> Path:
    """Each sequence of `prompts` with as many JPEGs as its range needs, numbered as the files are."""
    for entry in prompts:
        frames = folder / "JPEGImages" / "480p" / entry["video"]
        frames.mkdir(parents=True)
        for index in range(entry["frame_range"][1]):
            (frames / f"{index:05d}.jpg").write_bytes(jpeg(index, size))
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder
