"""Four ways to spoil a frame that a preference scorer must see through."""

import cv2
import numpy as np

from motionexp.pretrain.classifier import blurred, noised

KINDS = ("blurred", "noisy", "smeared", "off-colour")


def smeared(frame: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Return a frame (H, W, 3) averaged along a line of ``length`` pixels at ``angle`` radians."""
    reach = int(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for place in np.linspace(-length / 2, length / 2, 4 * reach):
        kernel[round(reach + place * np.sin(angle)), round(reach + place * np.cos(angle))] += 1
    return cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def off_colour(frame: np.ndarray, degrees: float, saturation: float) -> np.ndarray:
    """Return a frame (H, W, 3) with hues turned by ``degrees`` and chroma multiplied by ``saturation``."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)) / np.sqrt(3)
    turn = np.array([[cos, -sin, sin], [sin, cos, -sin], [-sin, sin, cos]])
    luminance = frame.mean(-1, keepdims=True)
    return np.clip(np.round(luminance + saturation * (frame - luminance) @ turn.T), 0, 255).astype(np.uint8)


def spoilt(frame: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Spoil a uint8 frame (H, W, 3) in one of ``KINDS``, visibly, by a random amount."""
    if kind == "blurred":
        return blurred(frame[None], rng.uniform(0.8, 4))[0]
    if kind == "noisy":
        return noised(frame, rng.uniform(8, 60), rng)
    if kind == "smeared":
        return smeared(frame, rng.uniform(4, 20), rng.uniform(0, np.pi))
    return off_colour(frame, rng.uniform(60, 300), rng.uniform(0.3, 1.5))
