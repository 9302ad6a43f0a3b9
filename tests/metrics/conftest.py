"""Tiny random models in their real layouts, moving textures, and scenes of the bundled world.

open_clip and transformers take seconds to import, and most tests here look at pixels alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes import grammar
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import Scene, draw, edited, seeded
from motionexp.metrics.base import MetricInput, Tracks

if TYPE_CHECKING:
    from motionexp.metrics.encoders import OpenClip, PreferenceModel

CONTEXT = 12


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP in open_clip's local-dir layout; its temperature differs from where training begins."""
    import open_clip

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(37.0))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `CLIPModel` with its processor; its temperature differs from its config's."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("scorer")
    words = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 54, "max_position_embeddings": CONTEXT, "bos_token_id": 52, "eos_token_id": 53}
    config = CLIPConfig(
        text_config=tower | text,
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(53.0))
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CONTEXT)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> OpenClip:
    from motionexp.metrics.encoders import OpenClip

    return OpenClip.load(clip_folder)


@pytest.fixture(scope="session")
def scorer(scorer_folder: Path) -> PreferenceModel:
    from motionexp.metrics.encoders import PreferenceModel

    return PreferenceModel.load(scorer_folder)


def noise_texture(seed: int, side: int = 160) -> np.ndarray:
    """(side, side) grey texture with detail from 4 to 16 pixels."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    texture = np.fft.irfft2(spectrum * ((frequency > 1 / 16) & (frequency < 1 / 4)), s=(side, side))
    return np.clip(128 + 50 * texture / texture.std(), 0, 255)


def moving_texture(seed: int, velocity: tuple[int, int], frames: int = 8, size: int = 64) -> np.ndarray:
    """(F, size, size, 3) video of a texture that moves by whole pixels (x, y) a frame, all over the frame."""
    texture, start = noise_texture(seed), np.array([48, 48])
    video = []
    for index in range(frames):
        x, y = start - index * np.array(velocity)
        video.append(texture[y : y + size, x : x + size])
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
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def noise_video(count: int = 4) -> np.ndarray:
    """(F, 32, 32, 3) random frames."""
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


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
