"""A folder of videos with a file of captions."""

import math
import os
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from motionexp.config.json_file import read_json
from motionexp.config.text_file import read_text
from motionexp.config.yaml_file import parse_yaml
from motionexp.data.base import Description, Edit, FirstFrame, Reference
from motionexp.data.checks import caption_problem, folded, raise_problems, reference_named, shortened
from motionexp.data.clip import Clip, path_name
from motionexp.data.tables import read_table
from motionexp.data.videos import frame_count, read_image
from motionexp.errors import InputError
from motionexp.files import user_path

CAPTION_FILES = ("captions.csv", "captions.yaml", "captions.yml", "captions.json")
# Columns of a CSV with any other name are kinds of edits.
NUMBERS = ("start", "fps", "stride")
"""Numbers of a video that select its frames, as in `videos.read_frames`."""
KEYS = ("video", "caption", "image", "edits", *NUMBERS)
OF_VIDEO = ("video", "caption", "image", *NUMBERS)
"""Columns of a CSV that are no kind of edit."""
OF_EDIT = " image"
"""After an edit's kind: the column of a CSV with the edit's own image."""
LARGEST = 1_000_000
PIXEL = np.zeros((1, 1, 3), np.uint8)
MOST_LETTERS = 60
"""Of an edit's kind, which names files."""


@dataclass(frozen=True)
class Entry:
    """One checked video: the clip that reads it, its edits with their kinds, and the edits' images."""

    clip: Clip
    edits: tuple[Edit, ...]
    images: tuple[Path | None, ...]

    def edits_with_images(self, size: tuple[int, int] | None) -> tuple[Edit, ...]:
        """The edits with images of a size (H, W), read when they are needed; None: of one pixel."""
        images = [
            None
            if path is None
            else FirstFrame(path.name, partial(read_image, path, size) if size else PIXEL, path)
            for path in self.images
        ]
        return tuple(replace(edit, image=image) for edit, image in zip(self.edits, images, strict=True))


