"""The user's clip: a video file or a folder of images, with its caption and target captions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from motionexp.data.base import Description, Edit, Reference
from motionexp.data.checks import reference_named
from motionexp.data.videos import frame_count, frame_rate, read_frames, taken_count
from motionexp.errors import InputError
from motionexp.files import MOST_CHARACTERS, file_name, plain_name, user_path

if TYPE_CHECKING:
    from motionexp.diffusion.backbone import Backbone

# Frames per second of a folder of images without fps=; most models' training videos have this rate.
FOLDER_FPS = 8.0


@dataclass(frozen=True)
class Clip:
    """The one reference at `path`; each of `edits` is a caption of kind `caption`.

    `start` (seconds), `fps`, `stride` and `fit` ("crop" or "fit") are those of `videos.read_frames`.
    Raises InputError for an empty caption or no edit; `read` does for what is wrong with the file.
    """

    suite: ClassVar = "clip"
    path: str | Path
    caption: str
    edits: Sequence[str]
    start: float = 0.0
    fps: float | None = None
    stride: int | None = None
    fit: str = "crop"

    def __post_init__(self) -> None:
        if not self.edits:
            raise InputError(f"{self.path}: no edits; write a caption of what the video should show instead")
        if not all(text.strip() for text in (self.caption, *self.edits)):
            raise InputError(f"{self.path}: a caption is empty; write what the video shows")

    def names(self) -> list[str]:
        """The file's name without its ending, as letters, digits, dots, dashes and underscores."""
        path = user_path(self.path).resolve()
        return [path_name(path.name if os.path.isdir(path) else path.stem) or "clip"]

    def describe(self, name: str) -> Description:
        """Its captions, and how many frames the file has. Raises InputError."""
        self._check_name(name)
        return Description(self.caption, self._edits, frame_count(self.path))

    def long_enough(self, name: str, frames: int) -> bool:
        """Whether `start`, `fps` and `stride` take `frames` frames of the file. Raises InputError."""
        self._check_name(name)
        return taken_count(self.path, start=self.start, fps=self.fps, stride=self.stride) >= frames

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """The clip as `frames` frames of `height` x `width` pixels. Raises InputError."""
        self._check_name(name)
        selection: dict[str, Any] = {"start": self.start, "fps": self.fps, "stride": self.stride}
        pixels = read_frames(self.path, frames=frames, size=(height, width), fit=self.fit, **selection)
        # Without fps=, frames are shown at the clip's rate, divided by the stride.
        fps = self.fps or (frame_rate(self.path) or FOLDER_FPS) / (self.stride or 1)
        return Reference(name, self.suite, pixels, fps, self.caption, self._edits)

    @property
    def _edits(self) -> tuple[Edit, ...]:
        return tuple(Edit("caption", text) for text in self.edits)

    def _check_name(self, name: str) -> None:
        reference_named(name, dict.fromkeys(self.names()), f"video={self.path}")


def read_clip(
    path: str | Path,
    caption: str,
    edits: Sequence[str],
    backbone: "Backbone",
    *,
    start: float = 0.0,
    fps: float | None = None,
    stride: int | None = None,
    fit: str = "crop",
) -> Reference:
    """A clip with its captions, as many frames and as large as the backbone's videos.

    Args:
        path: a video file, or a folder of images.
        caption: what the clip shows.
        edits: captions of what the samples should show instead, at least one.
        backbone: its `frames`, `height` and `width` are those of the result.
        start, fps, stride, fit: which part of the clip is read; see `motionexp.data.videos.read_frames`.

    Raises:
        InputError: the file cannot be read or is too short, or the backbone cannot read a caption.
    """
    clip = Clip(path, caption, edits, start, fps, stride, fit)
    # Before any weight is loaded: this needs the tokenizer alone.
    if problems := backbone.check_captions([caption, *edits]):
        raise InputError(f"{path}: " + "; ".join(problems))
    (name,) = clip.names()
    return clip.read(name, backbone.frames, backbone.height, backbone.width)


def path_name(text: str) -> str:
    """The text as letters, digits, dots, - and _, to name a reference; a long text is shortened."""
    name = plain_name(text)
    return name if len(name) <= MOST_CHARACTERS else file_name(text)
