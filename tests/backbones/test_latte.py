"""What Latte has for itself: single frames, negative captions, a closed vocabulary."""

from pathlib import Path

import pytest
import torch
from diffusers import LatteTransformer3DModel
from torch.testing import assert_close

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.backbone import Conditioning
from motionexp.errors import InputError
from tests.support.tiny_families import noise
from tests.support.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny", learned_sigma=True)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> LatteBackbone:
    return LatteBackbone.from_pretrained(folder, name="tiny")


def test_a_trimmed_negative_caption_is_refused(backbone: LatteBackbone) -> None:
    with pytest.raises(ValueError, match="negative"):
        backbone.guidance_pair(backbone.embed(["a long caption"]), backbone.embed([""]).trimmed())


def test_only_the_tokenizer_is_read_for_captions(
    backbone: LatteBackbone, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    captions = ["fine", "a" * 200]
    assert LatteBackbone.caption_problems(tmp_path, captions) == backbone.check_captions(captions) != []


def test_a_closed_vocabulary_refuses_other_words(backbone: LatteBackbone) -> None:
    bundled = "bundled:tiny_latte"
    sayable = ["a red plain star is moving on ice", "A RED star ", ""]
    assert LatteBackbone.caption_problems(bundled, sayable) == []
    (problem,) = LatteBackbone.caption_problems(bundled, ["a red dog, running", *sayable])
    for part in ("'dog,'", "'running'", "list words", "model=latte"):
        assert part in problem
    assert "'red'" not in problem
    # A vocabulary that spells words is open, whatever single sign it lacks.
    assert backbone.check_captions(["a dog 🐶 [runs]"]) == []


@torch.no_grad()
def test_a_single_frame_passes_by_the_motion_attention(backbone: LatteBackbone, folder: Path) -> None:
    x_t, conditioning = noise((1, *backbone.latent_shape(1, 16, 16))), backbone.embed(["a cat"]).trimmed()
    network = LatteTransformer3DModel.from_pretrained(folder / "transformer")
    output = network(
        x_t, torch.tensor([500]), conditioning.embeds, enable_temporal_attentions=False, return_dict=False
    )[0]
    # The second half of its channels is the variance that it has learnt.
    assert_close(backbone.predict(x_t, 500, conditioning), output[:, :4])


def test_it_makes_the_trained_number_of_frames(backbone: LatteBackbone) -> None:
    with pytest.raises(InputError, match="frames=3: tiny"):
        backbone.latent_shape(3, 16, 16)


def test_conditionings_are_joined_and_split() -> None:
    first = Conditioning(torch.rand(2, 3, 5))
    second = Conditioning(torch.rand(1, 4, 5), torch.tensor([[True, True, False, False]]))
    both = Conditioning.cat([first, second])
    assert both.mask is not None
    assert len(both) == 3
    assert both.mask.tolist() == [[True] * 3 + [False]] * 2 + [[True, True, False, False]]
    assert both.trimmed().embeds.shape == (3, 3, 5)
    assert torch.equal(both[2].trimmed().embeds, second.embeds[:, :2])
    assert both[2].trimmed().mask is None
    assert torch.equal(both[[0, 2]].embeds[1], second.embeds[0])
    assert torch.equal(both[1:].repeat(2).embeds, both.embeds[[1, 1, 2, 2]])
    assert Conditioning.cat([first, first]).mask is None
