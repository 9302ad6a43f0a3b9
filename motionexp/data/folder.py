"""A folder of videos with a file of captions."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]

from motionexp.data.base import Description, Edit, Reference
from motionexp.data.checks import raise_problems, read_table, reference_named
from motionexp.data.clip import Clip, path_name
from motionexp.data.videos import frame_count
from motionexp.errors import InputError

CAPTION_FILES = ("captions.csv", "captions.yaml", "captions.yml", "captions.json")
# Columns of a CSV with any other name are kinds of edits.
NUMBERS = ("start", "fps", "stride")
"""Numbers of a video that select its frames, as in `videos.read_frames`."""
KEYS = ("video", "caption", "edits", *NUMBERS)


@dataclass(frozen=True)
class Entry:
    """One checked video: the clip that reads it, and its edits with their kinds."""

    clip: Clip
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class VideoFolder:
    """Reader of the videos (mp4, webm, gif, folders of images) below a folder, with their captions.

    The captions' file is a list of videos, each with `video` (its path below the folder), `caption`, `edits`,
    and optionally `start` (seconds), `fps` or `stride`. In YAML and JSON `edits` is a list of captions, or
    {kind: caption}. In CSV every further column is a kind of edit, and an empty cell is no edit.

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
        return Description(entry.clip.caption, entry.edits, frame_count(entry.clip.path))

    def long_enough(self, name: str, frames: int) -> bool:
        """Whether `start`, `fps` and `stride` take `frames` frames of one video. Raises InputError."""
        clip = self._entry(name).clip
        return clip.long_enough(clip.names()[0], frames)

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """One video as `frames` frames of `height` x `width` pixels. Raises InputError."""
        entry = self._entry(name)
        reference = entry.clip.read(entry.clip.names()[0], frames, height, width)
        strata = {"folder": self._folder.resolve().name}
        return replace(reference, name=name, suite=self.suite, edits=entry.edits, strata=strata)

    @cached_property
    def _folder(self) -> Path:
        if self.path is None:
            raise InputError("data=folder needs data.path=FOLDER, with videos and a captions.csv in it")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError(f"data.path={self.path}: there is no such folder")
        return folder

    def _entry(self, name: str) -> Entry:
        return reference_named(name, self._entries, f"data.path={self.path}")

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        file = self._captions_file()
        entries, problems = dict[str, Entry](), []
        # Every video is checked before the first error is raised, so that one run shows all mistakes.
        for number, video in enumerate(read_captions(file), start=1):
            try:
                name, entry = self._checked(video)
                if name in entries:
                    raise InputError(f"another video is called {name} too; rename one of the files")
                entries[name] = entry
            except InputError as error:
                problems.append(f"video {number}: {error}")
        raise_problems(f"{file}:", problems if problems or entries else ["lists no videos"])
        return entries

    def _captions_file(self) -> Path:
        if self.captions is not None:
            return Path(self.captions).expanduser()
        names = [name for name in CAPTION_FILES if (self._folder / name).is_file()]
        if len(names) != 1:
            content = f"has {' and '.join(names)}" if names else "has no captions.csv"
            raise InputError(f"{self._folder}: {content}; give the file of captions with data.captions=")
        return self._folder / names[0]

    def _checked(self, video: Mapping[str, Any]) -> tuple[str, Entry]:
        if unknown := [str(key) for key in video if key not in KEYS]:
            raise InputError(f"unknown {', '.join(unknown)}; the keys are {', '.join(KEYS)}")
        inside = PurePosixPath(_text(video, "video"))
        path = self._folder / inside
        if not os.path.exists(path):  # Path.exists raises OSError for a name that is too long
            raise InputError(f"there is no {inside} in {self._folder}")
        edits = _edits(video.get("edits"))
        numbers = {key: _number(video, key) for key in NUMBERS if video.get(key) is not None}
        # A video's own rate or stride precedes the folder's rate.
        if self.fps is not None and not {"fps", "stride"} & set(numbers):
            numbers["fps"] = self.fps
        captions = [edit.caption for edit in edits]
        clip = Clip(path, _text(video, "caption"), captions, fit=self.fit, **numbers)
        # The folder is part of the name: runs/cat.mp4 and walks/cat.mp4 are two references.
        name = path_name(str(inside if path.is_dir() else inside.with_suffix("")))
        return name or clip.names()[0], Entry(clip, edits)


def read_captions(file: Path) -> list[Mapping[str, Any]]:
    """The unchecked videos of a captions' file; those of a CSV in the form of YAML and JSON.

    Raises:
        InputError: the file cannot be read, or is not a list of videos.
    """
    if file.suffix == ".csv":
        return [_from_csv(cells) for _, cells in read_table(file, ("video", "caption"))[1]]
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read as captions ({' '.join(str(error).split())})") from error
    if not isinstance(content, list) or not all(isinstance(video, dict) for video in content):
        raise InputError(f"{file}: it must be a list of videos, each with video, caption and edits")
    return content


def _from_csv(cells: Mapping[str, str]) -> Mapping[str, Any]:
    filled = {name: cell for name, cell in cells.items() if cell}
    edits = {name: filled.pop(name) for name in [*filled] if name not in ("video", "caption", *NUMBERS)}
    return {**filled, "edits": edits}


def _edits(value: Any) -> tuple[Edit, ...]:
    pairs = list(value.items()) if isinstance(value, dict) else [("caption", text) for text in value or ()]
    if isinstance(value, str) or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise InputError("edits must be a list of captions, or {kind: caption}")
    return tuple(Edit(kind, text.strip()) for kind, text in pairs)


def _text(video: Mapping[str, Any], key: str) -> str:
    text = video.get(key)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{key} is {text!r}; it must be text")
    return text.strip()


def _number(video: Mapping[str, Any], key: str) -> Any:
    """A whole number for `stride`, else a float; also from the text of a CSV."""
    try:
        return (int if key == "stride" else float)(str(video[key]))
    except ValueError as error:
        raise InputError(f"{key} is {video[key]!r}; it must be a number") from error
