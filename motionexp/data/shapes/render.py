"""Pixels of the bundled world: deterministic and anti-aliased, with numpy alone.

Values are RGB in [-1, 1] until the last step. Luminance is the mean of the three channels. A hue is a
direction in the plane orthogonal to luminance, so colours of one chroma have equal luminance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.data.shapes import motions
from motionexp.data.shapes.grammar import BACKGROUNDS, COLOURS
from motionexp.data.shapes.motions import CENTRE, Array
from motionexp.data.shapes.scenes import Scene, Thing

# Of every bundled model; a scene's lengths are in these pixels.
SIZE = 64
FPS = 8.0
FRAMES = 16


@dataclass(frozen=True)
class Contrast:
    """Amplitudes of one contrast, in units of [-1, 1]. They are chosen for the energies of the factors."""

    background: float
    thing: float
    chroma: float
    surface: float
    tint: float
    pattern: float
    distractor: float
    light: float


CONTRAST = {
    "motion-dominant": Contrast(-0.35, 0.45, 0.25, 0.30, 0.08, 0.10, 0.10, 0.10),
    "appearance-dominant": Contrast(-0.20, 0.20, 0.75, 0.28, 0.60, 0.06, 0.06, 0.04),
}


def hue(degrees: float) -> Array:
    """Return the unit RGB direction of zero luminance at a hue angle (0 is red, 120 green, 240 blue)."""
    angle = np.deg2rad(degrees)
    red, green_blue = np.array([2, -1, -1]) / np.sqrt(6), np.array([0, 1, -1]) / np.sqrt(2)
    return np.cos(angle) * red + np.sin(angle) * green_blue


_COLOUR = {name: hue(45 * index) for index, name in enumerate(COLOURS)}
_TINT = {name: hue(60 * index) for index, name in enumerate(BACKGROUNDS)}


_OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.84,
    "triangle": lambda x, y: np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.68,
    "star": lambda x, y: (np.hypot(x, y) - 0.85 - 0.32 * np.cos(5 * (np.arctan2(y, x) + np.pi / 2))) * 0.6,
    "cross": lambda x, y: np.minimum(
        np.maximum(np.abs(x) - 1.08, np.abs(y) - 0.4), np.maximum(np.abs(y) - 1.08, np.abs(x) - 0.4)
    ),
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 1.08, 0.72 - np.hypot(x - 0.62, y)),
}
"""Signed distances, negative inside, in units of the object's size; y points down."""

_SURFACES: dict[str, Callable[[Array, Array], Array]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "striped": lambda x, y: np.sin(2 * np.pi * (x + 0.6 * y) / 1.4),
    "checked": lambda x, y: 0.7 * (np.cos(2 * np.pi * x / 1.5) - np.cos(2 * np.pi * y / 1.5)),
    "ringed": lambda x, y: 0.3 + np.cos(2 * np.pi * np.hypot(x, y) / 1.2),
}

_PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "brick": lambda x, y: np.sin(x / 2.6) * np.sign(np.sin(y / 3.2)) * 0.8 + 0.6 * np.sin(y / 1.6),
    "sand": lambda x, y: np.sin((x + y) / 3.1) + 0.4 * np.sin((x - 0.7 * y) / 1.9),
    "grass": lambda x, y: np.sin(x / 2.2) + 0.5 * np.sin(x / 1.1 + np.sin(y / 6)),
    "ice": lambda x, y: np.sin(x / 5 + 1.5 * np.sin(y / 6)) + 0.6 * np.sin(y / 4.5 + np.sin(x / 5)),
    "water": lambda x, y: np.sin(y / 2.4 + 1.2 * np.sin(x / 6)) + 0.4 * np.sin(y / 1.2 + np.sin(x / 5)),
    "heather": lambda x, y: 1.4 * np.sin(x / 2.6) * np.sin(y / 2.6),
}
"""Zero-mean background textures of unit order; lengths in pixels. Energy falls with frequency."""


