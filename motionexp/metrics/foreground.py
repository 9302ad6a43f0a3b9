"""Which pixels are the object's: those whose colour stands out from the background, in one connected piece.

For the bundled world, where one compact object differs from its background in luminance or colour.
"""

from dataclasses import dataclass

import cv2
import numpy as np

AREA = (0.015, 0.4)
"""Plausible shares of the searched region that the object covers."""
LARGEST = 0.6
"""Least share of all that stands out that the largest piece must hold."""


@dataclass(frozen=True)
class Foreground:
    """What stands out from the background.

    Attributes:
        distance: (F, H, W) distance of each pixel's colour from the background's, grey levels.
        pieces: F masks (H, W) of the largest connected piece, None where none is compact and large enough.
    """

    distance: np.ndarray
    pieces: list[np.ndarray | None]


def foreground(frames: np.ndarray) -> Foreground:
    """Find what stands out.

    The background's colour is the median of all pixels of the video; what differs from it by more than Otsu's
    threshold, taken over the whole video, stands out.

    Args:
        frames: (F, H, W, 3) uint8 RGB.
    """
    pixels = frames.astype(np.float32)
    distance = np.linalg.norm(pixels - np.median(pixels.reshape(-1, 3), axis=0), axis=-1)
    # OpenCV's Otsu reads grey levels of one byte, so distances are brought to them and back.
    top = max(float(distance.max()), 1e-6)
    levels = np.clip(distance * (255 / top), 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(levels.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    threshold = level * top / 255
    return Foreground(distance, [_largest_piece(frame > threshold) for frame in distance])


def coverage(distance: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Return the share of each pixel that the object covers: 1 inside, at the rim what its distance says.

    Args:
        distance: (H, W), one frame of `Foreground.distance`.
        piece: (H, W) bool.
    """
    square = np.ones((3, 3), np.uint8)
    # The rim is one pixel to either side of the edge: rendering blends object and background there.
    inside = cv2.erode(piece.astype(np.uint8), square).astype(bool)
    rim = cv2.dilate(piece.astype(np.uint8), square).astype(bool) & ~inside
    background = np.median(distance[~piece])
    # The distance of a pixel that the object covers wholly: the largest nearby.
    full = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    share = np.clip((distance - background) / np.maximum(full - background, 1e-6), 0, 1)
    return np.where(rim, share, inside)


def _largest_piece(mask: np.ndarray) -> np.ndarray | None:
    # Label 0 is the background, so pieces begin at 1.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    # Label 0 is the background.
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < LARGEST * areas.sum():
        return None
    if not AREA[0] <= areas.max() / mask.size <= AREA[1]:
        return None
    return np.asarray(labels == 1 + areas.argmax())
