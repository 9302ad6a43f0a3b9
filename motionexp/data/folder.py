"""Any folder of videos with a file of captions beside them."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from motionexp.data.base import Description, Edit, Reference
from motionexp.data.clip import Clip, path_name
from motionexp.data.videos import frame_count
from motionexp.errors import InputError

CAPTION_FILES = ("captions.csv", "captions.yaml", "captions.yml", "captions.json")
TAKEN = ("start", "fps", "stride")
"""Numbers of a video that say which of its frames are taken, as `videos.read_frames` has them."""


@dataclass(frozen=True)
class Entry:
    """One checked video: its clip, which reads it, and its edits with their kinds."""

    clip: Clip
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class VideoFolder:
    """Reader of the videos (mp4, webm, gif, folders of images) below a folder, with their captions.

    The captions' file is a list of videos, each with `video` (its path below the folder), `caption`, `edits`,
    and where wanted `start` (seconds), `fps` or `stride`. In YAML and JSON `edits` is a list of captions, or
    {kind: caption}; in CSV every further column is a kind of edit, and an empty cell is none.

    Args:
        path: the folder.
        captions: the captions' file; None: captions.csv, .yaml or .json in the folder.
        fps: frames a second to take of each video that says neither `fps` nor `stride`; None: all.
        fit: as `motionexp.data.videos.read_frames` has it.

    Raises InputError, before any frame is decoded, for what is wrong with the captions' file and for videos
    that are not there.
    """

    path: str | Path | None
    captions: str | Path | None = None
    fps: float | None = None
    fit: str = "crop"

    @property
    def suite(self) -> str:
        return "folder"

    def names(self) -> list[str]:
        """The videos' paths without their endings, as letters, digits, dots, dashes and underscores."""
        return list(self._entries)

    def describe(self, name: str) -> Description:
        """The captions of one video, and how many frames its file has."""
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

    @property
    def _folder(self) -> Path:
        if self.path is None:
            raise InputError("data=folder needs data.path=FOLDER, with videos and a captions.csv in it")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError(f"data.path={self.path}: there is no such folder")
        return folder

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise InputError(f"reference {name!r}: {self._folder} has {', '.join(self._entries)}")
        return self._entries[name]

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        file = self._captions_file()
        entries: dict[str, Entry] = {}
        problems = []
        for number, said in enumerate(read_captions(file), start=1):
            try:
                name, entry = self._checked(said)
                if name in entries:
                    raise InputError(f"another video is called {name} too; rename one of the files")
                entries[name] = entry
            except InputError as error:
                problems.append(f"{file}, video {number}: {error}")
        if problems:
            raise InputError("\n".join(problems))
        if not entries:
            raise InputError(f"{file}: names no videos")
        return entries

    def _captions_file(self) -> Path:
        if self.captions is not None:
            return Path(self.captions).expanduser()
        found = [self._folder / name for name in CAPTION_FILES if (self._folder / name).is_file()]
        if len(found) != 1:
            there = f"has {' and '.join(each.name for each in found)}" if found else "has no captions.csv"
            raise InputError(f"{self._folder}: {there}; name the file of captions with data.captions=")
        return found[0]

    def _checked(self, said: Mapping[str, Any]) -> tuple[str, Entry]:
        if unknown := [str(key) for key in said if key not in ("video", "caption", "edits", *TAKEN)]:
            known = ", ".join(("video", "caption", "edits", *TAKEN))
            raise InputError(f"unknown {', '.join(unknown)}; there are {known}")
        where = _text(said, "video")
        path = self._folder / where
        if not path.exists():
            raise InputError(f"there is no {where} in {self._folder}")
        edits = _edits(said.get("edits"))
        taken = {key: _number(said, key) for key in TAKEN if said.get(key) is not None}
        if self.fps is not None and not {"fps", "stride"} & set(taken):
            taken["fps"] = self.fps
        captions = [edit.caption for edit in edits]
        clip = Clip(path, _text(said, "caption"), captions, fit=self.fit, **taken)
        inside = PurePosixPath(where) if path.is_dir() else PurePosixPath(where).with_suffix("")
        return path_name(str(inside)) or clip.names()[0], Entry(clip, edits)


def read_captions(file: Path) -> list[Mapping[str, Any]]:
    """The videos that a captions' file names, in the form that YAML and JSON have; not checked further.

    Raises:
        InputError: no such file, or no list of videos.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            return _read_csv(text)
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as captions ({' '.join(str(error).split())})") from error
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise InputError(f"{file}: it must be a list of videos, each with video, caption and edits")
    return content


def _read_csv(text: str) -> list[Mapping[str, Any]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    rows = [row for row in rows if any(row)]
    header = rows[0] if rows else []
    if missing := [name for name in ("video", "caption") if name not in header]:
        raise ValueError(f"no column {' and '.join(missing)}; its first row says {', '.join(header)}")
    if twice := [name for name, times in Counter(filter(None, header)).items() if times > 1]:
        raise ValueError(f"two columns are called {twice[0]}")
    result: list[Mapping[str, Any]] = []
    for row in rows[1:]:
        if len(row) > len(header):
            raise ValueError(
                f"{row[0]} has {len(row)} cells, the first row {len(header)}: quote its captions"
            )
        cells = {name: cell for name, cell in zip(header, row, strict=False) if name and cell}
        own = {name: cells.pop(name) for name in ("video", "caption", *TAKEN) if name in cells}
        result.append({**own, "edits": cells})
    return result


def _edits(said: Any) -> tuple[Edit, ...]:
    pairs = list(said.items()) if isinstance(said, dict) else [("caption", each) for each in said or ()]
    if isinstance(said, str) or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise InputError("edits must be a list of captions, or {kind: caption}")
    return tuple(Edit(kind, text.strip()) for kind, text in pairs)


def _text(said: Mapping[str, Any], key: str) -> str:
    text = said.get(key)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{key} is {text!r}; it must be text")
    return text.strip()


def _number(said: Mapping[str, Any], key: str) -> Any:
    """A stride is a whole number; CSV has all numbers as text."""
    try:
        return (int if key == "stride" else float)(str(said[key]))
    except ValueError as error:
        raise InputError(f"{key} is {said[key]!r}; it must be a number") from error
