"""DAVIS at 480p with DiTFlow's prompts: a caption, a subject and a scene for each of its sequences."""

import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from motionexp.config.json_file import parse_json
from motionexp.config.text_file import read_text
from motionexp.config.yaml_file import parse_yaml
from motionexp.data.base import Description, Edit, Reference
from motionexp.data.checks import caption_problem, folded, raise_problems, reference_named, scored_frames
from motionexp.data.videos import frame_count, read_frames
from motionexp.errors import InputError
from motionexp.files import user_path

FRAMES = Path("JPEGImages") / "480p"
HEIGHT = 480
MOST_FRAMES = 1_000_000
FPS = 8.0
"""Frames per second of the frames that a range picks, as DiTFlow shows them."""
KINDS = {"caption": "easy", "subject": "medium", "scene": "hard"}
"""Edit kinds (DiTFlow, section 5.1) and what its project page's prompts.js calls them."""


@dataclass(frozen=True)
class Sequence:
    """One sequence: its prompts by kind, the range of its frames that DiTFlow takes, and their folder."""

    prompts: Mapping[str, str]
    frames: range
    folder: Path


@dataclass(frozen=True)
class DAVIS:
    """Reader of DAVIS's folder, the one with `JPEGImages/480p/SEQUENCE/00000.jpg`.

    `prompts` is DiTFlow's prompts.js, or JSON: a list of `{"video": "bear", "caption": ..., "subject": ...,
    "scene": ..., "frame_range": [start, end, step]}`. `caption` is a reference's caption and also its first
    edit. `read` takes the first `frames` frames of the range, which has 24. Of 4k + 1 frames, which some VAEs
    need, 4k are scored. The last one comes a step after them; where the sequence ends before, it is a copy of
    the frame before it.

    Raises InputError, before any frame is decoded, for a missing prompt or range, a sequence that is missing
    or too short, and frames that are not 480 pixels high.
    """

    suite: ClassVar = "davis"
    path: str | Path
    prompts: str | Path
    fit: str = "crop"

    def names(self) -> list[str]:
        """The sequences in the order of the prompts' file."""
        return list(self._sequences)

    def describe(self, name: str) -> Description:
        """The prompts of one sequence, and the number of frames in its range."""
        sequence = self._sequence(name)
        edits = tuple(Edit(kind, text) for kind, text in sequence.prompts.items())
        return Description(sequence.prompts["caption"], edits, len(sequence.frames))

    def long_enough(self, name: str, frames: int) -> bool:
        """Whether the range of one sequence has `frames` frames, by the rule."""
        return (scored_frames(frames) or frames) <= len(self._sequence(name).frames)

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """One sequence as `frames` frames of `height` x `width` pixels, by the rule. Raises InputError."""
        sequence, described = self._sequence(name), self.describe(name)
        if not self.long_enough(name, frames):
            length = f"its range in {self.prompts} has {described.frames}"
            raise InputError(f"reference {name}: frames={frames}, but {length}")
        # Read with the greatest stride that meets both the start and every step, then pick by index.
        start, step = sequence.frames.start, sequence.frames.step
        last = (frame_count(sequence.folder) - 1 - start) // step
        stride = math.gcd(start, step)
        indices = [(start + step * min(index, last)) // stride for index in range(frames)]
        pixels = read_frames(
            sequence.folder, frames=max(indices) + 1, stride=stride, size=(height, width), fit=self.fit
        )[indices]
        caption, edits, scored = described.caption, described.edits, scored_frames(frames)
        return Reference(name, self.suite, pixels, FPS, caption, edits, scored_frames=scored)

    def _sequence(self, name: str) -> Sequence:
        return reference_named(name, self._sequences, str(self.prompts))

    @cached_property
    def _sequences(self) -> Mapping[str, Sequence]:
        root, file = user_path(self.path) / FRAMES, user_path(self.prompts)
        if not root.is_dir():
            raise InputError(f"data.path={self.path}: has no {FRAMES}; give the folder of DAVIS's archives")
        sequences, problems = {}, []
        for name, entry in read_prompts(file).items():
            try:
                sequences[name] = _sequence(entry, root / name)
            except InputError as error:
                problems.append(f"{name}: {error}")
        raise_problems(f"{file} and {root} do not belong together:", problems)
        return sequences


def read_prompts(file: Path) -> dict[str, Mapping[str, Any]]:
    """{sequence: its entry} of DiTFlow's prompts.js, or of JSON as `DAVIS` describes it.

    Raises:
        InputError: the file does not exist or has another form, or a sequence stands twice in it.
    """
    source = f"data.prompts={file}"
    text = read_text(file, source)
    if file.suffix.lower() == ".json":
        content = parse_json(text, source)
    else:
        # Between the assignment and the semicolon, JavaScript's object is valid YAML, but for tabs. Its line
        # breaks stay, for the lines that errors name.
        script = r"^\s*(export\s+)?(const|let|var)\s+\w+\s*="
        text = re.sub(script, lambda match: "\n" * match[0].count("\n"), text)
        content = parse_yaml(text.rstrip().removesuffix(";").replace("\t", " "), source)
    pairs = _pairs(content)
    if not pairs or not all(isinstance(entry, dict) for _, entry in pairs):
        keys = '{"video", "caption", "subject", "scene", "frame_range"}'
        raise InputError(f"{source}: give DiTFlow's prompts.js, or a JSON list of {keys}")
    # A disk may ignore capitals, so that Bear and bear are one folder there.
    counts = Counter(str(name).casefold() for name, _ in pairs)
    problems = [
        f"{name!r:.80} stands {times} times; list it once" for name, times in counts.items() if times > 1
    ]
    for name, _ in pairs:
        if not isinstance(name, str) or name.strip(". ") == "" or {"/", "\\", "\0"} & set(name):
            problems.append(f"the sequence {reprlib.repr(name)} must be the name of a folder, as text")
    raise_problems(f"{source}:", problems)
    return dict(pairs)


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    """(sequence, entry) of both forms; nothing for another form."""
    if isinstance(content, dict):
        return list(content.items())
    if isinstance(content, list) and all(isinstance(entry, dict) and "video" in entry for entry in content):
        return [(entry["video"], entry) for entry in content]
    return []


def _sequence(entry: Mapping[str, Any], folder: Path) -> Sequence:
    """One checked sequence. Raises InputError, whose text does not name the sequence."""
    # prompts.js calls the kinds easy, medium and hard; the JSON form calls them by their meaning.
    prompts = {kind: entry.get(kind, entry.get(script_kind)) for kind, script_kind in KINDS.items()}
    for kind, text in prompts.items():
        if problem := caption_problem(text):
            raise InputError(f"the {kind} prompt {problem}")
    if len({folded(text) for text in prompts.values()}) < len(prompts):
        raise InputError("two of its prompts are equal; is one copied?")
    frames = _range(entry.get("frame_range"))
    if not os.path.isdir(folder):  # Path.is_dir raises OSError for a name that is too long
        raise InputError(f"no folder {folder} (50 sequences need DAVIS 2017's trainval and test-dev)")
    count = frame_count(folder)
    if frames[-1] >= count:
        raise InputError(f"frame_range ends at frame {frames[-1]}, but {folder} has {count} frames")
    # DAVIS also comes in full resolution, in a folder of the same layout; one frame shows which it is.
    height, width = read_frames(folder, frames=1).shape[1:3]
    if height != HEIGHT:
        raise InputError(f"{folder}: frames of {width} x {height} pixels; they must be {HEIGHT} high (480p)")
    return Sequence({kind: text.strip() for kind, text in prompts.items()}, frames, folder)


def _range(value: Any) -> range:
    """The range of [start, end, step], a list or, as in prompts.js, a list in a string."""
    numbers = value
    if isinstance(value, str) and (match := re.fullmatch(r"\s*\[([0-9,\s]{1,60})\]\s*", value)):
        numbers = [int(number) if number.strip().isdecimal() else None for number in match[1].split(",")]
    if isinstance(numbers, list) and len(numbers) == 3 and all(type(number) is int for number in numbers):
        start, end, step = numbers
        if 0 <= start < end <= MOST_FRAMES and step > 0:
            return range(start, end, step)
    raise InputError(
        f"frame_range is {reprlib.repr(value)}; give [start, end, step], whole numbers with 0 <= start < end"
        " and step > 0 (an older prompts.js has none)"
    )
