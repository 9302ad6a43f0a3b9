"""Folders that are wrong, and the identity of those that are right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from motionexp.backbones import checkpoint
from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.errors import InputError
from tests.support.tiny_models import save_tiny_pipeline, save_tiny_unet3d

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def refused(path: str | Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        assert LatteBackbone.from_pretrained(path).text_encoder is not None
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[-1])
    save_file(tensors, file, metadata={"format": "pt"})


def widen_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].ndim - 1))
    save_file(tensors, file, metadata={"format": "pt"})


def claim_another_class(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "AutoencoderTiny"}))


BREAKAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no index": ("model_index.json", Path.unlink, "model_index.json is missing"),
    "index is no JSON": ("model_index.json", cut, "cannot be read"),
    "index is a list": ("model_index.json", lambda file: file.write_text("[]"), "no settings"),
    "no config": ("vae/config.json", Path.unlink, "missing"),
    "no weights": (f"transformer/{WEIGHTS}", Path.unlink, "no .safetensors file"),
    "weights cut short": (f"transformer/{WEIGHTS}", cut, "damaged or cut short"),
    "weights are text": ("text_encoder/model.safetensors", lambda f: f.write_text("hello"), "damaged"),
    "a tensor is missing": (f"transformer/{WEIGHTS}", drop_a_tensor, "lack transformer_blocks"),
    "a tensor of the encoder is missing": ("text_encoder/model.safetensors", drop_a_tensor, "lack"),
    "weights of another class": ("vae/config.json", claim_another_class, "of a AutoencoderTiny; this reader"),
    "a tensor of another size": (f"transformer/{WEIGHTS}", widen_a_tensor, "does not load"),
    "no tokenizer": ("tokenizer/tokenizer_config.json", Path.unlink, "missing"),
    "tokenizer is no JSON": ("tokenizer/tokenizer.json", cut, "cannot be read"),
    "no scheduler": ("scheduler/scheduler_config.json", Path.unlink, "missing"),
}


@pytest.mark.parametrize(
    "file", [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors"]
)
def test_weights_of_other_shapes_are_refused_before_any_is_loaded(
    folder: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen_a_tensor(folder / file)
    monkeypatch.setattr("motionexp.backbones.parts.load_part", None)
    with pytest.raises(InputError, match=f"{file.split('/')[0]} .*shape"):
        LatteBackbone.from_pretrained(folder)


def rename(file: Path, renames: dict[str, str]) -> None:
    """Write `file` with each part of a weight's name that is in `renames` as that says."""
    tensors = load_file(file)
    renamed = {}
    for name, tensor in tensors.items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, file, metadata={"format": "pt"})


def test_a_vae_with_the_former_names_of_its_attention_loads(folder: Path) -> None:
    expected = LatteBackbone.from_pretrained(folder).vae.state_dict()
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    rename(folder / "vae" / WEIGHTS, former)
    loaded = LatteBackbone.from_pretrained(folder).vae.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_text_encoder_with_the_other_name_of_its_tied_embeddings_loads(folder: Path) -> None:
    expected = LatteBackbone.from_pretrained(folder).embed(["a cat"]).embeds
    rename(folder / "text_encoder" / "model.safetensors", {"shared.": "encoder.embed_tokens."})
    assert torch.equal(LatteBackbone.from_pretrained(folder).embed(["a cat"]).embeds, expected)


def test_clips_text_encoder_is_read_with_the_prefix_of_the_hubs_files(tmp_path: Path) -> None:
    folder = save_tiny_unet3d(tmp_path / "unet3d")
    expected = UNet3DBackbone.from_pretrained(folder).embed(["a cat"]).embeds
    file = folder / "text_encoder" / "model.safetensors"
    rename(file, {part: f"text_model.{part}" for part in ("embeddings.", "encoder.", "final_layer_norm.")})
    assert torch.equal(UNet3DBackbone.from_pretrained(folder).embed(["a cat"]).embeds, expected)
    widen_a_tensor(file)
    with pytest.raises(InputError, match=r"text_encoder .*shape"):
        UNet3DBackbone.from_pretrained(folder)


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_file_is_named(folder: Path, name: str) -> None:
    file, breaks, message = BREAKAGES[name]
    breaks(folder / file)
    refused(folder, file.split("/")[0], message)
    assert torch.get_default_dtype() == torch.float32


def test_a_missing_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    refused(folder, "vae")


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": WEIGHTS, "b": "diffusion_pytorch_model-2.safetensors"}}
    (folder / "vae" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(folder, "vae/diffusion_pytorch_model-2.safetensors")


@pytest.mark.parametrize("part", ["_class_name", "vae"])
def test_another_models_folder_is_refused(folder: Path, part: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index[part] = "WanPipeline" if part == "_class_name" else ["diffusers", "AutoencoderKLWan"]
    (folder / "model_index.json").write_text(json.dumps(index))
    refused(folder, part, "Wan")


def test_no_such_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere"))
    refused("bundled:nowhere", "bundled:nowhere")
    refused("nowhere", "nowhere")


def test_the_hash_is_of_weights_and_settings_alone(folder: Path, whole: Path) -> None:
    original = weights_hash(whole, LatteBackbone.parts)
    assert weights_hash(folder, LatteBackbone.parts) == original
    (folder / "README.md").write_text("a card")
    (folder / "vae" / "notes.txt").write_text("mine")
    assert weights_hash(folder, LatteBackbone.parts) == original
    weights = folder / "transformer" / WEIGHTS
    for variant in ("fp16", "non_ema"):
        (weights.parent / f"diffusion_pytorch_model.{variant}.safetensors").write_bytes(b"never read")
    assert weights_hash(folder, LatteBackbone.parts) == original
    assert LatteBackbone.from_pretrained(folder).weights_hash == original
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = weights_hash(folder, LatteBackbone.parts)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("v_prediction", "epsilon"))
    assert len({original, changed, weights_hash(folder, LatteBackbone.parts)}) == 3


def test_a_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = weights_hash(folder, LatteBackbone.parts)
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", None)
    assert weights_hash(folder, LatteBackbone.parts) == original


def test_loading_shows_no_bars_and_leaves_those_of_others(
    whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert transformers_logging.is_progress_bar_enabled()
    LatteBackbone.from_pretrained(whole)
    assert capfd.readouterr().err == ""
    assert transformers_logging.is_progress_bar_enabled()
