"""Optical flow and tracked points of a video, as the overlays of a report draw them."""

from typing import Any

import numpy as np

from motionexp.metrics.lucas_kanade import FlowSettings, flow, grid, track

MOST_POINTS = 64
"""That are drawn on a frame."""
UNITS = 1000
"""Places and steps are thousandths of the frame's width and height, as whole numbers."""


def overlays(frames: np.ndarray) -> dict[str, Any]:
    """Flow and tracks of (F, H, W, 3) uint8 frames; empty where they are too few or too small to follow.

    `flow` has for each frame but the last a flat list x, y, dx, dy of the points that move. `tracks` has for
    each point that moves a flat list x, y of the frames until it is lost.
    """
    height, width = frames.shape[1:3]
    settings = FlowSettings.for_size(height, width)
    if len(frames) < 2 or min(height, width) < 2 * settings.window:
        return {}
    scale = UNITS / np.array([width, height])
    moved = flow(frames, settings)
    points = grid(height, width, settings)
    is_shown = moved.valid & (np.linalg.norm(moved.vectors, axis=-1) >= settings.still)  # (F - 1, P)
    arrows = [
        np.concatenate([points[chosen], vectors[chosen]], 1) * np.tile(scale, 2)
        for vectors, chosen in zip(moved.vectors, map(_spread, is_shown), strict=True)
    ]
    position, visible = track(frames, settings)  # (F, P, 2), (F, P)
    # How far each point is at most from where it began, while it is seen.
    distance = np.where(visible, np.linalg.norm(position - position[:1], axis=-1), 0).max(0)
    chosen = _spread((distance >= 2 * settings.still) & (visible.sum(0) > 1))
    paths = [position[: visible[:, point].sum(), point] * scale for point in chosen]
    return {"flow": [_whole(of_frame) for of_frame in arrows], "tracks": [_whole(path) for path in paths]}


def _spread(is_chosen: np.ndarray) -> np.ndarray:
    """Indices of at most `MOST_POINTS` of the chosen points, evenly spread."""
    (indices,) = np.nonzero(is_chosen)
    if len(indices) <= MOST_POINTS:
        return indices
    return indices[np.linspace(0, len(indices) - 1, MOST_POINTS).astype(int)]


def _whole(numbers: np.ndarray) -> list[int]:
    return [int(number) for number in np.rint(numbers).ravel()]
