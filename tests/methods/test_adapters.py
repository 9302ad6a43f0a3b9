import json
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import DIGEST_KEY, METADATA_KEY, _digest, load_adapter, save_adapter
from motionexp.methods.lora import LoRA
from tests.support.tiny_cogvideox import tiny_cogvideox
from tests.support.tiny_models import save_tiny_pipeline
from tests.support.training_runs import RECIPE, attach, change

RECIPE = replace(RECIPE, captions=['a "cat" 🐈 runs'])


def saved(folder, backbone, name="lora", low=700, **settings):
    """The file of an untrained method with changed tensors; no method stays attached."""
    method = attach(name, backbone, Window(low), **settings)
    change(method)
    try:
        return save_adapter(folder, backbone, method, RECIPE)
    finally:
        method.remove()


def test_the_metadata_tell_how_it_was_made(backbone, tmp_path):
    path = saved(tmp_path, backbone, rank=2)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["motionexp"])
    assert about["model"] == "tiny"
    assert about["weights_hash"] == backbone.weights_hash
    assert about["source"] == backbone.source
    assert about["revision"] is None
    assert about["method"] == "lora"
    chosen = {"rank": 2, "alpha": 4.0, "projections": ["v", "o"], "attention": "motion"}
    assert about["settings"] == chosen
    assert about["window"] == {"low": 700, "high": 1000.0, "knots": []}
    assert about["recipe"]["captions"] == ['a "cat" 🐈 runs']
    assert (about["recipe"]["seed"], about["recipe"]["steps"]) == (5, 8)
    assert about["recipe"]["packages"] == {"motionexp": "0.1.0"}


def test_there_is_no_adapter_of_the_base_model(backbone, tmp_path):
    with pytest.raises(ValueError, match="1000"):
        saved(tmp_path / "adapter", backbone, low=1000)
    assert not (tmp_path / "adapter").exists()


# files that are no adapter, or not for this model


def refused(path, backbone, named=""):
    with pytest.raises(InputError, match=rf"adapter={path}.*: .*{named}"):
        load_adapter(path, backbone)
    LoRA(backbone, Window(0)).remove()  # nothing is left attached


def test_files_that_are_no_adapters_are_refused(backbone, tmp_path):
    refused(tmp_path / "none.safetensors", backbone)
    refused(tmp_path, backbone)
    for content in (b"", b"these are words", b"\xff" * 600):
        file = tmp_path / "words.safetensors"
        file.write_bytes(content)
        refused(file, backbone)


def test_damaged_adapters_are_refused(backbone, tmp_path):
    path = saved(tmp_path / "whole", backbone)
    content = path.read_bytes()
    for length in (20, len(content) // 2, len(content) - 1):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(content[:length])
        refused(cut, backbone)
    for place in (len(content) - 3, content.index(b"700")):  # a tensor's number, the window
        flipped = bytearray(content)
        flipped[place] ^= 1
        (tmp_path / "flipped.safetensors").write_bytes(flipped)
        refused(tmp_path / "flipped.safetensors", backbone)
    load_adapter(path, backbone).remove()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (None, "motionexp"),
        ({"window": None}, "window"),
        ({"window": {}}, "low"),
        ({"window": {"low": "700", "high": 1000}}, "settings"),
        ({"window": {"low": 700, "high": 1000, "knots": [700]}}, "settings"),
        ({"window": {"low": 2000, "high": 1000}}, "window"),
        ({"method": ["lora"]}, "method"),
        ({"method": "nope"}, "method nope"),
        ({"settings": {"rnak": 4}}, "rnak"),
        ({"settings": {"rank": "4"}}, "settings"),
        ({"weights_hash": 3}, "weights_hash"),
    ],
)
def test_odd_metadata_are_refused(backbone, tmp_path, change, named):
    path = saved(tmp_path, backbone)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    text = json.dumps(change and json.loads(metadata[METADATA_KEY]) | change)
    save_file(tensors, path, metadata | {METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)})
    refused(path, backbone, named)


def test_an_adapter_that_diverged_is_refused(backbone, tmp_path):
    method = attach("lora", backbone, Window(700))
    next(iter(method.state().values())).fill_(float("nan"))
    path = save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    refused(path, backbone, "lora_A.weight")


def test_an_adapter_of_other_weights_is_refused(backbone, tmp_path):
    retrained = LatteBackbone.from_pretrained(save_tiny_pipeline(tmp_path / "other", seed=1), name="other")
    path = saved(tmp_path / "adapter", retrained)
    refused(path, backbone, "other .* tiny .*weights")


def test_an_adapter_of_another_size_is_refused_by_the_shape(backbone, tmp_path):
    path = saved(tmp_path / "adapter", backbone, rank=2)
    backbone.network.get_submodule(backbone.projections("motion")["v"][1]).in_features = 8
    refused(path, backbone, r"attn1.to_v.lora_A.weight .*\(2, 16\).*\(2, 8\)")
    refused(
        saved(tmp_path / "cogvideox", tiny_cogvideox(tmp_path / "tiny")),
        backbone,
        r" \(transformer_blocks",
    )


def test_a_failed_write_leaves_the_old_file(backbone, tmp_path, monkeypatch):
    path = saved(tmp_path, backbone)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, backbone, rank=2)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"]
