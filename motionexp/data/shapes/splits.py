"""The bundled world's tuning split (12 references) and benchmark (76 references, 304 edits, in TGVE's form).

Both are disjoint from pretraining and from each other by seed. No combination of attributes is in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np

from motionexp.data.base import Description, Edit, Reference
from motionexp.data.checks import reference_named
from motionexp.data.shapes import grammar, motions
from motionexp.data.shapes.render import FPS, FRAMES, SIZE, render
from motionexp.data.shapes.scenes import Scene, draw, edited, seeded
from motionexp.data.shapes.variants import MOST_EXTRA_REFERENCES, extra_scenes, motion_edit, velocity_cosine
from motionexp.errors import InputError

EDIT_CHANGES = {
    "style": ("colour", "surface"),
    "object": ("shape",),
    "background": ("background",),
    "multiple": ("colour", "surface", "shape", "background"),
}
MOST_CHROMA = 2.0
"""With more, colours leave the range of pixels."""
ORDER = ("uncaptioned", "out-of-distribution", "captioned")
SPLITS: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "tuning": {"motion-dominant": (4, 4, 2), "appearance-dominant": (1, 1, 0)},
    "benchmark": {"motion-dominant": (24, 24, 12), "appearance-dominant": (6, 6, 4)},
}
"""How many references each split has of a contrast, for the motion strata of `ORDER`."""


@dataclass(frozen=True)
class Entry:
    """One reference before rendering: its name, scene, and one edited scene for each edit kind."""

    name: str
    scene: Scene
    edits: Mapping[str, Scene]


def _appearance(scene: Scene) -> tuple[str, ...]:
    return tuple(scene.attributes[name] for name in grammar.ATTRIBUTES)


def _edited(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """Replace each attribute that ``kind`` changes by another value, within what pretraining shows."""
    while True:
        changes = {}
        for name in EDIT_CHANGES[kind]:
            values = [value for value in grammar.ATTRIBUTES[name] if value != scene.attributes[name]]
            changes[name] = str(rng.choice(values))
        result = edited(scene, changes)
        appearance = dict(zip(grammar.ATTRIBUTES, _appearance(result), strict=True))
        # Drawn again until the edit shows: an edit that nobody can see would count as a failure of the model.
        visible = grammar.is_visible(appearance["shape"], scene.attributes["motion"])
        if visible and not grammar.is_held_out(**appearance):
            return result


@cache
def entries(split: str) -> tuple[Entry, ...]:
    """Return the split's references in their fixed order; motion-dominant ones first."""
    result: list[Entry] = []
    # The benchmark avoids the tuning split's combinations, and never two references share one.
    used = set() if split == "tuning" else {_appearance(entry.scene) for entry in entries("tuning")}
    for contrast, stratum in product(SPLITS[split], ORDER):
        kinds, count = grammar.STRATA[stratum], SPLITS[split][contrast][ORDER.index(stratum)]
        for index in range(count):
            rng = seeded(split, contrast, stratum, index)
            scene = draw(rng, contrast=contrast, choices=(kinds[index % len(kinds)],))
            # The generator goes on, so that a later reference does not change an earlier one.
            while _appearance(scene) in used:
                scene = draw(rng, contrast=contrast, choices=(kinds[index % len(kinds)],))
            used.add(_appearance(scene))
            first = scene.things[0]
            name = f"{len(result) + 1:02d}-{first.motion.replace('_', '-')}-{first.colour}-{first.shape}"
            edits = {kind: _edited(scene, kind, rng) for kind in EDIT_CHANGES}
            name = f"poster-{name}" if contrast == "appearance-dominant" else name
            result.append(Entry(name, scene, edits))
    return tuple(result)


def nearest_captioned(scene: Scene, frames: int = 16) -> str:
    """Return the captioned motion of objects whose velocities have the largest cosine with the scene's.

    Velocities are ground truth. Changes of size and angle are ignored.
    """
    target = scene.truth(frames).velocity

    def similarity(motion: str) -> float:
        # The mean of 8 variations (seeds), so that the comparison is with the motion and not with one path.
        paths = [motions.path(motion, frames, seed).offset for seed in range(8)]
        return velocity_cosine(np.diff(np.mean(paths, axis=0), axis=0), target)

    return max(grammar.OBJECT_PHRASES, key=similarity)


def caption_of_nearest_motion(reference: Reference, edit: Edit) -> str:
    """Return the edit's caption with the motion called by the nearest captioned motion's phrase."""
    if not isinstance(reference.truth, Scene):
        raise InputError(f"reference {reference.name}: {reference.suite} has no ground truth of its motion")
    if reference.truth.attributes["motion"] in grammar.CAPTIONED:
        return edit.caption
    phrase = grammar.OBJECT_PHRASES[nearest_captioned(reference.truth, len(reference.frames))]
    return edit.caption.replace(grammar.GENERIC_PHRASE, phrase)


