"""Many frames or videos in one picture, for the eye."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from motionexp.data.videos.writing import checked


def contact_sheet(frames: np.ndarray, columns: int = 8) -> np.ndarray:
    """All of `frames` (F, H, W, 3) uint8, row by row, two white pixels apart; returns (H', W', 3) uint8."""
    count, height, width, _ = checked(frames).shape
    columns, gap = min(columns, count), 2
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = frame
    return sheet


def side_by_side(rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str]) -> np.ndarray:
    """One video of a grid of videos that play together, for the eye.

    `rows` are a label, usually the caption, written above the row ("" for none), and one video (F, H, W, 3)
    uint8 for each of `columns`, whose labels stand on top. All videos have one shape. Those narrower than 192
    pixels are enlarged by a whole factor without smoothing. Returns (F, H', W', 3) uint8.
    """
    shapes = {checked(video).shape for _, videos in rows for video in videos}
    if len(shapes) != 1 or any(len(videos) != len(columns) for _, videos in rows):
        raise ValueError(
            f"{len(columns)} videos of one shape are needed in each row; the shapes are {shapes}"
        )
    count, height, width, _ = shapes.pop()
    scale, gap = math.ceil(192 / width), 8
    height, width = height * scale, width * scale
    total = gap + len(columns) * (width + gap)
    lefts = [gap + index * (width + gap) for index in range(len(columns))]
    heads = [_label(name, width) for name in columns]
    strips = [(_label(text, total - 2 * gap), videos) for text, videos in rows]
    top = gap + max(head.height for head in heads) + gap // 2
    canvas = Image.new("RGB", (total, top + sum(label.height + height + gap for label, _ in strips)), "white")
    for left, head in zip(lefts, heads, strict=True):
        canvas.paste(head, (left, gap))
    grid = np.repeat(np.asarray(canvas)[None], count, axis=0)
    for label, videos in strips:
        grid[:, top : top + label.height, gap : gap + label.width] = np.asarray(label)
        top += label.height
        for left, video in zip(lefts, videos, strict=True):
            grid[:, top : top + height, left : left + width] = video.repeat(scale, axis=1).repeat(
                scale, axis=2
            )
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
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 15)
