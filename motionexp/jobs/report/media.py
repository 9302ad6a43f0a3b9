"""The small videos and posters of a report, made from the exact frames of samples."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from motionexp.data.videos import enlarged, frame_count, read_frames, write_mp4
from motionexp.data.videos.grids import as_tiles
from motionexp.data.videos.lossless import read_lossless_video
from motionexp.errors import DAMAGE, InputError
from motionexp.files import write_whole

LEAST, MOST = 128, 192
"""Pixels of the shorter side in a report: at least, and what videos twice as large are reduced to."""
CRF = 22
"""Of H.264: a third of the bytes of the stored videos to look at."""
POSTER_QUALITY = 70


def read_stored(video: Path) -> np.ndarray:
    """(F, H, W, 3) uint8: the exact frames beside a stored mp4, or else the mp4's own.

    Raises:
        InputError: neither is there, or it is damaged.
    """
    exact = video.with_suffix(".mkv")
    try:
        if exact.exists():
            return read_lossless_video(exact.read_bytes())[0]
        if (arrays := video.with_suffix(".npz")).exists():
            with np.load(arrays, allow_pickle=False) as file:
                return np.asarray(file["frames"])
    except DAMAGE as error:
        raise InputError(f"{exact}: damaged ({error})") from error
    return read_frames(video, frames=frame_count(video))


def write_small(folder: Path, key: str, frames: np.ndarray, fps: float) -> tuple[int, int]:
    """Write `KEY.mp4` and the poster `KEY.webp` unless they are there; returns their width and height."""
    tiles = enlarged(frames, LEAST) if min(frames.shape[1:3]) < LEAST else as_tiles(frames, MOST)
    height, width = tiles.shape[1:3]
    if not (folder / f"{key}.webp").exists():
        write_mp4(folder / f"{key}.mp4", tiles, fps, crf=CRF)
        memory = io.BytesIO()
        Image.fromarray(tiles[0]).save(memory, "WEBP", quality=POSTER_QUALITY)
        # Last: it marks both as written.
        write_whole(folder / f"{key}.webp", memory.getvalue())
    return width, height
