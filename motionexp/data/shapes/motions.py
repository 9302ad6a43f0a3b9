"""Paths of objects and of the camera: position, size and angle in every frame.

Lengths are in pixels of a 64 x 64 frame, x to the right and y downwards; angles in radians, clockwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from motionexp.data.shapes.grammar import MOTIONS

CENTRE = 32.0
Array = np.ndarray
Rng = np.random.Generator
# What a motion changes: some of `Path`'s values by their names, for the times u (F,) from 0 to 1.
Variation = dict[str, Array]


@dataclass(frozen=True)
class Path:
    """A motion in ``F`` frames.

    Attributes:
        offset: (F, 2) displacement of the object in the scene, pixels.
        scale: (F,) factor on the object's size.
        angle: (F,) turn of the object, radians.
        pan: (F, 2) where the camera's centre is in the scene, pixels from its start.
        zoom: (F,) magnification by the camera.
    """

    offset: Array
    scale: Array
    angle: Array
    pan: Array
    zoom: Array


def _still(u: Array) -> Variation:
    zeros, ones = np.zeros((len(u), 2)), np.ones(len(u))
    return {"offset": zeros, "scale": ones, "angle": np.zeros(len(u)), "pan": zeros, "zoom": ones}


def _line(u: Array, rng: Rng, name: str, lengths: tuple[float, float], to: tuple[int, int]) -> Variation:
    return {name: (u[:, None] - 0.5) * rng.uniform(*lengths) * np.array(to)}


def _arc(u: Array, rng: Rng, direction: int) -> Variation:
    radius, height = rng.uniform(13, 16), rng.uniform(16, 20)
    # Half an ellipse; y points down, so that the middle of the arc is its top.
    phase = np.pi * u
    return {"offset": np.stack([-direction * radius * np.cos(phase), height * (0.5 - np.sin(phase))], 1)}


def _circle(u: Array, rng: Rng, direction: int) -> Variation:
    radius, start = rng.uniform(11, 14), rng.uniform(-0.5, 0.5)
    # y points down, so that a growing phase turns clockwise; -pi/2 begins at the top.
    phase = direction * 2 * np.pi * u - np.pi / 2 + start
    return {"offset": radius * np.stack([np.cos(phase), np.sin(phase)], 1)}


def _grow(u: Array, rng: Rng, name: str, factor: float) -> Variation:
    # Geometric: the logarithm of the size grows evenly, as `object_motion` measures growth.
    return {name: factor ** ((2 * u - 1) * rng.uniform(0.9, 1.1))}


def _spin(u: Array, rng: Rng) -> Variation:
    return {"angle": u * rng.uniform(0.9, 1.1) * 1.4 * np.pi}


def _bounce(u: Array, rng: Rng) -> Variation:
    height, phase = rng.uniform(20, 26), rng.uniform(0, 0.25)
    # |sin| has its corners on the floor, where a ball turns at once.
    y = height * (0.5 - np.abs(np.sin(np.pi * (2 * u + phase))))
    return {"offset": np.stack([np.zeros_like(u), y], 1)}


def _sway(u: Array, rng: Rng) -> Variation:
    width, phase = rng.uniform(11, 14), rng.uniform(-0.3, 0.3)
    return {"offset": np.stack([width * np.sin(2 * np.pi * 1.5 * u + phase), np.zeros_like(u)], 1)}


def _wander(u: Array, rng: Rng) -> Variation:
    frequencies = np.array([0.5, 1.0, 1.5])
    # Slow waves are larger: a smooth path, not a jitter.
    weights = rng.normal(size=(3, 2)) / frequencies[:, None]
    phases = rng.uniform(0, 2 * np.pi, size=(3, 2))

    def wave(at: Array) -> Array:
        return (np.sin(2 * np.pi * at[:, None, None] * frequencies[:, None] + phases) * weights).sum(1)

    # Centred and scaled on 16 frames, so that the path is the same for any number of frames.
    course = wave(np.arange(16) / 15)
    middle = (course.max(0) + course.min(0)) / 2
    return {"offset": (wave(u) - middle) * rng.uniform(13, 16) / np.abs(course - middle).max()}


def _zigzag(u: Array, rng: Rng) -> Variation:
    side, teeth = rng.choice([-1, 1]), rng.uniform(1.9, 2.3)
    # A triangle wave from -1 to 1.
    wave = 2 * np.abs(2 * ((teeth * u + rng.uniform(0, 1)) % 1) - 1) - 1
    return {"offset": np.stack([side * (u - 0.5) * rng.uniform(26, 30), wave * rng.uniform(9, 12)], 1)}


def _hop(u: Array, rng: Rng) -> Variation:
    side, height = rng.choice([-1, 1]), rng.uniform(12, 15)
    # Three hops; 4h(1 - h) is a parabola from 0 over 1 to 0.
    hops = 3 * u % 1
    y = height * (0.5 - 4 * hops * (1 - hops))
    return {"offset": np.stack([side * (u - 0.5) * rng.uniform(24, 28), y], 1)}


def _stop_and_go(u: Array, rng: Rng) -> Variation:
    direction = rng.uniform(0, 2 * np.pi)
    # The share of the way that is covered: half, a rest, and the other half.
    gone = np.interp(u, [0, 0.22, 0.5, 0.72, 1.0], [0, 0.5, 0.5, 1.0, 1.0])
    return {"offset": (gone[:, None] - 0.5) * 30 * np.array([np.cos(direction), np.sin(direction)])}


_move = partial(_line, name="offset", lengths=(26, 32))
_pan = partial(_line, name="pan", lengths=(24, 30))
_PATHS: dict[str, Callable[[Array, Rng], Variation]] = {
    "left": partial(_move, to=(-1, 0)),
    "right": partial(_move, to=(1, 0)),
    "up": partial(_move, to=(0, -1)),
    "down": partial(_move, to=(0, 1)),
    "arc_left": partial(_arc, direction=-1),
    "arc_right": partial(_arc, direction=1),
    "circle_clockwise": partial(_circle, direction=1),
    "circle_counterclockwise": partial(_circle, direction=-1),
    "grow": partial(_grow, name="scale", factor=1.5),
    "shrink": partial(_grow, name="scale", factor=1 / 1.5),
    "spin": _spin,
    "bounce": _bounce,
    "sway": _sway,
    "pan_left": partial(_pan, to=(-1, 0)),
    "pan_right": partial(_pan, to=(1, 0)),
    "zoom_in": partial(_grow, name="zoom", factor=1.5),
    "zoom_out": partial(_grow, name="zoom", factor=1 / 1.5),
    "wander": _wander,
    "zigzag": _zigzag,
    "hop": _hop,
    "stop_and_go": _stop_and_go,
}
assert tuple(_PATHS) == MOTIONS, "every motion of the grammar has a path, in its order"


def path(motion: str, frames: int, seed: int, period: int | None = None) -> Path:
    """Return a motion's path. Two videos of one motion differ by ``seed``.

    Args:
        motion: one of ``grammar.MOTIONS``.
        frames: F, the number of frames.
        seed: of the path's variation (length, radius, phase).
        period: frames in which the motion runs once; default ``frames``. A path of 17 frames with
            ``period=16`` begins with the path of 16 frames.
    """
    # u is (F,), from 0 at the first frame to 1 at the last of the period.
    u = np.arange(frames) / max((period or frames) - 1, 1)
    return Path(**(_still(u) | _PATHS[motion](u, np.random.default_rng(seed))))
