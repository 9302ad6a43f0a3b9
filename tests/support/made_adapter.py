"""Adapter files that no training made."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from motionexp.methods.adapters import DIGEST_KEY, METADATA_KEY, _digest

CAPTION = "a lime striped circle is moving on sand"


def write_adapter(folder: Path, layers: tuple[str, ...] = ("transformer.a",), **changes) -> Path:
    """An adapter of tiny_cogvideox in its cell, without a training."""
    about = {
        "model": "tiny_cogvideox",
        "source": "bundled:tiny_cogvideox",
        "revision": None,
        "weights_hash": "2383357e373a",
        "method": "lora",
        "settings": {"rank": 4, "alpha": 4.0},
        "window": {"low": 400.0, "high": 1000.0, "knots": []},
        "recipe": {"captions": [CAPTION], "steps": 100, "seed": 0, "packages": {"torch": "2"}},
    } | changes
    tensors = {
        f"{layer}.lora_{part}.weight": torch.zeros(shape)
        for layer in layers
        for part, shape in (("A", (4, 8)), ("B", (8, 4)))
    }
    text = json.dumps(about)
    folder.mkdir(parents=True)
    metadata = {"format": "pt", METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}
    save_file(tensors, folder / "adapter.safetensors", metadata)
    return folder
