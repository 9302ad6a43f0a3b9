"""Frames and videos for the eye: enlarged, as a contact sheet, or side by side with labels.

Nothing here is scored: scores come from the exact frames.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from motionexp.data.videos.writing import checked

SHORTER_SIDE = 256
"""Pixels that the shorter side of a video or picture to look at has at least."""
TILE_SIDE = 192
"""The same for one of many tiles in a picture."""


def enlarged(frames: np.ndarray, shorter_side: int = SHORTER_SIDE) -> np.ndarray:
    """Frames (F, H, W, 3) uint8, smoothly enlarged by the least whole factor k to `shorter_side` or more.

    Lanczos interpolation. Returns (F, kH, kW, 3) uint8, and large frames (k = 1) as they are.
    """
    _, height, width, _ = checked(frames).shape
    factor = math.ceil(shorter_side / min(height, width))
    if factor == 1:
        return frames
    return _resized(frames, (width * factor, height * factor))


def as_tiles(frames: np.ndarray, side: int = TILE_SIDE) -> np.ndarray:
    """As `enlarged`, but large frames are reduced until their shorter side has `side` pixels.

    A grid of them can then be looked at as a whole: eight frames of 720 x 480 are 2304 pixels wide.
    """
    _, height, width, _ = checked(frames).shape
    shorter = min(height, width)
    # Up to this size a frame is shown as it is: reducing it by a little would only blur it.
    if shorter < 2 * side:
        return enlarged(frames, side)
    return _resized(frames, (round(width * side / shorter), round(height * side / shorter)))


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    images = (Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames)
    return np.stack([np.asarray(image) for image in images])


def contact_sheet(frames: np.ndarray, columns: int = 8) -> np.ndarray:
    """All of `frames` (F, H, W, 3) uint8, row by row, two white pixels apart; returns (H', W', 3) uint8.

    Its tiles are those of `as_tiles`.
    """
    tiles = as_tiles(frames)
    count, height, width, _ = tiles.shape
    columns, gap = min(columns, count), 2
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def side_by_side(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str], tile_side: int = TILE_SIDE
) -> np.ndarray:
    """One video of a grid of videos that play together.

    Args:
        rows: a label, usually the caption, which is written above the row ("" for none), and one video
            (F, H, W, 3) uint8 for each of `columns`. All videos have one shape.
        columns: labels at the top of the grid.
        tile_side: pixels of the shorter side of a video's tile; see `as_tiles`.

    Returns:
        (F, H', W', 3) uint8. Labels are drawn after the enlargement, so that they are sharp.
    """
    shapes = {checked(video).shape for _, videos in rows for video in videos}
    if len(shapes) != 1 or any(len(videos) != len(columns) for _, videos in rows):
        raise ValueError(f"each row needs {len(columns)} videos of one shape; the shapes are {shapes}")
    tiles = [(text, [as_tiles(video, tile_side) for video in videos]) for text, videos in rows]
    (count, height, width, _), gap = tiles[0][1][0].shape, 8
    total = gap + len(columns) * (width + gap)
    lefts = [gap + index * (width + gap) for index in range(len(columns))]
    # 1. Every label as a picture: the columns' in the width of a tile, the rows' in that of the grid.
    heads = [_label(name, width) for name in columns]
    strips = [(_label(text, total - 2 * gap), videos) for text, videos in tiles]
    # 2. A white canvas with the columns' labels, repeated for every frame: (F, H', W', 3).
    top = gap + max(head.height for head in heads) + gap // 2
    canvas = Image.new("RGB", (total, top + sum(label.height + height + gap for label, _ in strips)), "white")
    for left, head in zip(lefts, heads, strict=True):
        canvas.paste(head, (left, gap))
    grid = np.repeat(np.asarray(canvas)[None], count, axis=0)
    # 3. The rows from top to bottom: the label, then the enlarged videos.
    for label, videos in strips:
        grid[:, top : top + label.height, gap : gap + label.width] = np.asarray(label)
        top += label.height
        for left, video in zip(lefts, videos, strict=True):
            grid[:, top : top + height, left : left + width] = video
        top += height + gap
    return grid


def _label(text: str, width: int) -> Image.Image:
    """Black on white, `width` pixels wide, as many lines as the words need; no line for no words."""
    font, line_height = _font(), 21
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    image = Image.new("RGB", (width, line_height * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((0, index * line_height), line, fill="black", font=font)
    return image


@cache
def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has no Greek letter, and a column is called τ = 0.
    # The font of matplotlib is found without the import of matplotlib.
    package = find_spec("matplotlib")
    folder = Path(str(package and package.origin)).parent
    return ImageFont.truetype(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf", 15)
