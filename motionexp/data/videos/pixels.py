"""The picture that a player shows of a decoded frame: upright, in RGB, with square pixels."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from motionexp.data.videos.hdr import HLG, PQ, tone_mapped
from motionexp.data.videos.pictures import MAX_PIXELS, opaque
from motionexp.errors import InputError

# Encoders round sizes to even numbers, and write the ratio that this made.
SQUARE = Fraction(1, 100)
# The codes of ITU-T H.273, by which files name their colours.
UNREADABLE_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE 428"}
UNREADABLE_MATRICES = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085", 12: "derived from its primaries",
    13: "derived from its primaries", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
TO_BT709 = " -vf zscale=matrix=709:transfer=709:primaries=709"
"""FFmpeg's filter of zimg, which reads all of these."""
ROTATIONS = {
    0: [],
    90: [Image.Transpose.ROTATE_90],
    180: [Image.Transpose.ROTATE_180],
    270: [Image.Transpose.ROTATE_270],
}
UNSPECIFIED, BT2020 = 2, 9
"""Of a colour matrix and of primaries."""


class Pictures:
    """Converts the frames of one video file, whose pixels all have one ratio of width to height."""

    def __init__(self, path: Path, pixel_ratio: Fraction | None) -> None:
        self.path, self.pixel_ratio = path, pixel_ratio or Fraction(1)

    def __call__(self, frame: Any) -> Image.Image:
        """One frame in RGB, on white. It has passed `check`."""
        transparent = any(component.is_alpha for component in frame.format.components)
        if frame.color_trc in (PQ, HLG):
            image = Image.fromarray(_from_hdr(frame, transparent))
        else:
            image = Image.fromarray(frame.to_ndarray(format="rgba" if transparent else "rgb24"))
        if abs(self.pixel_ratio - 1) > SQUARE:
            size = (max(1, round(image.width * self.pixel_ratio)), image.height)
            image = image.resize(size, Image.Resampling.BICUBIC)
        for step in _turns(frame) or ():
            image = image.transpose(step)
        return opaque(image)

    def check(self, frame: Any) -> None:
        """Raises InputError for a size, colours, fields or a turn of a frame that are not supported."""
        self.check_size(frame.width, frame.height)
        if frame.interlaced_frame:
            self._refuse(
                "its frames are interlaced: each has the lines of two times", " -vf bwdif=send_frame"
            )
        if _turns(frame) is None:
            self._refuse("its display matrix turns it by no multiple of 90 degrees")
        if frame.color_trc in UNREADABLE_TRANSFERS:
            curve = UNREADABLE_TRANSFERS[frame.color_trc]
            self._refuse(f"its transfer curve is {curve}", TO_BT709)
        if frame.color_trc in (PQ, HLG) and frame.color_primaries not in (UNSPECIFIED, BT2020):
            self._refuse("it is HDR with primaries other than BT.2020's", TO_BT709)
        if frame.colorspace in UNREADABLE_MATRICES:
            matrix = UNREADABLE_MATRICES[frame.colorspace]
            self._refuse(f"its colour matrix is {matrix}", TO_BT709)

    def check_size(self, width: int, height: int) -> None:
        """Raises InputError for frames of no pixels, or more than `MAX_PIXELS`, as stored or as shown."""
        shown = round(width * max(self.pixel_ratio, Fraction(1)))
        if not 0 < shown * height <= MAX_PIXELS:
            size = f"are {shown} x {height} pixels" if shown * height else "have no size, or a larger one"
            raise InputError(
                f"{self.path}: its frames {size}; at most {MAX_PIXELS:,} pixels a frame are read"
            )

    def _refuse(self, wrong: str, options: str = "") -> NoReturn:
        raise InputError(f"{self.path}: {wrong}; convert it: ffmpeg -i {self.path.name}{options} out.mp4")


def _from_hdr(frame: Any, transparent: bool) -> np.ndarray:
    """(H, W, 3) uint8, or (H, W, 4) with the transparency."""
    if frame.colorspace == UNSPECIFIED:
        frame.colorspace = BT2020
    pixels = frame.to_ndarray(format="rgba64le" if transparent else "rgb48le")
    colours = tone_mapped(pixels[..., :3], frame.color_trc)
    return np.dstack([colours, (pixels[..., 3] >> 8).astype(np.uint8)]) if transparent else colours


def _turns(frame: Any) -> list[Image.Transpose] | None:
    """What makes a frame upright, as its display matrix says; None: no multiple of 90 degrees does."""
    try:
        entries = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:
        # Where one kind of data is unknown to PyAV, as of films with two views, it gives the angle alone.
        return ROTATIONS.get(frame.rotation % 360)
    if not entries:
        return []
    # x' = a x + c y and y' = b x + d y are the coordinates in the picture that is shown, in 1/65536.
    a, b, _, c, d = struct.unpack("=9i", bytes(entries[0]))[:5]
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    x, y, rest = (c, b, max(abs(a), abs(d))) if turned else (a, d, max(abs(b), abs(c)))
    # Up to a hundredth is rounding.
    if 100 * rest >= min(abs(x), abs(y)):
        return None
    turns = [Image.Transpose.TRANSPOSE] * turned
    turns += [Image.Transpose.FLIP_LEFT_RIGHT] * (x < 0)
    return turns + [Image.Transpose.FLIP_TOP_BOTTOM] * (y < 0)
