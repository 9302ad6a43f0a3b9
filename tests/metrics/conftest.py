"""Tiny random models in their real layouts, moving textures, and scenes of the bundled world.

open_clip and transformers take seconds to import, and most tests here look at pixels alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import Scene, draw, edited, seeded
from motionexp.metrics.base import MetricInput, Tracks

if TYPE_CHECKING:
    from motionexp.config.scoring_models import ScoringModels
    from motionexp.metrics.encoders import OpenClip, PreferenceModel


@pytest.fixture(scope="session")
def scoring_models(tmp_path_factory: pytest.TempPathFactory) -> ScoringModels:
    """See `save_models`."""
    from tests.metrics.tiny_clips import save_models

    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def clip(scoring_models: ScoringModels) -> OpenClip:
    from motionexp.metrics.encoders import OpenClip

    return OpenClip.load(scoring_models.clip)


@pytest.fixture(scope="session")
def scorer(scoring_models: ScoringModels) -> PreferenceModel:
    from motionexp.metrics.encoders import PreferenceModel

    return PreferenceModel.load(scoring_models.preference, scoring_models.preference_processor)


def noise_texture(seed: int, side: int = 160) -> np.ndarray:
    """(side, side) grey texture with detail from 4 to 16 pixels."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    texture = np.fft.irfft2(spectrum * ((frequency > 1 / 16) & (frequency < 1 / 4)), s=(side, side))
    return np.clip(128 + 50 * texture / texture.std(), 0, 255)


def moving_texture(seed: int, velocity: tuple[int, int], frames: int = 8, size: int = 64) -> np.ndarray:
    """(F, size, size, 3) video of a texture that moves by whole pixels (x, y) a frame, all over the frame."""
    texture, start = noise_texture(seed), np.array([48, 48])
    corners = [start - index * np.array(velocity) for index in range(frames)]
    video = [texture[y : y + size, x : x + size] for x, y in corners]
    return np.repeat(np.stack(video)[..., None], 3, axis=-1).astype(np.uint8)


def make_scene(motion: str, index: int = 0, contrast: str = "motion-dominant") -> Scene:
    """A scene with this motion; `index` varies all else."""
    rng = seeded("metrics tests", contrast, motion, index)
    while True:
        scene = draw(rng, contrast=contrast, choices=grammar.MOTIONS)
        if scene.things[0].motion == motion:
            return scene


TRACK_FRAMES, TRACK_POINTS = 9, 14


def walk(
    seed: int, points: int = TRACK_POINTS, frames: int = TRACK_FRAMES, hidden: float = 0.0, still: float = 0.1
) -> Tracks:
    """Tracks of random walks; a share of the points hidden now and then."""
    rng = np.random.default_rng(seed)
    position = np.cumsum(rng.normal(size=(frames, points, 2)), axis=0)
    return Tracks(position, rng.random((frames, points)) >= hidden, still)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random vectors of unit length."""
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def noise_video(count: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    """(F, H, W, 3) random frames."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


CHANGES = {"colour": "blue", "surface": "checked", "shape": "cross", "background": "sand"}


@pytest.fixture
def inputs() -> Callable[..., MetricInput]:
    """Build a metric's input in the bundled world: a sample of `make_scene("wander")` with `CHANGES`."""

    def build(frames: np.ndarray | None = None, scene: Scene | None = None, **parts: object) -> MetricInput:
        scene = scene or make_scene("wander")
        edit = Edit("multiple", "a blue cross", scene.attributes | CHANGES)
        reference = Reference("r", "shapes", render(scene), 8.0, "an object", (edit,), {}, scene)
        shown = render(edited(scene, CHANGES)) if frames is None else frames
        return MetricInput(shown, reference, edit, **parts)  # type: ignore[arg-type]

    return build
