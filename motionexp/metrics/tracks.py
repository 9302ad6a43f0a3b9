"""Points followed through a whole video, by Lucas-Kanade or by a tracker that the user brings along."""

from typing import Protocol

import numpy as np
import torch

from motionexp.errors import InputError
from motionexp.metrics.base import Tracks
from motionexp.metrics.lucas_kanade import FlowSettings, track


class Tracker(Protocol):
    """Follows points; `identity` names it and all that its tracks depend on beside the frames."""

    @property
    def identity(self) -> str: ...

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Follow points of the first of (F, H, W, 3) uint8 frames, F >= 2."""

    def to(self, device: torch.device) -> None:
        """Work on a device from now on."""


def check_trackable(frames: int, height: int, width: int) -> None:
    """Raise InputError where `LucasKanadeTracker` can follow no points: too few frames, or too small ones."""
    least = 2 * FlowSettings.for_size(height, width).window
    if frames < 2 or min(height, width) < least:
        raise InputError(
            f"tracks need two or more frames of at least {least} pixels each way, not {frames} of {height} x"
            f" {width}"
        )


class LucasKanadeTracker:
    """Follows the grid of `flow_similarity` from frame to frame; see `lucas_kanade.track`."""

    identity = "lucas_kanade 1"

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Follow points of the first frame; raises `InputError` where frames are too small or too few."""
        count, height, width, _ = frames.shape
        check_trackable(count, height, width)
        settings = FlowSettings.for_size(height, width)
        return Tracks(*track(frames, settings), settings.still)

    def to(self, device: torch.device) -> None:
        """OpenCV follows points on the CPU, whatever the device."""
