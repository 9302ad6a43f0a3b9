"""What tests of videos share: synthetic clips, encoders and decoders not of the package, real clips."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

CLIPS = Path(__file__).parents[3] / "shared/data/videos"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"real clips are not at {CLIPS}")


def moving(count: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """A coloured ball over a moving coloured wave: smooth, so that a codec can be held to a bound."""
    y, x = np.mgrid[:height, :width].astype(float)
    frames = np.empty((count, height, width, 3), np.uint8)
    for t in range(count):
        wave = 110 + 40 * np.sin((x + 2 * y) / 9 + t / 3)
        frames[t] = np.stack([wave, 230 - wave, np.full_like(x, 90)], -1)
        frames[t][(x - 10 - 2 * t) ** 2 + (y - 30) ** 2 < 80] = (210, 60, 50)
    return frames


def psnr(one: np.ndarray, another: np.ndarray) -> float:
    return float(-20 * np.log10(max(np.sqrt(np.mean((one.astype(np.float32) - another) ** 2)), 1e-9) / 255))


def noise(count: int = 24) -> np.ndarray:
    """Frames (count, 64, 64, 3) that no codec can shrink: each has its bytes in the file."""
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def encode(path: Path, frames: np.ndarray, *, times=None, codec="libx264", container=None, **options) -> Path:
    """Frames at `times` (milliseconds; 8 fps by default), written without motionexp."""
    times = times or [125 * index for index in range(len(frames))]
    with av.open(path, "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=8, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbered(count: int) -> np.ndarray:
    """Frames (count, 32, 48, 3), each as bright as its number says."""
    return np.stack([np.full((32, 48, 3), 20 + 7 * index, np.uint8) for index in range(count)])


def numbers(frames: np.ndarray) -> list[int]:
    return [round(value) for value in (frames.mean((1, 2, 3)) - 20) / 7]


def with_cv2(path: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(path))
    return np.stack([frame[..., ::-1] for _, frame in iter(capture.read, (False, None))])


def with_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        white = Image.new("RGBA", image.size, "white")
        pictures = (frame.convert("RGBA") for frame in ImageSequence.Iterator(image))
        return np.stack([Image.alpha_composite(white, picture).convert("RGB") for picture in pictures])