def _background(scene: Scene, pan: Array, zoom: Array) -> Array:
    """Return the background (K, 64, 64, 3) at K camera positions (K, 2) and magnifications (K,)."""
    contrast, nuisances = CONTRAST[scene.contrast], scene.nuisances
    pixels = np.arange(SIZE) + 0.5 - CENTRE
    # x and y are (K, 1, 64) and (K, 64, 1): where the scene's pixels are, seen from the camera.
    x = pixels[None, None, :] / zoom[:, None, None] + pan[:, 0, None, None]
    y = pixels[None, :, None] / zoom[:, None, None] + pan[:, 1, None, None]
    cos, sin = np.cos(nuisances.orientation), np.sin(nuisances.orientation)
    # (K, 64, 64) coordinates, turned by the texture's orientation.
    u, v = cos * x + sin * y, cos * y - sin * x
    pattern = _PATTERNS[scene.background](u + 3 * nuisances.phase[0], v + 3 * nuisances.phase[1])
    luminance = contrast.background + contrast.pattern * pattern
    for place_x, place_y, radius, sign in nuisances.distractors:
        # A Gaussian spot, bright or dark.
        square = (x - (place_x - CENTRE)) ** 2 + (y - (place_y - CENTRE)) ** 2
        luminance = luminance + contrast.distractor * sign * np.exp(-square / (2 * (radius / 1.5) ** 2))
    return luminance[..., None] + contrast.tint * _TINT[scene.background]


def _draw_thing(
    video: Array, scene: Scene, thing: Thing, index: int, select: Array, frames: int, period: int
) -> None:
    """Paint one object over ``video`` (K, 64, 64, 3) in place."""
    contrast = CONTRAST[scene.contrast]
    truth = scene.truth(frames, period, index)
    position, size, angle = truth.position[select], truth.size[select], truth.angle[select]
    pixels = np.arange(SIZE) + 0.5
    dx = (pixels[None, None, :] - position[:, 0, None, None]) / size[:, None, None]
    dy = (pixels[None, :, None] - position[:, 1, None, None]) / size[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    # (K, 64, 64) coordinates of the object: turned with it, 1 at its size.
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    # The distance in pixels, cut to a ramp of one pixel: the share of each pixel that is covered.
    coverage = np.clip(0.5 - _OUTLINES[thing.shape](x, y) * size[:, None, None], 0, 1)
    light = np.cos(scene.nuisances.light) * dx + np.sin(scene.nuisances.light) * dy
    luminance = (
        contrast.thing
        + thing.shade * contrast.light / CONTRAST["motion-dominant"].light
        + contrast.light * light
        + contrast.surface * _SURFACES[thing.surface](x, y)
    )
    colour = luminance[..., None] + contrast.chroma * scene.chroma * _COLOUR[thing.colour]
    # Blends (K, 64, 64, 3) colours over what is there.
    video += coverage[..., None] * (colour - video)


def render(
    scene: Scene, frames: int = FRAMES, *, period: int | None = None, select: Sequence[int] | None = None
) -> Array:
    """Render a scene.

    Args:
        scene: what to show.
        frames: length of the whole video.
        period: frames in which the motion runs its course once (default ``frames``).
        select: indices of the frames to render (default all).

    Returns:
        uint8 RGB of shape (len(select), 64, 64, 3).
    """
    chosen = np.arange(frames) if select is None else np.asarray(select)
    first = scene.things[0]
    camera = motions.path(first.motion, frames, first.motion_seed, period)
    pan, zoom = camera.pan[chosen], camera.zoom[chosen]
    moving_camera = bool(np.ptp(camera.zoom) or np.ptp(camera.pan))
    # A camera at rest sees one background (1, 64, 64, 3), which is repeated for every frame.
    video = _background(scene, pan, zoom) if moving_camera else _background(scene, pan[:1], zoom[:1])
    if len(video) < len(chosen):
        video = np.repeat(video, len(chosen), axis=0)
    # The second object is painted over the first.
    for index, thing in enumerate(scene.things):
        _draw_thing(video, scene, thing, index, chosen, frames, period or frames)
    return np.round((np.clip(video, -1, 1) + 1) * 127.5).astype(np.uint8)
