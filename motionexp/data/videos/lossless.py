"""Exact frames as a lossless video: a quarter smaller than a compressed array, or less than half of it.

H.264 in RGB without quantisation, in Matroska. ffmpeg, VLC and mpv play it, browsers mostly do not.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np

from motionexp.data.videos.writing import checked

ABOUT = "COMMENT"
"""The tag of the file that holds what is said about the video."""


def lossless_video(frames: np.ndarray, fps: float, about: Mapping[str, Any]) -> bytes:
    """The content of a file with `frames` (F, H, W, 3) uint8, bit by bit, and with `about` as JSON."""
    _, height, width, _ = checked(frames).shape
    memory = io.BytesIO()
    with av.open(memory, "w", format="matroska") as container:
        # Flipped bits would decode to other frames without an error.
        container.metadata[ABOUT] = json.dumps({**about, "sha256": _digest(frames, about)})
        stream = container.add_stream("libx264rgb", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        stream.options = {"qp": "0"}
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return memory.getvalue()


def read_lossless_video(content: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames (F, H, W, 3) uint8 and the `about` of a file that `lossless_video` wrote.

    Raises:
        ValueError, KeyError, OSError: the content is damaged.
    """
    try:
        with av.open(io.BytesIO(content)) as container:
            about = json.loads(container.metadata[ABOUT])
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.FFmpegError as error:  # a flipped bit may name a feature that FFmpeg lacks
        raise ValueError(str(error)) from error
    video = np.stack(frames)
    if about.pop("sha256") != _digest(video, about):
        raise ValueError("its content is not what was written")
    return video, about


def _digest(frames: np.ndarray, about: Mapping[str, Any]) -> str:
    text = json.dumps([frames.shape, about], sort_keys=True)
    return hashlib.sha256(text.encode() + frames.tobytes()).hexdigest()
