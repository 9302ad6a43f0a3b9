"""The images of a folder as the frames of one video. What is not one sequence raises `InputError`."""

import os
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from motionexp.errors import InputError
from motionexp.files import user_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 36_000_000
"""Pixels of a frame: 8K film has 8192 x 4320. A header of few bytes can claim far more."""
SAME_ASPECT = 0.01
"""By how much two ratios of width to height may differ: a model's sides are multiples of 16, say."""
# Of Pillow's formats, one runs a program: it hands PostScript to Ghostscript, whatever the file is called.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
# A phone's MPO holds a depth map or a second view behind the photo, and counts as two frames.
ANIMATIONS = ("GIF", "PNG", "WEBP", "TIFF")


def image_files(folder: Path) -> list[Path]:
    """The images of one sequence in the order of their numbers: 2.png comes before 10.png.

    Raises InputError where the names are no single sequence: texts differ (frames and masks), a number comes
    twice (a frame and its mask, of two suffixes), or no number counts all images.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    # Names that begin with a dot are not images but what other systems store beside them.
    if not (visible := [file for file in files if not file.name.startswith(".")]):
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    if len(visible) == 1:
        return visible
    # Texts are at even places of a split name, numbers at odd places.
    parts = [re.compile(r"(\d+)", re.ASCII).split(file.stem.lower()) for file in visible]
    right = "a folder of frames holds one sequence, with one number that counts its frames"
    for file, part in zip(visible, parts, strict=True):
        if part[::2] != parts[0][::2]:
            raise InputError(f"{folder}: {visible[0].name} and {file.name} are two kinds of images; {right}")
    columns = [[int(digits) for digits in column] for column in list(zip(*parts, strict=True))[1::2]]
    counters = [column for column in columns if len(set(column)) == len(visible)]
    # The places of the images by each number that counts them: a time in the names may count them too.
    orders = {tuple(sorted(range(len(visible)), key=column.__getitem__)) for column in counters}
    if len(orders) != 1:
        raise InputError(f"{folder}: {_doubt(visible, list(zip(*columns, strict=True)))}; {right}")
    return [visible[place] for place in orders.pop()]


def _doubt(files: list[Path], numbers: list[tuple[int, ...]]) -> str:
    """Why the numbers in the names do not count the images."""
    first_of = dict[tuple[int, ...], Path]()
    for file, number in zip(files, numbers, strict=True):
        if number in first_of:
            return f"{first_of[number].name} and {file.name} have one number"
        first_of[number] = file
    return f"from {files[0].name} to {files[-1].name} no single number counts the images"


def load_image(file: Path) -> Image.Image:
    """The image in RGB, turned as its camera says, on white. Raises InputError with the file's name."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            count = getattr(image, "n_frames", 1) if image.format in ANIMATIONS else 1
            if count > 1:
                right = "give one image for each frame, or a video file as video="
                raise InputError(f"{file}: an animation or a file of {count} pages; {right}")
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{file}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read"
                )
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


def read_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB of the size (H, W), turned as its camera says, on white.

    Raises InputError where there is no such image, or its aspect is not that of the size, to 1%.
    """
    file, (height, width) = user_path(path), size
    if not os.path.isfile(file):  # Path.is_file raises OSError for a name that is too long
        raise InputError(f"{path}: there is no such image")
    image = load_image(file)
    if abs(image.width * height / (image.height * width) - 1) > SAME_ASPECT:
        scale = min(image.width / width, image.height / height)
        crop = f"{round(width * scale)} x {round(height * scale)}"
        raise InputError(
            f"{path}: {image.width} x {image.height} pixels, and the videos have {width} x {height}: crop it"
            f" to that aspect, for instance to {crop} pixels"
        )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def opaque(image: Image.Image) -> Image.Image:
    """The image in RGB, with white behind its transparent parts."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