@dataclass(frozen=True)
class VideoFolder:
    """Reader of the videos (mp4, webm, gif, folders of images) below a folder, with their captions.

    The captions' file is a list of videos, each with `video` (its path below the folder), `caption`, `edits`,
    and optionally `start` (seconds), `fps` or `stride`. In YAML and JSON `edits` is a list of captions, or
    {kind: caption}. In CSV every further column is a kind of edit, and an empty cell is no edit.

    Samples may begin with an image: `image` is that of all edits of a video. In YAML and JSON an edit may be
    {caption: ..., image: ...} in place of its caption, and in CSV the column `KIND image` has the image of
    the edit in the column `KIND`. Paths of images are below the folder.

    Args:
        path: the folder.
        captions: the captions' file; None: captions.csv, .yaml or .json in the folder.
        fps: frames per second to take of a video without `fps` and `stride`; None: all frames.
        fit: as in `motionexp.data.videos.read_frames`.

    Raises InputError, before any frame is decoded, for errors in the captions' file and for missing videos.
    """

    suite: ClassVar = "folder"
    path: str | Path | None
    captions: str | Path | None = None
    fps: float | None = None
    fit: str = "crop"

    def names(self) -> list[str]:
        """The videos' paths without their endings, as letters, digits, dots, dashes and underscores."""
        return list(self._entries)

    def describe(self, name: str) -> Description:
        """The captions of one video, and the number of frames in its file."""
        entry = self._entry(name)
        return Description(entry.clip.caption, entry.edits_with_images(None), frame_count(entry.clip.path))

    def long_enough(self, name: str, frames: int) -> bool:
        """Whether `start`, `fps` and `stride` take `frames` frames of one video. Raises InputError."""
        clip = self._entry(name).clip
        return clip.long_enough(clip.names()[0], frames)

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """One video as `frames` frames of `height` x `width` pixels. Raises InputError."""
        entry = self._entry(name)
        reference = entry.clip.read(entry.clip.names()[0], frames, height, width)
        strata = {"folder": self._folder.resolve().name}
        edits = entry.edits_with_images((height, width))
        return replace(reference, name=name, suite=self.suite, edits=edits, strata=strata)

    @cached_property
    def _folder(self) -> Path:
        if self.path is None:
            raise InputError("data=folder needs data.path=FOLDER, with videos and a captions.csv in it")
        folder = user_path(self.path)
        if not folder.is_dir():
            raise InputError(f"data.path={self.path}: there is no such folder")
        return folder

    def _entry(self, name: str) -> Entry:
        return reference_named(name, self._entries, f"data.path={self.path}")

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        file = self._captions_file()
        entries, problems = dict[str, Entry](), []
        # Where a video stands, by its path, and by its name without capitals, for disks that ignore those.
        places: dict[str, str] = {}
        # Every video is checked before the first error is raised, so that one run shows all mistakes.
        for place, video in read_captions(file):
            try:
                name, entry = self._checked(video)
                path = os.path.abspath(entry.clip.path)
                if path in places:
                    raise InputError(f"{video['video']} stands at {places[path]} too; list a video once")
                if (key := name.casefold()) in places:
                    raise InputError(f"it and {places[key]} are both called {name}; rename one of the files")
                places |= {path: place, key: place}
                entries[name] = entry
            except InputError as error:
                problems.append(f"{place}: {error}")
        raise_problems(f"{file}:", problems if problems or entries else ["lists no videos"])
        return entries

    def _captions_file(self) -> Path:
        if self.captions is not None:
            return user_path(self.captions)
        names = [name for name in CAPTION_FILES if (self._folder / name).is_file()]
        if len(names) != 1:
            content = f"has {' and '.join(names)}" if names else "has no captions.csv"
            raise InputError(f"{self._folder}: {content}; give the file of captions with data.captions=")
        return self._folder / names[0]

    def _checked(self, video: Mapping[str, Any]) -> tuple[str, Entry]:
        if unknown := [str(key) for key in video if key not in KEYS]:
            raise InputError(f"unknown {shortened(', '.join(unknown))}; the keys are {', '.join(KEYS)}")
        inside = _below(_text(video, "video"), "video")
        path = self._folder / inside
        if not os.path.exists(path):  # Path.exists raises OSError for a name that is too long
            raise InputError(f"there is no {shortened(str(inside))} in {self._folder}")
        caption = _text(video, "caption")
        edits, images = _edits(video.get("edits"), caption, video.get("image"))
        numbers = {key: _number(video, key) for key in NUMBERS if video.get(key) is not None}
        if {"fps", "stride"} <= set(numbers):
            raise InputError("fps and stride both say which frames to take; give one")
        # A video's own rate or stride precedes the folder's rate.
        if self.fps is not None and not {"fps", "stride"} & set(numbers):
            numbers["fps"] = self.fps
        captions = [edit.caption for edit in edits]
        clip = Clip(path, caption, captions, fit=self.fit, **numbers)
        # The folder is part of the name: runs/cat.mp4 and walks/cat.mp4 are two references.
        name = path_name(str(inside if path.is_dir() else inside.with_suffix("")))
        return name or clip.names()[0], Entry(clip, edits, tuple(map(self._image, images)))

    def _image(self, image: object) -> Path | None:
        """The file of an image, which is there."""
        if image is None:
            return None
        if not isinstance(image, str) or not image.strip():
            raise InputError(f"image is {reprlib.repr(image)}; it must be the path of an image")
        path = self._folder / _below(image.strip(), "image")
        if not os.path.isfile(path):
            raise InputError(f"there is no image {shortened(image)} in {self._folder}")
        return path


def _below(text: str, key: str) -> PurePosixPath:
    """A path below the folder. Raises InputError for one that leads out of it."""
    if os.path.isabs(text) or os.path.normpath(text).split(os.sep)[0] == os.pardir:
        raise InputError(f"{key} {shortened(text)}: a path below the folder is meant; put the file there")
    return PurePosixPath(text)


