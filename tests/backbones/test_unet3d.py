"""What the 3D U-Net has for itself: odd sides, CLIP's tokenizers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet3DConditionModel
from torch.testing import assert_close
from transformers import CLIPTokenizer

from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.text import caption_problems, closed_vocabulary, load_tokenizer
from motionexp.backbones.unet3d import UNet3DBackbone, attention_projections
from motionexp.data.shapes.grammar import vocabulary
from motionexp.diffusion.backbone import ProjectionKind
from motionexp.errors import InputError
from motionexp.methods.lora import LoRA
from motionexp.scripts.pretrain import clip_text
from tests.support.tiny_families import noise
from tests.support.tiny_models import save_tiny_unet3d

CAPTIONS = ["a red ball", "A Blue Cat 7", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_unet3d(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def modelscope() -> UNet3DConditionModel:
    with torch.device("meta"):
        return UNet3DConditionModel(sample_size=32)


@torch.no_grad()
def test_latents_that_cannot_be_halved_are_taken_as_the_network_takes_them(folder: Path) -> None:
    """The stock pipeline refuses such sides."""
    backbone = UNet3DBackbone.from_pretrained(folder)
    assert backbone.latent_shape(3, 20, 12) == (4, 3, 5, 3)
    x_t, conditioning = noise((2, 4, 3, 5, 3)), backbone.embed(CAPTIONS[:2])
    stock = UNet3DConditionModel.from_pretrained(folder / "unet")
    output = stock(x_t, 500, conditioning.embeds, return_dict=False)[0]
    assert_close(backbone.predict(x_t, 500, conditioning), output)


@pytest.mark.parametrize(("kind", "numbers"), [("spatial", 199_680), ("cross", 215_296)])
def test_attention_within_frames_is_counted_in_modelscopes_network(
    modelscope: UNet3DConditionModel, kind: ProjectionKind, numbers: int
) -> None:
    """Of 320, 640 and 1280 channels there are 5, 5 and 6; v of cross attention reads 1024."""
    names = attention_projections(modelscope, kind)
    layers = [modelscope.get_submodule(name) for letter in "vo" for name in names[letter]]
    assert len(names["v"]) == 16
    assert sum(LoRA.layer_parameters(layer, rank=4) for layer in layers) == numbers


def test_a_closed_vocabulary_refuses_other_words(tmp_path: Path) -> None:
    folder = save_tiny_unet3d(tmp_path, words=["a", "red", "star", "left"])
    sayable = ["a red star", "A RED star left", ""]
    assert UNet3DBackbone.caption_problems(folder, sayable) == []
    # "s" and "le" are tokens: letters and parts of words are no words.
    (problem,) = UNet3DBackbone.caption_problems(folder, ["a red s, le dog", *sayable])
    for part in ("'s,'", "'le'", "'dog'", "list words", "model=latte"):
        assert part in problem
    assert "'red'" not in problem
    with pytest.raises(InputError, match="'dog'"):
        UNet3DBackbone.from_pretrained(folder).embed(["a dog"])


def test_a_tokenizer_in_the_hubs_two_files_is_read_and_counts_in_the_hash(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    parts = copy / "tokenizer"
    model = json.loads((parts / "tokenizer.json").read_text())["model"]
    (parts / "tokenizer.json").unlink()
    (parts / "vocab.json").write_text(json.dumps(model["vocab"]))
    (parts / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
    before, after = (load_tokenizer(path)(CAPTIONS).input_ids for path in (folder, copy))
    assert after == before
    assert weights_hash(copy, ["tokenizer"]) != weights_hash(folder, ["tokenizer"])
    whole = weights_hash(copy, ["tokenizer"])
    (parts / "merges.txt").write_text("#version: 0.2\na b")
    assert weights_hash(copy, ["tokenizer"]) != whole


def test_the_bundled_tokenizer_names_the_bundled_worlds_words(tmp_path: Path) -> None:
    tokenizer = clip_text.build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for reader in (tokenizer, CLIPTokenizer.from_pretrained(tmp_path)):
        assert closed_vocabulary(reader) == set(vocabulary())
        assert all(len(reader(word).input_ids) == 3 for word in vocabulary())
        (problem,) = caption_problems(reader, ["a star is moving ing"], clip_text.MAX_TOKENS)
        assert "'ing'" in problem
