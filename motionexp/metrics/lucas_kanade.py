"""Points followed from frame to frame by the pyramidal Lucas-Kanade method of OpenCV."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import cv2
import numpy as np


@dataclass(frozen=True)
class FlowSettings:
    """Lengths in pixels of the videos as they are given.

    Attributes:
        window: side of Lucas-Kanade's window, odd. Half of it is kept free of points around the border.
        step: distance of neighbouring points of the grid.
        levels: how often the image is halved; motion up to about window x 2 ** levels / 2 can be followed.
        still: a point that moves less than this between two frames stands still.
        round_trip: a point followed forwards and back must return closer than this to where it began.
        min_eigenvalue: texture (smallest eigenvalue of the window's gradients, in OpenCV's units) below
            which a point is not followed. OpenCV's own 1e-4 follows the noise of a flat area; 1e-3 does
            not.
        floor: share of points that must be usable, of the grid and of those that move, or the score abstains.
    """

    window: int = 9
    step: int = 3
    levels: int = 2
    still: float = 0.25
    round_trip: float = 1.0
    min_eigenvalue: float = 1e-3
    floor: float = 0.1

    @classmethod
    def for_size(cls, height: int, width: int) -> "FlowSettings":
        """Return the settings for frames of this size: windows of 21 pixels from 128 pixels on, 9 below."""
        side = min(height, width)
        return cls() if side < 128 else cls(window=21, step=side // 32, levels=3, still=0.5)


@dataclass(frozen=True)
class Flow:
    """Motion of the grid's P points between neighbouring frames.

    Attributes:
        vectors: (F - 1, P, 2) pixels, x and y.
        valid: (F - 1, P), whether each could be followed.
    """

    vectors: np.ndarray
    valid: np.ndarray


def grid(height: int, width: int, settings: FlowSettings) -> np.ndarray:
    """Return (P, 2) points x, y whose windows lie inside the frame."""
    half = settings.window // 2
    # Half a window is left free: nearer to the border, gradients come from padding.
    xs, ys = (np.arange(half, side - half, settings.step) for side in (width, height))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.float32)


def flow(frames: np.ndarray, settings: FlowSettings) -> Flow:
    """Follow the grid's points from each frame to the next, by the pyramidal Lucas-Kanade method of OpenCV.

    Args:
        frames: (F, H, W, 3) uint8 RGB, F >= 2.
        settings: see `FlowSettings`.
    """
    height, width = frames.shape[1:3]
    # (P, 1, 2), as OpenCV takes points. The grid starts anew in each frame: lost points do not add up.
    start = grid(height, width, settings)[:, None]
    vectors, valid = [], []
    for before, after in pairwise(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames):
        end, followed, _ = follow(before, after, start, settings)
        vectors.append((end - start)[:, 0])
        valid.append(followed)
    return Flow(np.stack(vectors).astype(np.float64), np.stack(valid))


def follow(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, settings: FlowSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow points from one frame to the next and back.

    Args:
        before: (H, W) uint8. after: the same.
        points: (P, 1, 2) float32 x and y, pixels.
        settings: see there.

    Returns:
        Where the points are in `after` (P, 1, 2); (P,) whether that can be relied on: found both ways, inside
        the frame, and back near the start; and (P,) whether they were found at all.
    """
    search = partial(
        cv2.calcOpticalFlowPyrLK,
        winSize=(settings.window, settings.window),
        maxLevel=settings.levels,
        minEigThreshold=settings.min_eigenvalue,
    )
    # Forwards, then backwards from where the point arrived.
    end, forwards, _ = search(before, after, points, None)
    back, backwards, _ = search(after, before, end, None)
    height, width = before.shape
    # OpenCV leaves the status of a point at 1 when it has left the frame.
    inside = ((end >= 0) & (end <= (width - 1, height - 1))).all(-1)
    returned = np.linalg.norm(back - points, axis=-1) < settings.round_trip
    followed = forwards == 1
    return end, (followed & (backwards == 1) & inside & returned)[:, 0], followed[:, 0]


def track(frames: np.ndarray, settings: FlowSettings) -> tuple[np.ndarray, np.ndarray]:
    """Follow the grid's points of the first frame through all frames.

    A point is lost for good at the first step at which it has no texture, leaves the frame, or does not come
    back when followed backwards.

    Args:
        frames: (F, H, W, 3) uint8 RGB, F >= 2.
        settings: see `FlowSettings`.

    Returns:
        (F, P, 2) x and y in pixels, of a lost point where it was last seen; (F, P) whether it is seen.
    """
    points = grid(frames.shape[1], frames.shape[2], settings)[:, None]
    alive = np.ones(len(points), bool)
    position, visible = [points[:, 0]], [alive]
    for before, after in pairwise(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames):
        end, valid, followed = follow(before, after, points, settings)
        # A lost point stays where it was last seen, so that OpenCV gets finite places.
        points = np.where(followed[:, None, None], end, points)
        # Never alive again: a point that comes back may be another one.
        alive = alive & valid
        position.append(points[:, 0])
        visible.append(alive)
    return np.stack(position).astype(np.float64), np.stack(visible)
