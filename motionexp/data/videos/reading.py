"""Reads frames of a video file or a folder of images. A damaged or wrong file raises `InputError`."""

import io
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image, ImageOps

from motionexp.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Largest ratio of fps= to the clip's rate. Above it frames repeat and motion visibly stutters.
RATE_SLACK = Fraction(21, 20)


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
        fps: take the frames nearest in time to start, start + 1/fps, ..., also of a variable frame rate. The
            images of a folder have no times and count as `fps` per second.
        stride: take every `stride`-th frame. Without `fps` and `stride`, every frame is taken.
        size: (H, W); None keeps the file's size.
        fit: "crop" fills the size with the middle of the picture; "fit" shows all of it on black.

    Returns:
        (F, H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, no video, damaged or cut short, or has fewer than F frames to take.
    """
    path = Path(path).expanduser()
    _check_request(path, frames, start, fps, stride, fit)
    if path.is_dir():
        files = _image_files(path)
        # Images have no times, so that fps= gives `start` its meaning.
        first = round(start * (fps or 0))
        pictures = ((file.name, _load_image(file)) for file in files[first :: stride or 1][:frames])
        result = list(_resized(path, pictures, size, fit))
        content = f"{len(files)} images"
    else:
        with _opened(path) as clip:
            chosen = _nearest(clip, frames, start, fps) if fps else _strided(clip, frames, start, stride or 1)
            pictures = ((f"frame {index} of those taken", _rgb(shown)) for index, shown in enumerate(chosen))
            result = list(_resized(path, pictures, size, fit))
            content = clip.described()
    if len(result) < frames:
        settings = {"start": start, "fps": fps, "stride": stride}
        how = " ".join(f"{name}={value:g}" for name, value in settings.items() if value)
        why = f", of which {how} gives {len(result)}; take other values there, or" if how else "; take"
        raise InputError(f"{path}: {frames} frames are asked for, and it has {content}{why} a longer clip")
    return np.stack(result)


def frame_rate(path: str | Path) -> float | None:
    """Mean frames per second of a video file, from its frames' times; None for a folder of images.

    A header often has only the camera's nominal rate. Raises InputError for a file that is no video or has
    one frame.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return None
    with _opened(path) as clip:
        times = [packet.pts for packet in clip.packets()]
        if len(set(times)) < 2:
            raise InputError(f"{path}: has no frame rate, for it has fewer than 2 frames")
        # From first to last time, over all frames: a variable rate has no other mean.
        return float((len(times) - 1) / ((times[-1] - times[0]) * clip.stream.time_base))


def frame_count(path: str | Path) -> int:
    """How many frames a video file has, without decoding them, or images a folder. Raises InputError."""
    path = Path(path).expanduser()
    if path.is_dir():
        return len(_image_files(path))
    with _opened(path) as clip:
        return len(clip.packets())


def taken_count(
    path: str | Path, *, start: float = 0.0, fps: float | None = None, stride: int | None = None
) -> int:
    """The most frames that `read_frames` gives with these settings; decodes none. Raises InputError."""
    path = Path(path).expanduser()
    _check_request(path, 1, start, fps, stride, "crop")
    if path.is_dir():
        return len(_image_files(path)[round(start * (fps or 0)) :: stride or 1])
    with _opened(path) as clip:
        packets = clip.packets()
        if not packets:
            return 0
        tick = Fraction(clip.stream.time_base)
        # As `_strided` and `_nearest` choose frames, from the times of packets instead.
        earliest = Fraction(start) - tick / 2
        if fps is None:
            after_start = sum((packet.pts - packets[0].pts) * tick >= earliest for packet in packets)
            return math.ceil(after_start / (stride or 1))
        end = (packets[-1].pts - packets[0].pts + (packets[-1].duration or 1)) * tick
        return max(0, math.ceil((end - tick / 2 - Fraction(start)) * Fraction(fps)))


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
    if path.is_dir() and start and not fps:
        raise InputError(f"{path}: start= is in seconds, and a folder of images has none: give fps= too")


class _Shown(NamedTuple):
    """A decoded frame and when it is on screen, in seconds from the clip's first frame on.

    Times in a file are rounded to ticks: two that are less than `slack`, half a tick, apart are the same.
    """

    frame: Any
    begin: Fraction
    end: Fraction
    slack: Fraction


class _Clip:
    """The frames of a video file in the order of their times, decoded one by one.

    Damage that a decoder would hide is an error: a broken frame, and a file that ends before its frames do.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.stream = container.streams.best("video")
        if self.stream is None:
            raise InputError(f"{path}: holds no video that can be read, or one cut short")
        self.count, self.end = 0, Fraction(0)

    def packets(self) -> list[Any]:
        """The encoded frames in the order of their times; decodes none."""
        packets = [packet for packet in self.container.demux(self.stream) if packet.pts is not None]
        return sorted(packets, key=lambda packet: packet.pts)

    def __iter__(self) -> Iterator[_Shown]:
        frames = self.container.decode(self.stream)
        origin = None
        while (frame := self._next(frames)) is not None:
            origin = frame.pts if origin is None else origin
            begin = (frame.pts - origin) * frame.time_base
            # A frame without a duration counts as one tick.
            self.count, self.end = self.count + 1, begin + (frame.duration or 1) * frame.time_base
            yield _Shown(frame, begin, self.end, Fraction(frame.time_base) / 2)

    def _next(self, frames: Iterator[Any]) -> Any:
        try:
            frame = next(frames, None)
        except (av.FFmpegError, OSError) as error:
            why = f"frame {self.count} cannot be decoded ({error.strerror})"
            raise InputError(f"{self.path}: {why}: it is damaged or cut short; copy it again") from error
        # A decoder conceals damage with pixels of other frames, and only sets this flag.
        if frame is not None and frame.is_corrupt:
            raise InputError(f"{self.path}: frame {self.count} is damaged: copy the file again")
        if frame is not None and frame.pts is None:
            raise InputError(f"{self.path}: its frames have no times; store it as mp4 or webm")
        return frame

    def described(self) -> str:
        """How many frames there were, and how many the header promised where those are more."""
        rate, duration = self.stream.average_rate, self.container.duration
        promised = self.stream.frames or round(rate * duration / av.time_base if rate and duration else 0)
        # Headers may be off by one frame in a whole file.
        more = f" (its header says {promised}: it may be cut short)" if promised > self.count + 1 else ""
        return f"{self.count} frame{'' if self.count == 1 else 's'} in {float(self.end):.3g} s{more}"


@contextmanager
def _opened(path: Path) -> Iterator[_Clip]:
    # FFmpeg gets the open file, for a name can be read as an address or a pattern; and it may open no other,
    # for a playlist could name files elsewhere.
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        try:
            container = av.open(file, "r", options={"protocol_whitelist": "data"})
        except (av.FFmpegError, OSError) as error:
            why = "no video that can be read, or one cut short"
            raise InputError(f"{path}: {why} ({error.strerror})") from error
        with container:
            clip = _Clip(path, container)
            _check_whole(clip, file)
            yield clip


def _check_whole(clip: _Clip, file: io.BufferedReader) -> None:
    """Raises InputError where the header places frames behind the file's end, or a GIF has no end.

    FFmpeg decodes what is left of either without a word.
    """
    size = clip.path.stat().st_size
    entries = clip.stream.index_entries
    if behind := sum(entry.pos + entry.size > size for entry in entries):
        listed = f"its header lists {len(entries)} frames, and {behind} of them lie behind the file's end"
        raise InputError(f"{clip.path}: is cut short; {listed} ({size} bytes); copy it again")
    if clip.container.format.name == "gif":
        position = file.tell()
        # Some writers fill the file with zeros after the last character.
        file.seek(max(0, size - 64))
        if not file.read().rstrip(b"\0").endswith(b";"):
            raise InputError(f"{clip.path}: is cut short; a GIF's last character is ';'; copy it again")
        file.seek(position)


def _strided(clip: _Clip, count: int, start: float, stride: int) -> Iterator[_Shown]:
    """Every `stride`-th frame from `start` seconds on; nothing is decoded after the last of them."""
    after_start = dropwhile(lambda shown: shown.begin < Fraction(start) - shown.slack, clip)
    return islice(after_start, 0, (count - 1) * stride + 1, stride)


def _nearest(clip: _Clip, count: int, start: float, fps: float) -> Iterator[_Shown]:
    """The frame nearest to each of start + k / fps while there is one on screen; of two as near, the earlier.

    Raises InputError where frames repeat because `fps` is above the clip's own rate.
    """
    # A frame is nearest to all times between the middles to its neighbours, so that two frames are held.
    previous: _Shown | None = None
    k, shortest, repeated = 0, Fraction(10**9), False
    times = [Fraction(start) + Fraction(index) / Fraction(fps) for index in range(count)]
    for shown in clip:
        if previous is not None:
            before, middle = k, (previous.begin + shown.begin) / 2
            while k < count and times[k] <= middle:
                yield previous
                k += 1
            shortest, repeated = min(shortest, shown.begin - previous.begin), repeated or k > before + 1
        previous = shown
        if k == count:
            break
    while previous is not None and k < count and times[k] < previous.end - previous.slack:
        yield previous
        k += 1
    if repeated and Fraction(fps) * shortest > RATE_SLACK:
        rate = f"the clip has {float(1 / shortest):.3g} a second"
        raise InputError(f"{clip.path}: fps={fps:g} would show frames twice; {rate}: ask for no more")


def _rgb(shown: _Shown) -> Image.Image:
    frame = shown.frame
    transparent = any(component.is_alpha for component in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if transparent else "rgb24")
    # The file's display matrix turns the picture counterclockwise, as rot90 does.
    return _opaque(Image.fromarray(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))))


def _image_files(folder: Path) -> list[Path]:
    """The folder's images by name, numbers in it by value: 2.png comes before 10.png."""
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    # Names that begin with a dot are not images but what other systems store beside them.
    if not (visible := [file for file in files if not file.name.startswith(".")]):
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    # Text and numbers alternate in a split name, so that text is never compared with a number.
    parts = re.compile(r"(\d+)", re.ASCII)
    return sorted(visible, key=lambda file: [int(p) if p.isdigit() else p for p in parts.split(file.name)])


def _load_image(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: no image that can be read, or one cut short ({error})") from error
    if upright.mode.startswith("I;16"):
        # Pillow's conversion clips values above 255.
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise InputError(f"{file}: has 32 bits a pixel in one channel; store it with 8 or 16")
    return _opaque(upright)


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


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
