"""How far one video is from another, pixel by pixel."""

import numpy as np


def psnr(video: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of every frame, in dB.

    Two equal frames have 58.9 dB: rounding to whole grey levels is an error of 1/12 squared level by itself.

    Args:
        video: (F, H, W, 3) in grey levels, 0..255.
        reference: of the same shape.

    Returns:
        (F,) dB, at most 58.92.
    """
    error = np.square(video.astype(float) - reference).mean((1, 2, 3))
    return np.asarray(10 * np.log10(255**2 / np.maximum(error, 1 / 12)))
