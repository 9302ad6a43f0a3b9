"""What every suite provides: references with their edits, and the reader that loads them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class FirstFrame:
    """An image with which the samples of an edit begin.

    Attributes:
        name: of its file.
        source: the pixels, or what reads them when they are first needed.
        file: that pixels of another size can be read of; None: there is none.
    """

    name: str
    source: np.ndarray | Callable[[], np.ndarray]
    file: Path | None = None

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, of the size of the videos. Raises InputError where they cannot be read."""
        return self.source if isinstance(self.source, np.ndarray) else self.source()

    @cached_property
    def content_hash(self) -> str:
        """sha256 (64 hex digits) of the pixels and their shape."""
        return image_hash(self.pixels)

    def __str__(self) -> str:
        """The name, and 12 digits of the hash: what rows have."""
        return f"{self.name} {self.content_hash[:12]}"


def image_hash(pixels: np.ndarray) -> str:
    """sha256 (64 hex digits) of an image's (H, W, 3) uint8 pixels and their shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Edit:
    """A target caption and what it changes.

    `kind` is a word of the suite: `style`, `object`, `background`, `multiple` (TGVE), `caption`, `subject`,
    `scene` (DiTFlow's prompts for DAVIS), or `caption` where the user gave a caption alone. `truth` holds the
    target's attributes, or None where they are unknown. `image` is the first frame of its samples, for models
    that make videos of an image and a caption.
    """

    kind: str
    caption: str
    truth: Mapping[str, Any] | None = None
    image: FirstFrame | None = None

    @property
    def pixels(self) -> np.ndarray | None:
        """Of the image, (H, W, 3) uint8 RGB; None: it has none."""
        return None if self.image is None else self.image.pixels


@dataclass(frozen=True, eq=False)
class Reference:
    """One video with its caption and its edits.

    Attributes:
        name: unique within the suite. suite: as the reader has it.
        frames: (F, H, W, 3) uint8 RGB. fps: frames per second at which they are shown.
        caption: of this video. edits: target captions.
        strata: groups whose scores are reported separately, for instance
            `{"contrast": "motion-dominant", "motion": "uncaptioned"}`.
        truth: the rendered scene, or None.
        scored_frames: only the first `scored_frames` frames of the reference and of its samples are scored;
            None: all.
        motion_edits: edits that change the motion's words and keep the appearance's; for probes.
        extra_references: other videos of the same motion. An adapter is tuned on them too.
    """

    name: str
    suite: str
    frames: np.ndarray
    fps: float
    caption: str
    edits: tuple[Edit, ...]
    strata: Mapping[str, str] = field(default_factory=dict)
    truth: Any | None = None
    scored_frames: int | None = None
    motion_edits: tuple[Edit, ...] = ()
    extra_references: tuple["Reference", ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, self.frames.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise ValueError(f"reference {self.name}: frames are {shape} {dtype}, not (F, H, W, 3) uint8")

    @cached_property
    def content_hash(self) -> str:
        """sha256 (64 hex digits) of the frames, their shape and the caption."""
        # The shape is hashed too: equal bytes may be (2, 4, 6, 3) or (2, 6, 4, 3).
        digest = hashlib.sha256(repr(self.frames.shape).encode())
        digest.update(self.frames.tobytes())
        digest.update(self.caption.encode())
        return digest.hexdigest()

    @property
    def trained_on(self) -> tuple["Reference", ...]:
        """The videos that an adapter is tuned on: this one, then the extra references."""
        return (self, *self.extra_references)

    @property
    def trained_hash(self) -> str:
        """sha256 of the `content_hash` of all videos in `trained_on`; of one video its `content_hash`."""
        # Adapters from before there were extra references keep their ids.
        if not self.extra_references:
            return self.content_hash
        joined = " ".join(video.content_hash for video in self.trained_on)
        return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True)
class Description:
    """Facts about a reference that need no decoding. `frames` is its length, `truth` as in `Reference`."""

    caption: str
    edits: tuple[Edit, ...]
    frames: int
    truth: Any | None = None


class References(Protocol):
    """A reader of one suite, which `data=` selects.

    `names`, `describe` and `long_enough` read captions, count frames and check that every video exists. Only
    `read` decodes: it returns `frames` frames of `height` x `width` pixels, and the same bytes for the same
    arguments. All raise `motionexp.errors.InputError` for a missing or wrong file and a reference that does
    not exist. `read` also raises it where `long_enough` returns False.
    """

    @property
    def suite(self) -> str: ...

    def names(self) -> list[str]: ...

    def describe(self, name: str) -> Description: ...

    def long_enough(self, name: str, frames: int) -> bool: ...

    def read(self, name: str, frames: int, height: int, width: int) -> Reference: ...
