"""The images of a folder as the frames of one video. What is not one sequence raises `InputError`."""

import re
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from motionexp.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# A phone's MPO holds a depth map or a second view behind the photo, and counts as two frames.
ANIMATIONS = ("GIF", "PNG", "WEBP", "TIFF")


def image_files(folder: Path) -> list[Path]:
    """The images of one sequence in the order of their numbers: 2.png comes before 10.png.

    Raises InputError where the names are not one sequence: a number comes twice (a frame and its mask), texts
    differ (frames and other pictures), no number or more than one number changes.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    # Names that begin with a dot are not images but what other systems store beside them.
    if not (visible := [file for file in files if not file.name.startswith(".")]):
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    # Texts are at even places of a split name, numbers at odd places.
    parts = {file: re.compile(r"(\d+)", re.ASCII).split(file.stem) for file in visible}
    numbers = {file: tuple(int(part) for part in parts[file][1::2]) for file in visible}
    _check_one_sequence(folder, {file: tuple(parts[file][::2]) for file in visible}, numbers)
    return sorted(visible, key=numbers.__getitem__)


def _check_one_sequence(
    folder: Path, texts: dict[Path, tuple[str, ...]], numbers: dict[Path, tuple[int, ...]]
) -> None:
    first, *rest = texts
    right = "a folder of frames holds one sequence, with one number that counts the frames"
    for file in rest:
        if tuple(map(str.lower, texts[file])) != tuple(map(str.lower, texts[first])):
            raise InputError(f"{folder}: {first.name} and {file.name} are two kinds of pictures; {right}")
    # Columns of numbers, one for each place of a number in the names.
    changing = [column for column in zip(*numbers.values(), strict=True) if len(set(column)) > 1]
    if len(changing) > 1:
        last = list(texts)[-1].name
        raise InputError(f"{folder}: from {first.name} to {last} more than one number changes; {right}")
    of_number = defaultdict(list)
    for file, number in numbers.items():
        of_number[number].append(file.name)
    for number, (name, *same) in of_number.items():
        if same:
            which = f"{name} and {same[0]} are both number {number[-1]}" if number else f"{name}, {same[0]}"
            raise InputError(f"{folder}: {which}; {right}")


def load_image(file: Path) -> Image.Image:
    """The image in RGB, turned as its camera says, on white. Raises InputError with the file's name."""
    try:
        with Image.open(file) as image:
            count = getattr(image, "n_frames", 1) if image.format in ANIMATIONS else 1
            if count > 1:
                right = "give one image for each frame, or a video file as video="
                raise InputError(f"{file}: an animation or a file of {count} pages; {right}")
            upright = ImageOps.exif_transpose(image)
    except InputError:
        raise
    except (
        OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise InputError(f"{file}: no image that can be read, or one cut short ({error})") from error
    if upright.mode.startswith("I;16"):
        # Pillow's conversion clips values above 255.
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise InputError(f"{file}: has 32 bits a pixel in one channel; store it with 8 or 16")
    try:
        return opaque(upright)
    except ValueError as error:
        raise InputError(f"{file}: its colours are {upright.mode}; store it as RGB") from error


def opaque(image: Image.Image) -> Image.Image:
    """The image in RGB, with white behind its transparent parts."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
