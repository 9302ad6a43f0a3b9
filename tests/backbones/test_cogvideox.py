"""What CogVideoX has for itself: frames in pairs of latent frames, small letters, patches in time."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError
from tests.support.tiny_cogvideox import save_tiny_cogvideox


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_cogvideox(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> CogVideoXBackbone:
    return CogVideoXBackbone.from_pretrained(folder, name="tiny")


@pytest.mark.parametrize("frames", [1, 9, 17, 25])
def test_as_many_frames_come_back_as_were_encoded(backbone: CogVideoXBackbone, frames: int) -> None:
    latents = backbone.encode(torch.zeros(1, frames, 8, 8, 3, dtype=torch.uint8))
    assert latents.shape[1:] == backbone.latent_shape(frames, 8, 8)
    assert backbone.decode(latents).shape == (1, frames, 8, 8, 3)


def test_an_odd_number_of_latent_frames_is_refused(backbone: CogVideoXBackbone) -> None:
    """4 k + 1 frames with an odd k are encoded without a complaint, and decoded to three frames more."""
    with pytest.raises(InputError, match=r"frames=13: .* 8"):
        backbone.latent_shape(13, 16, 16)


def test_a_closed_vocabulary_is_in_small_letters(folder: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    for part in folder.iterdir():
        (closed / part.name).symlink_to(part)
    (closed / "tokenizer").unlink()
    (closed / "tokenizer").symlink_to(BUNDLED / "tiny_latte" / "tokenizer")
    backbone = CogVideoXBackbone.from_pretrained(closed)
    captions = ["A RED star", "a red star"]
    assert backbone.check_captions(captions) == []
    assert CogVideoXBackbone.caption_problems(closed, captions) == []
    first, second = backbone.embed(captions).embeds
    assert torch.equal(first, second)
    (problem,) = backbone.check_captions(["a red dog", *captions])
    assert "'dog'" in problem


def test_patches_in_time_are_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    file = copy / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size_t": 2}))
    with pytest.raises(InputError, match="patch_size_t=2"):
        CogVideoXBackbone.from_pretrained(copy)
