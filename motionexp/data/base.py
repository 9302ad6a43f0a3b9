"""What every suite gives: a reference with its edits, and the reader that loads it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Edit:
    """A target caption and what it changes.

    `kind` is the suite's own word: `style`, `object`, `background`, `multiple` (TGVE's four), `caption`,
    `subject`, `scene` (DiTFlow's three for DAVIS), or `caption` where the user gave a caption alone. `truth`
    holds the target's attributes where they are known.
    """

    kind: str
    caption: str
    truth: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """One video with its caption and its edits.

    `frames` is (F, H, W, 3) uint8 RGB, `fps` the frames a second at which they are meant to be shown.
    `strata` names the groups under which scores are reported apart, for instance
    `{"contrast": "motion-dominant", "motion": "uncaptioned"}`. `truth` is the rendered scene, or None.
    `scored_frames` is how many frames from the first are scored, of the reference and of its samples, where
    the suite gives a model more than its own length; None: all.
    `motion_edits` change the motion's words and keep the looks'; probes take them, nothing else does.
    `companions` are other videos of the same motion, which an adapter is tuned on beside this one.
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
    companions: tuple["Reference", ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, self.frames.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise ValueError(
                f"reference {self.name}: frames are {shape} {dtype}; they must be (F, H, W, 3) uint8"
            )

    @cached_property
    def content_hash(self) -> str:
        """sha256 (64 hex digits) of the frames, their shape and the caption."""
        digest = hashlib.sha256(repr(self.frames.shape).encode())
        digest.update(self.frames.tobytes())
        digest.update(self.caption.encode())
        return digest.hexdigest()

    @property
    def trained_on(self) -> tuple["Reference", ...]:
        """The videos that an adapter is tuned on: this one, then its companions."""
        return (self, *self.companions)

    @property
    def trained_hash(self) -> str:
        """`content_hash` of all that training sees; of one video its own."""
        if not self.companions:
            return self.content_hash
        joined = " ".join(each.content_hash for each in self.trained_on)
        return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True)
class Description:
    """What is known of a reference before its frames are read; `frames` is how many it has in whole.

    `truth` is as a `Reference` has it.
    """

    caption: str
    edits: tuple[Edit, ...]
    frames: int
    truth: Any | None = None


class References(Protocol):
    """A reader of one suite: what `data=` names.

    `names`, `describe` and `long_enough` read captions and count frames, and see that every video is there;
    `read` alone decodes. All raise `motionexp.errors.InputError` where something is missing or wrong, or a
    reference does not exist; `read` does where it has fewer frames than asked, which `long_enough` tells.
    `read` gives `frames` frames of `height` x `width` pixels; the same arguments give the same bytes.
    """

    @property
    def suite(self) -> str: ...

    def names(self) -> list[str]: ...

    def describe(self, name: str) -> Description: ...

    def long_enough(self, name: str, frames: int) -> bool: ...

    def read(self, name: str, frames: int, height: int, width: int) -> Reference: ...
