"""Video and picture files, each written whole or not at all."""

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from motionexp.files import write_whole

# A palette is found on about so many pixels: on all of them it takes a minute, and is hardly better.
PALETTE_SAMPLE = 16384


def write_mp4(path: str | Path, frames: np.ndarray, fps: float, *, crf: int = 14) -> None:
    """Writes H.264 in yuv420p, `frames` (F, H, W, 3) uint8, in the quality `crf`: 0, the best, to 51.

    Browsers, phones and slide programs decode no other chroma format (4:4:4 would keep odd sizes and sharp
    colour edges, and most of them show nothing). It needs even sizes: an odd height or width gets one more
    row or column, a copy of the last. Lossy: pixels that are measured later do not come from here.
    Raises OSError with the path where it cannot be written.
    """
    _, height, width, _ = checked(frames).shape
    # (F, H', W', 3) with even H' and W'.
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # As large and as good as with the default preset (42.9 dB and 43.2 dB), in half of its time.
        stream.options = {"crf": f"{crf}", "preset": "veryfast"}
        # BT.601, said in the file: what players assume for small videos that say nothing.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        for pixels in even:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="itu601")))
        container.mux(stream.encode())
    _write(path, memory.getvalue())


def write_gif(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Writes the GIF of `as_gif`. Raises OSError with the path where it cannot be written."""
    _write(path, as_gif(frames, fps))


def as_gif(frames: np.ndarray, fps: float) -> bytes:
    """An endless GIF of `frames` (F, H, W, 3) uint8, with one palette of 256 colours for all frames.

    Durations are whole hundredths of a second that add up to F / fps. Equal frames in succession become one
    that is shown longer.
    """
    count = len(checked(frames))
    pixels = frames.reshape(1, -1, 3)
    # An odd step meets every column of a width that is a power of two.
    sample = pixels[:, :: pixels.shape[1] // PALETTE_SAMPLE | 1]
    palette = Image.fromarray(sample).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    # Dithering would flicker from frame to frame, and makes the file three times as large.
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [round(100 * k / fps) for k in range(count + 1)]
    durations = [10 * (after - before) for before, after in pairwise(times)]
    memory = io.BytesIO()
    images[0].save(memory, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return memory.getvalue()


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 without loss. Raises OSError with the path where it cannot be written."""
    memory = io.BytesIO()
    # Level 1 takes a quarter of the time of the default, 6, for a file 1.3 times as large.
    Image.fromarray(checked(image[None])[0]).save(memory, "PNG", compress_level=1)
    _write(path, memory.getvalue())


def checked(frames: np.ndarray) -> np.ndarray:
    """The same frames; raises ValueError where they are not (F, H, W, 3) uint8 with at least one pixel."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are {frames.shape} {frames.dtype}; they must be (F, H, W, 3) uint8")
    return frames


def _write(path: str | Path, content: bytes) -> None:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        why = f"{error.strerror}; {len(content)} bytes were to be written"
        raise OSError(error.errno, why, str(path)) from error
