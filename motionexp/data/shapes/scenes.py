"""A scene holds everything that determines a video of the bundled world. It is drawn from a seed."""

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from motionexp.config.renames import STRATUM_VALUES
from motionexp.data.shapes import grammar, motions
from motionexp.data.shapes.motions import CENTRE, Array

RADIUS = 10.0
PAIR_RADIUS = 7.5
# Release 0.0 had other words for strata. Its words stay in the seeds, so that the videos stay the same. For
# the same reason strings such as seeded("companion", ...) and seeded("rival", ...) keep their old words.
SEED_WORDS = {new: old for values in STRATUM_VALUES.values() for old, new in values.items()}


@dataclass(frozen=True)
class Thing:
    """One object: its captioned appearance and motion, and what no caption names (``size`` in pixels)."""

    colour: str
    surface: str
    shape: str
    motion: str
    motion_seed: int
    centre: tuple[float, float]
    size: float
    shade: float
    tilt: float


@dataclass(frozen=True)
class Nuisances:
    """What no caption names: the background texture, distractors (x, y, radius, sign) and the light.

    ``phase`` and ``orientation`` are the texture's shift and turn.
    """

    phase: tuple[float, float]
    orientation: float
    distractors: tuple[tuple[float, float, float, float], ...]
    light: float


@dataclass(frozen=True)
class Truth:
    """Per-frame ground truth of one object on the screen, in pixels and radians.

    Attributes:
        position: (F, 2). velocity: (F - 1, 2). size: (F,). angle: (F,). pan: (F, 2). zoom: (F,).
    """

    position: Array
    velocity: Array
    size: Array
    angle: Array
    pan: Array
    zoom: Array


@dataclass(frozen=True)
class Scene:
    """One video's complete description. ``render.render`` makes the pixels.

    ``chroma`` multiplies the colour contrast of the objects, and captions leave ``unnamed`` out.
    """

    things: tuple[Thing, ...]
    background: str
    contrast: str
    nuisances: Nuisances
    chroma: float = 1.0
    unnamed: str = ""

    @cached_property
    def caption(self) -> str:
        """The caption in the grammar's words."""
        return self._caption(still=False)

    @cached_property
    def still_caption(self) -> str:
        """The caption of any single frame: without the motion."""
        return self._caption(still=True)

    def _caption(self, *, still: bool) -> str:
        things = [asdict(thing) for thing in self.things]
        return grammar.caption(things, self.background, self.contrast, still=still, unnamed=self.unnamed)

    @property
    def attributes(self) -> dict[str, str]:
        """Captioned attributes of the first object, the background and the motion."""
        first = self.things[0]
        appearance = {name: getattr(first, name) for name in ("colour", "surface", "shape")}
        return appearance | {"background": self.background, "motion": first.motion}

    def truth(self, frames: int, period: int | None = None, thing: int = 0) -> Truth:
        """Return the ground truth of object ``thing`` in ``frames`` frames."""
        spec = self.things[thing]
        path = motions.path(spec.motion, frames, spec.motion_seed, period)
        # Two objects move half as far, so that neither leaves its half of the frame.
        scale, room = (spec.size / RADIUS, 0.7) if len(self.things) > 1 else (1.0, 1.0)
        offset = path.offset * scale * room
        scene_position = np.asarray(spec.centre) + offset
        # (F, 2) on the screen: first the camera's pan, then its zoom about the middle of the frame.
        position = (scene_position - CENTRE - path.pan) * path.zoom[:, None] + CENTRE
        size = spec.size * path.scale * path.zoom
        return Truth(position, np.diff(position, axis=0), size, path.angle + spec.tilt, path.pan, path.zoom)