def read_captions(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """(place, unchecked video) of a captions' file; those of a CSV in the form of YAML and JSON.

    The place is a line of a CSV, else the number of the video.

    Raises:
        InputError: the file cannot be read, or is not a list of videos.
    """
    suffix = file.suffix.lower()
    if suffix == ".csv":
        header, rows = read_table(file, ("video", "caption"))
        if misspelled := [name for name in header if name not in KEYS and name.lower() in KEYS]:
            raise InputError(f"{file}: column {misspelled[0]}: write {misspelled[0].lower()}")
        kinds = [name.removesuffix(OF_EDIT) for name in header if name.endswith(OF_EDIT)]
        if alone := [kind for kind in kinds if kind not in header or kind in OF_VIDEO]:
            raise InputError(f"{file}: column {alone[0]}{OF_EDIT}: there is no edit in a column {alone[0]}")
        return [(f"line {number}", _from_csv(cells)) for number, cells in rows]
    content = read_json(file) if suffix == ".json" else parse_yaml(read_text(file), str(file))
    if not isinstance(content, list):
        raise InputError(f"{file}: it must be a list of videos, each with video, caption and edits")
    places = [f"video {number}" for number in range(1, len(content) + 1)]
    raise_problems(
        f"{file}:",
        [
            f"{place}: it is {reprlib.repr(video)}; it must have video, caption and edits"
            for place, video in zip(places, content, strict=True)
            if not isinstance(video, dict)
        ],
    )
    return list(zip(places, content, strict=True))


def _from_csv(cells: Mapping[str, str]) -> Mapping[str, Any]:
    filled = {name: cell for name, cell in cells.items() if cell}
    edits: dict[str, Any] = {
        name: filled.pop(name) for name in [*filled] if name not in OF_VIDEO and not name.endswith(OF_EDIT)
    }
    for name in [name for name in filled if name.endswith(OF_EDIT)]:
        kind = name.removesuffix(OF_EDIT)
        edits[kind] = {"caption": edits.get(kind, ""), "image": filled.pop(name)}
    return {**filled, "edits": edits}


def _edits(value: Any, caption: str, image: Any) -> tuple[tuple[Edit, ...], list[Any]]:
    """The edits of a video, and the unchecked path of each one's image, by default `image`.

    Raises InputError where one repeats another one, or the video's caption.
    """
    if not isinstance(value, dict | list | None):
        raise InputError("edits must be a list of captions, or {kind: caption}")
    pairs = list(value.items()) if isinstance(value, dict) else [("caption", text) for text in value or ()]
    edits, images = [], []
    for kind, value in pairs:
        about: dict[str, Any] = value if isinstance(value, dict) else {"caption": value}
        if unknown := [str(key) for key in about if key not in ("caption", "image")]:
            named = shortened(", ".join(unknown))
            raise InputError(f"edit {kind}: unknown {named}; the keys are caption and image")
        images.append(about.get("image", image))
        text: Any = about.get("caption")
        if not isinstance(kind, str) or not 0 < len(kind.strip()) <= MOST_LETTERS:
            rule = f"it must be text of at most {MOST_LETTERS} letters"
            raise InputError(f"the kind of an edit is {reprlib.repr(kind)}; {rule}")
        if problem := caption_problem(text):
            raise InputError(f"edit {kind} {problem}")
        if folded(text) == folded(caption):
            raise InputError(f"edit {kind} repeats the caption; write what the video should show instead")
        edits.append(Edit(kind.strip(), text.strip()))
    text, times = next(iter(Counter(folded(edit.caption) for edit in edits).most_common(1)), ("", 0))
    if times > 1:
        raise InputError(f"{times} edits are {shortened(text)!r}; list a caption once")
    return tuple(edits), images


def _text(video: Mapping[str, Any], key: str) -> str:
    text = video.get(key)
    if key == "caption" and (problem := caption_problem(text)):
        raise InputError(f"caption {problem}")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{key} is {reprlib.repr(text)}; it must be text")
    return text.strip()


def _number(video: Mapping[str, Any], key: str) -> Any:
    """A whole number for `stride`, else a float; also from the text of a CSV."""
    value = video[key]
    kind, least = ("whole number of at least 1", 1) if key == "stride" else ("number of at least 0", 0)
    problem = InputError(f"{key} is {reprlib.repr(value)}; it must be a {kind} and at most {LARGEST}")
    try:
        number = (int if key == "stride" else float)(str(value))
    except ValueError as error:
        raise problem from error
    # Python also reads 1_0, and digits of other scripts.
    is_plain = str(value).isascii() and "_" not in str(value) and abs(number) < math.inf
    if not is_plain or not least <= number <= LARGEST or (key == "fps" and number == 0):
        raise problem
    return number