@dataclass(frozen=True)
class ShapesReferences:
    """Reader of one split of the bundled world.

    Args:
        split: ``tuning`` or ``benchmark``.
        appearances: number of appearances in which an adapter sees a reference's motion: the reference, and
            one extra reference for each further appearance. More than one is written into the strata.
        chroma: factor of the objects' colour contrast. Another one than 1 is written into the strata.
        unnamed: what all captions leave out, ``colour``: the objects' colours, or ``appearance``: all but
            shapes and motions; written into the strata.
    """

    suite: ClassVar = "shapes"
    split: str = "benchmark"
    appearances: int = 1
    chroma: float = 1.0
    unnamed: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.appearances <= MOST_EXTRA_REFERENCES + 1:
            most = MOST_EXTRA_REFERENCES + 1
            raise InputError(f"data.appearances={self.appearances}: a whole number from 1 to {most}")
        if self.split not in SPLITS:
            raise InputError(f"split={self.split}: the bundled world has the splits {', '.join(SPLITS)}")
        if not 0 < self.chroma <= MOST_CHROMA:
            raise InputError(f"data.chroma={self.chroma}: a number above 0 and at most {MOST_CHROMA:g}")
        if self.unnamed not in grammar.UNNAMED:
            raise InputError(
                f"data.unnamed={self.unnamed}: colour or appearance; leave it out for whole captions"
            )

    def names(self) -> list[str]:
        """Return the references' names in their fixed order."""
        return [entry.name for entry in entries(self.split)]

    def describe(self, name: str) -> Description:
        """Return one reference's captions and its 16 frames' ground truth."""
        reference = self.read(name)
        return Description(reference.caption, reference.edits, len(reference.frames), reference.truth)

    def long_enough(self, name: str, frames: int) -> bool:
        """Return True: a scene can be rendered at any length."""
        return True

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference. 17 frames, which some VAEs need, begin with the 16 that are scored."""
        if (height, width) != (SIZE, SIZE):
            hint = "a model of this size needs a clip of your own (video=, caption=, edits=)"
            scored = "score takes a job's .mkv videos, for its .mp4 videos are enlarged"
            raise InputError(
                f"size {height} x {width}: the bundled world has {SIZE} x {SIZE} pixels; {hint}; {scored}"
            )
        entry = reference_named(name, {one.name: one for one in entries(self.split)}, f"split {self.split}")
        scene = self._changed(entry.scene)
        edits = {kind: self._changed(target) for kind, target in entry.edits.items()}
        stratum = grammar.motion_stratum(scene.attributes["motion"])
        strata = {"split": self.split, "contrast": scene.contrast, "motion": stratum}
        if self.appearances > 1:
            strata["appearances"] = str(self.appearances)
        if self.chroma != 1:
            strata["chroma"] = f"{self.chroma:g}"
        if self.unnamed:
            strata["unnamed"] = self.unnamed
        # With 17 frames the motion runs its course in 16, and the last frame follows.
        period = FRAMES if frames == FRAMES + 1 else None
        reference = Reference(
            name=name,
            suite=self.suite,
            frames=render(scene, frames, period=period),
            fps=FPS,
            caption=scene.caption,
            edits=tuple(Edit(kind, target.caption, target.attributes) for kind, target in edits.items()),
            strata=strata,
            truth=scene,
            scored_frames=period,
            motion_edits=(motion_edit(scene, self.split, name),),
        )
        # Extra references are trained on and never edited.
        bare = replace(reference, edits=(), motion_edits=())
        extra_references = tuple(
            replace(bare, frames=render(extra, frames, period=period), caption=extra.caption, truth=extra)
            for extra in extra_scenes(scene, self.appearances - 1, self.split, name)
        )
        return replace(reference, extra_references=extra_references)

    def _changed(self, scene: Scene) -> Scene:
        return replace(scene, chroma=self.chroma, unnamed=self.unnamed)


class CaptionedReferences(ShapesReferences):
    """`ShapesReferences` whose edits' captions name the captioned motion nearest to the reference's.

    Samples of the base model with these captions are the row "caption-only baseline". A reference with a
    captioned motion stays as it is. The rest are of the stratum `captions: captioned`.

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference with the captions of its edits replaced."""
        reference = super().read(name, frames, height, width)
        edits = tuple(
            replace(edit, caption=caption_of_nearest_motion(reference, edit)) for edit in reference.edits
        )
        if edits == reference.edits:
            return reference
        return replace(reference, edits=edits, strata={**reference.strata, "captions": "captioned"})


class SimplifiedCaptions(ShapesReferences):
    """`ShapesReferences` whose own captions, which adapters are trained with, name no appearance but shapes.

    VMC (arXiv 2312.00845, section 4) calls such a caption an appearance-invariant prompt: it does not name
    the background. The captions of edits stay whole. References have the stratum ``captions: simplified``.

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference with its own caption simplified."""
        reference = super().read(name, frames, height, width)
        assert isinstance(reference.truth, Scene)
        caption = replace(reference.truth, unnamed="appearance").caption
        return replace(reference, caption=caption, strata={**reference.strata, "captions": "simplified"})


class DiTFlowPrompts(ShapesReferences):
    """`ShapesReferences` with the three prompts of DiTFlow's benchmark (section 5.1) in place of four edits.

    ``caption`` is the reference's caption, ``subject`` another object in the same scene (the edit
    ``object``), ``scene`` another object in another scene (the edit ``multiple``).

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference with three edits."""
        reference = super().read(name, frames, height, width)
        edits = {edit.kind: edit for edit in reference.edits}
        assert isinstance(reference.truth, Scene)
        prompts = (
            Edit("caption", reference.caption, reference.truth.attributes),
            replace(edits["object"], kind="subject"),
            replace(edits["multiple"], kind="scene"),
        )
        return replace(reference, edits=prompts, strata={**reference.strata, "prompts": "ditflow"})
