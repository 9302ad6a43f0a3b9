"""Single frames with their captions, and with captions that are wrong in one attribute."""

from collections.abc import Iterator

import numpy as np

from motionexp.data.shapes.grammar import ATTRIBUTES, CAPTIONED, UNCAPTIONED, is_held_out
from motionexp.data.shapes.render import FRAMES, render
from motionexp.data.shapes.scenes import Scene, draw, edited, seeded
from motionexp.metrics.encoders import ImageTextModel
from motionexp.scripts.pretrain.videos import PretrainingVideos

PARTS = ("motion-dominant", "held out", "appearance-dominant", "pairs")


def neighbours(scene: Scene) -> Iterator[tuple[str, Scene]]:
    """Yield (attribute, scene) for every scene that differs in one visible attribute: 20 of them.

    Of two objects, it is the first that differs.
    """
    for attribute, values in ATTRIBUTES.items():
        for value in values:
            if value != scene.attributes[attribute]:
                yield attribute, edited(scene, {attribute: value})


def may_be_shown(scene: Scene) -> bool:
    """Return whether pretraining may show this scene's first object."""
    return not is_held_out(**{name: scene.attributes[name] for name in ATTRIBUTES})


def shown_neighbour(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """Draw a scene that differs in ``attribute`` alone, among those that pretraining may show.

    A wrong caption must not name a held-out combination either: the model would learn that it is always
    wrong. Where all values of the attribute are held out, the scene differs in another attribute.
    """
    for name in (attribute, *ATTRIBUTES):
        for value in rng.permutation(ATTRIBUTES[name]):
            neighbour = edited(scene, {name: str(value)})
            if value != scene.attributes[name] and may_be_shown(neighbour):
                return neighbour
    raise AssertionError("every neighbour of a scene is held out")


class CaptionedFrames:
    """Frames of the pretraining videos with their scenes.

    Args:
        videos: rendered.
    """

    def __init__(self, videos: PretrainingVideos) -> None:
        self.videos = videos
        self.scenes = videos.scenes()
        captions = [scene.still_caption for scene in self.scenes]
        self._appearance = np.unique(captions, return_inverse=True)[1]

    def rows(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw ``size`` videos (size,) with different still captions, so that each is right for one video."""
        drawn = rng.integers(len(self.scenes), size=2 * size)
        return drawn[np.sort(np.unique(self._appearance[drawn], return_index=True)[1])][:size]

    def captions(self, scenes: list[Scene], rng: np.random.Generator) -> list[str]:
        """Return a caption for each scene, with the motion for about half of them."""
        return [scene.caption if rng.random() < 0.5 else scene.still_caption for scene in scenes]


def unseen_scenes(
    part: str, count: int, seed: str = "unseen", motions: tuple[str, ...] = (*CAPTIONED, *UNCAPTIONED)
) -> list[Scene]:
    """Draw scenes that no training has seen, of a part of `PARTS`.

    Those held out are motion-dominant, with combinations of appearance that pretraining never shows.
    Pairs have two objects.

    Args:
        part: also seeds the scenes.
        count: how many.
        seed: also seeds the scenes.
        motions: to choose from.
    """
    return [
        draw(
            seeded(seed, part, index),
            contrast="appearance-dominant" if part == "appearance-dominant" else "motion-dominant",
            choices=motions,
            objects=2 if part == "pairs" else 1,
            held_out=part.replace("_", " ") == "held out",
        )
        for index in range(count)
    ]


def caption_accuracy(model: ImageTextModel, scenes: list[Scene], *, motion: bool = False) -> dict[str, float]:
    """Measure how often a frame's caption scores higher than the captions that differ in one attribute.

    Args:
        model: maps frames and captions to unit vectors.
        scenes: one frame of each is shown.
        motion: compare the captions of videos, not of single frames.

    Returns:
        shares in 0..1: for each attribute, right among the captions that differ in it; ``all``: right among
        all 21.
    """
    rng = np.random.default_rng(0)
    frames = model.embed_frames(
        np.concatenate([render(scene, select=[int(rng.integers(FRAMES))]) for scene in scenes])
    )
    right: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, "all")}
    for scene, features in zip(scenes, frames, strict=True):
        names, near = zip(*neighbours(scene), strict=True)
        captions = [one.caption if motion else one.still_caption for one in (scene, *near)]
        scores = (model.embed_captions(captions) @ features).numpy()  # (21,), the right caption first
        beaten = scores[0] > scores[1:]
        for name in ATTRIBUTES:
            right[name].append(bool(beaten[np.array(names) == name].all()))
        right["all"].append(bool(beaten.all()))
    return {name: float(np.mean(values)) for name, values in right.items()}
