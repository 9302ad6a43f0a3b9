"""Text encoders of 8 or 4 bits: what is asked of transformers, and, with bitsandbytes, what comes."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5EncoderModel

from motionexp.backbones import load_backbone, pipeline
from motionexp.backbones.checkpoint import TextPrecision, shape_of
from motionexp.backbones.latte import LatteBackbone
from motionexp.config import memory
from motionexp.config.compose import load
from motionexp.errors import InputError
from tests.support.tiny_families import Family
from tests.support.tiny_models import save_tiny_pipeline

CAPTIONS = ["a cat", "a red ball"]


def _installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    spec = ModuleSpec("bitsandbytes", None) if installed else None
    monkeypatch.setattr(memory, "find_spec", lambda name: spec)


@pytest.mark.parametrize(
    ("bits", "asked"),
    [
        ("8bit", {"load_in_8bit": True, "load_in_4bit": False}),
        (
            "4bit",
            {
                "load_in_8bit": False,
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": "bfloat16",
            },
        ),
    ],
)
def test_transformers_is_asked_for_so_many_bits_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: TextPrecision, asked: dict[str, Any]
) -> None:
    _installed(monkeypatch, True)
    calls: list[dict[str, Any]] = []

    def from_pretrained(folder: Path, **settings: Any) -> tuple[T5EncoderModel, dict[str, Any]]:
        calls.append({"folder": folder, **settings})
        return shape_of(T5EncoderModel, folder), {"missing_keys": []}

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", from_pretrained)
    folder = save_tiny_pipeline(tmp_path / "tiny")
    backbone = LatteBackbone.from_pretrained(folder, text_precision=bits, dtype=torch.bfloat16)
    assert backbone.text_encoder.device.type == "meta"  # as the stub left it: such weights are not moved
    (call,) = calls
    assert call["folder"] == folder / "text_encoder"
    assert call["device_map"] == {"": torch.device("cpu")}
    assert call["dtype"] == torch.bfloat16
    settings = call["quantization_config"].to_dict()
    assert {name: settings[name] for name in asked} == asked


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_without_bitsandbytes_it_is_an_error_before_weights_are_loaded(
    tmp_path: Path, base: list[str], monkeypatch: pytest.MonkeyPatch, bits: TextPrecision
) -> None:
    _installed(monkeypatch, False)
    monkeypatch.setattr(pipeline, "find_folder", None)
    with pytest.raises(InputError, match=f"text_precision={bits}: .*bitsandbytes"):
        load([*base, f"text_precision={bits}"])
    with pytest.raises(InputError, match=f"text_precision={bits}: .*bitsandbytes"):
        load_backbone(save_tiny_pipeline(tmp_path / "tiny"), text_precision=bits)


@pytest.mark.parametrize(("bits", "far"), [("8bit", 0.03), ("4bit", 0.3)])
def test_every_familys_captions_are_embedded_nearly_the_same(
    family: Family, folder: Path, bits: TextPrecision, far: float
) -> None:
    pytest.importorskip("bitsandbytes")

    def embedded(precision: TextPrecision) -> tuple[Tensor, set[str]]:
        backbone = family.kind.from_pretrained(folder, text_precision=precision)
        layers = {type(module).__name__ for module in backbone.text_encoder.modules()}
        return backbone.embed(CAPTIONS).embeds, layers

    whole, layers = embedded(bits)
    exact, _ = embedded("auto")
    assert {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[bits] in layers
    assert whole.shape == exact.shape
    assert 0 < (whole - exact).norm() / exact.norm() < far