def seeded(*keys: str | int) -> np.random.Generator:
    """Return a generator that depends on the keys alone."""
    # Release 0.0's words in the hash: see SEED_WORDS.
    words = (SEED_WORDS.get(key, key) if isinstance(key, str) else key for key in keys)
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def draw_nuisances(rng: np.random.Generator) -> Nuisances:
    """Draw what no caption names of a scene."""

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    # The order of the draws is part of every video: another order gives other pixels.
    distractors = tuple(
        (uniform(4, 60), uniform(4, 60), uniform(3, 5), float(rng.choice([-1, 1])))
        for _ in range(int(rng.integers(2, 4)))
    )
    phase = (uniform(0, 2 * np.pi), uniform(0, 2 * np.pi))
    return Nuisances(phase, uniform(-0.35, 0.35), distractors, uniform(0, 2 * np.pi))


def _draw_motion(rng: np.random.Generator, shape: str, choices: tuple[str, ...]) -> str:
    manner = grammar.MANNERS[shape]
    if manner in choices and rng.random() < grammar.COUPLING:
        return manner
    return str(rng.choice([motion for motion in choices if grammar.is_visible(shape, motion)]))


def draw_thing(rng: np.random.Generator, appearance: dict[str, str], motion: str, side: int = 0) -> Thing:
    """Draw what no caption names of an object; ``side`` is 0 for a lone object, -1 or 1 in a pair."""
    # Two objects are smaller, and 15 pixels from the middle, so that their paths do not meet.
    radius = RADIUS if side == 0 else PAIR_RADIUS
    centre = np.array([CENTRE + 15 * side, CENTRE]) + rng.uniform(-3, 3, size=2)
    return Thing(
        colour=appearance["colour"],
        surface=appearance["surface"],
        shape=appearance["shape"],
        motion=motion,
        motion_seed=int(rng.integers(2**31)),
        centre=(float(centre[0]), float(centre[1])),
        size=float(radius * rng.uniform(0.88, 1.12)),
        shade=float(rng.uniform(-0.08, 0.08)),
        tilt=float(rng.uniform(-0.15, 0.15)),
    )


def draw(
    rng: np.random.Generator,
    *,
    contrast: str,
    choices: tuple[str, ...],
    objects: int = 1,
    held_out: bool = False,
) -> Scene:
    """Draw a scene of one or two objects.

    Args:
        rng: source of every choice.
        contrast: ``motion-dominant`` or ``appearance-dominant``.
        choices: motions to draw from; camera motions are left out of scenes with two objects.
        objects: 1 or 2.
        held_out: draw among the combinations of attributes that pretraining never shows, or among the rest.
    """
    things: list[Thing] = []
    background = ""
    kinds = choices if objects == 1 else tuple(m for m in choices if m not in grammar.CAMERA_PHRASES)
    for index in range(objects):
        # Draw until the background is the first object's and some motion is visible on the object.
        while True:
            appearance = {name: str(rng.choice(values)) for name, values in grammar.ATTRIBUTES.items()}
            fits = background in ("", appearance["background"]) and any(
                grammar.is_visible(appearance["shape"], kind) for kind in kinds
            )
            if fits and grammar.is_held_out(**appearance) == held_out:
                break
        background = appearance["background"]
        motion = _draw_motion(rng, appearance["shape"], kinds)
        things.append(draw_thing(rng, appearance, motion, side=0 if objects == 1 else (-1, 1)[index]))
    return Scene(tuple(things), background, contrast, draw_nuisances(rng))


def pretraining_scene(index: int) -> Scene:
    """Return scene ``index`` of the endless pretraining part.

    A fifth are appearance-dominant, a tenth have two objects, a fifth have an uncaptioned motion.
    """
    rng = seeded("pretraining", index)
    contrast = "appearance-dominant" if rng.random() < 0.2 else "motion-dominant"
    objects = 2 if rng.random() < 0.1 else 1
    choices = grammar.UNCAPTIONED if rng.random() < 0.2 else grammar.CAPTIONED
    return draw(rng, contrast=contrast, choices=choices, objects=objects)


def edited(scene: Scene, changes: dict[str, str]) -> Scene:
    """Return the scene with captioned attributes of its first object or its background replaced."""
    appearance: dict[str, Any] = dict(changes)
    background = appearance.pop("background", scene.background)
    first = replace(scene.things[0], **appearance)
    return replace(scene, things=(first, *scene.things[1:]), background=background)
