"""Reads frames of a video file or a folder of images. A damaged or wrong file raises `InputError`."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from motionexp.data.videos.decoding import decode, read_timeline
from motionexp.data.videos.pictures import image_files, load_image
from motionexp.data.videos.timeline import Timeline
from motionexp.errors import InputError
from motionexp.files import user_path

# Largest ratio of fps= to the clip's rate. Above it frames repeat and motion visibly stutters.
RATE_SLACK = Fraction(21, 20)
RATES = (Fraction(1, 100), 1000)
"""Least and most frames per second of a file whose times can be meant."""


def read_frames(
    path: str | Path,
    *,
    frames: int,
    start: float = 0.0,
    fps: float | None = None,
    stride: int | None = None,
    size: tuple[int, int] | None = None,
    fit: str = "crop",
) -> np.ndarray:
    """The chosen frames of a video file (mp4, gif, webm and all that FFmpeg decodes) or a folder of images.

    Only chosen frames are converted, one at a time, so that memory holds the result and a few frames of the
    decoder. Transparent parts become white.

    Args:
        path: of the file. The images of a folder are ordered by the numbers in their names.
        frames: F, how many are read.
        start: seconds from the first frame.
        fps: take the frames on screen at start, start + 1/fps, ...; a frame that is held is repeated. At a
            constant rate these are the frames nearest in time. The images of a folder have no times and count
            as `fps` per second.
        stride: take every `stride`-th frame. Without `fps` and `stride`, every frame is taken.
        size: (H, W); None keeps the file's size.
        fit: "crop" fills the size with the middle of the picture; "fit" shows all of it on black.

    Returns:
        (F, H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, no video, damaged or cut short, or has fewer than F frames to take.
    """
    path = user_path(path)
    _check_request(path, frames, start, fps, stride, fit)
    if os.path.isdir(path):
        files = image_files(path)
        # Images have no times, so that fps= gives `start` its meaning.
        chosen = files[round(start * (fps or 0)) :: stride or 1][:frames]
        count, content = len(chosen), f"{len(files)} images"
        pictures = ((file.name, load_image(file)) for file in chosen)
    else:
        timeline = read_timeline(path)
        every = timeline.sampled(start, fps) if fps else timeline.strided(start, stride or 1)
        indices = list(islice(every, frames))
        count, content = len(indices), timeline.described()
        if fps:
            _check_repeats(path, timeline, indices, fps)
        pictures = (
            (f"frame {index} of those taken", shown)
            for index, shown in enumerate(decode(path, timeline, indices))
        )
    if count < frames:
        settings = {"start": start, "fps": fps, "stride": stride}
        how = " ".join(f"{name}={value:g}" for name, value in settings.items() if value)
        why = f", of which {how} gives {count}; take other values there, or" if how else "; take"
        raise InputError(f"{path}: {frames} frames are asked for, and it has {content}{why} a longer clip")
    return np.stack(list(_resized(path, pictures, size, fit)))


def frame_rate(path: str | Path) -> float | None:
    """Mean frames per second of a video file, from its frames' times; None for a folder of images.

    A header often has only the camera's nominal rate. Raises InputError for a file that is no video, has one
    frame, or a rate that no video is played at.
    """
    path = user_path(path)
    if os.path.isdir(path):
        return None
    rate = read_timeline(path).rate
    if rate is None:
        raise InputError(f"{path}: has no frame rate, for it has fewer than 2 frames")
    if not RATES[0] <= rate <= RATES[1]:
        right = (
            f"a video is played at {float(RATES[0])} to {RATES[1]}: give fps=, or store it with right times"
        )
        raise InputError(f"{path}: its times make {float(rate):.3g} frames per second; {right}")
    return float(rate)


def frame_count(path: str | Path) -> int:
    """How many frames a video file shows, or images a folder has; decodes one. Raises InputError."""
    path = user_path(path)
    return len(image_files(path) if os.path.isdir(path) else read_timeline(path).times)


def taken_count(
    path: str | Path, *, start: float = 0.0, fps: float | None = None, stride: int | None = None
) -> int:
    """The most frames that `read_frames` gives with these settings; decodes one. Raises InputError."""
    path = user_path(path)
    _check_request(path, 1, start, fps, stride, "crop")
    if os.path.isdir(path):
        return len(image_files(path)[round(start * (fps or 0)) :: stride or 1])
    timeline = read_timeline(path)
    return timeline.sampled_count(start, fps) if fps else len(timeline.strided(start, stride or 1))


def _check_request(
    path: Path, frames: int, start: float, fps: float | None, stride: int | None, fit: str
) -> None:
    if fps is not None and stride is not None:
        raise InputError(f"{path}: fps= and stride= both say which frames to take: give one")
    for name, value, least in (("frames", frames, 1), ("stride", stride, 1), ("start", start, 0)):
        if value is not None and not least <= value < math.inf:
            raise InputError(f"{path}: {name}={value}; it must be at least {least}")
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"{path}: fps={fps}; it must be above 0")
    if fit not in ("crop", "fit"):
        raise InputError(f"{path}: fit={fit}; it must be crop or fit")
    if os.path.isdir(path) and start and not fps:
        raise InputError(f"{path}: start= is in seconds, and a folder of images has none: give fps= too")


def _check_repeats(path: Path, timeline: Timeline, indices: Sequence[int], fps: float) -> None:
    """Raises InputError where frames repeat because `fps` is above the clip's own rate, and none is held."""
    last, rate = (
        len(timeline.times) - 1,
        1 / (timeline.shortest * timeline.tick) if timeline.shortest else None,
    )
    repeated = any(before == after != last for before, after in pairwise(indices))
    if repeated and rate and Fraction(fps) / rate > RATE_SLACK:
        clip_rate = f"the clip has {float(rate):.3g} a second"
        raise InputError(f"{path}: fps={fps:g} would show frames twice; {clip_rate}: ask for no more")


def _resized(
    path: Path, pictures: Iterable[tuple[str, Image.Image]], size: tuple[int, int] | None, fit: str
) -> Iterator[np.ndarray]:
    first = ""
    for label, image in pictures:
        described = f"is {image.width} x {image.height}"
        first = first or f"{label} {described}"
        if not first.endswith(described):
            raise InputError(f"{path}: {first} and {label} {described} pixels; all must have one size")
        if size is not None and image.size != size[::-1]:
            # PIL has (width, height), arrays (height, width); hence the reversal.
            place = ImageOps.fit if fit == "crop" else ImageOps.pad
            yield np.asarray(place(image, size[::-1], method=Image.Resampling.BICUBIC))
        else:
            yield np.asarray(image)
