"""A plain LoRA in the formats of option tools: the names of its tensors, alpha, and fused layers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motionexp.config.adapter_files import PEFT_FILE_NAME
from motionexp.config.export import FORMATS
from motionexp.diffusion.backbone import Backbone
from motionexp.errors import InputError
from motionexp.methods.layer_names import rows_of_layers
from motionexp.methods.lora import DIFFUSERS_KEY

WAN = ("WanPipeline", "WanImageToVideoPipeline")
COMFYUI = (*WAN, "HunyuanVideoPipeline", "LTXPipeline", "MochiPipeline")
# Wan2GP has no Mochi, and reads kohya's names for Wan alone (models/wan/modules/model.py, 2026-08).
WAN2GP: Mapping[str, tuple[str, ...]] = {"comfyui": COMFYUI[:-1], "kohya": WAN}
# The pipelines for which each format has a reader: diffusers' own loaders; ComfyUI's core and its wrappers;
# musubi-tuner and ComfyUI of kohya's names. peft reads its own format into any network.
READERS: Mapping[str, tuple[str, ...]] = {
    "comfyui": COMFYUI,
    "kohya": COMFYUI,
    "diffusers": (
        *COMFYUI,
        *("CogVideoXPipeline", "CogVideoXImageToVideoPipeline", "AnimateDiffPipeline"),
    ),
}
BARE = ("MochiPipeline",)  # whose LoRAs have no diffusion_model. before a layer's name
# ComfyUI's node that sets the shift of the models of a pipeline (comfy_extras/nodes_model_advanced.py and
# nodes_lt.py, read 2026-11). A node also sets the number that multiplies sigma for the network, 1000 or 1,
# and has to fit the model's class in comfy/supported_models.py.
SHIFT_NODES: Mapping[str, str] = {
    **dict.fromkeys((*WAN, "HunyuanVideoPipeline"), "ModelSamplingSD3 with shift {shift:g}"),
    "MochiPipeline": "ModelSamplingAuraFlow with shift {shift:g} (ModelSamplingSD3 would give the network"
    " timesteps 1000 times too large) and the scheduler linear_quadratic",
    "LTXPipeline": "ModelSamplingLTXV, and LTXVScheduler with them, with max_shift and base_shift {log:.2f},"
    " the logarithm of the shift {shift:g}",
}


@dataclass(frozen=True)
class LoRALayer:
    """One layer of a LoRA: A (rank, in), B (out, rank), and alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / len(self.down)


def check_format(form: str, pipeline: str, name: str, decoding_note: str = "") -> None:
    """Raise InputError for a format that no tool reads for a model.

    Args:
        form: one of `FORMATS`.
        pipeline: the class's name.
        name: of the model.
        decoding_note: why no pipeline decodes the model's latents; empty: its class does.
    """
    readers = {option: READERS.get(option, (pipeline,)) for option in FORMATS}
    if decoding_note:  # in Python the latents that a pipeline samples can be decoded otherwise
        readers |= dict.fromkeys(("comfyui", "kohya"), ())
    if pipeline not in readers[form]:
        possible = " or ".join(option for option in FORMATS if pipeline in readers[option])
        why = f"({pipeline})" if not decoding_note else f"({decoding_note.rstrip('.')})"
        raise InputError(f"format={form}: no tool reads it for {name} {why}; {possible}")


def task_of(pipeline: str) -> str:
    """What a pipeline of this class does, as hubs call it."""
    return "image-to-video" if "ImageToVideo" in pipeline else "text-to-video"


def shift_node(pipeline: str, shift: float | None) -> str:
    """The node of ComfyUI that gives models of a pipeline's class a shift, with its settings; else empty."""
    if shift is None or pipeline not in SHIFT_NODES:
        return ""
    return SHIFT_NODES[pipeline].format(shift=shift, log=math.log(shift))


def export_tensors(
    layers: Mapping[str, LoRALayer], form: str, backbone: Backbone, pipeline: str
) -> dict[str, Tensor]:
    """The tensors of a LoRA of one network, under the names of a format.

    Args:
        layers: by the names in the network.
        form: one of `FORMATS`.
        backbone: its network may be on `meta`.
        pipeline: the class's name.

    Raises:
        InputError: a layer has no name in the format.
    """
    if form in ("diffusers", "peft"):
        start = f"{backbone.component}." if form == "diffusers" else "base_model.model."
        return {
            f"{start}{name}.lora_{part}.weight": tensor.contiguous()
            for name, layer in layers.items()
            for part, tensor in (("A", layer.down), ("B", layer.up))
        }
    parts = ("lora_A", "lora_B") if form == "comfyui" else ("lora_down", "lora_up")
    tensors: dict[str, Tensor] = {}
    for name, layer in original_lora(layers, backbone).items():
        if form == "kohya":
            stem = f"lora_unet_{name.replace('.', '_')}"
        else:
            stem = name if pipeline in BARE else f"diffusion_model.{name}"
        tensors[f"{stem}.{parts[0]}.weight"] = layer.down.contiguous()
        tensors[f"{stem}.{parts[1]}.weight"] = layer.up.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha)
    return tensors


def original_lora(layers: Mapping[str, LoRALayer], backbone: Backbone) -> dict[str, LoRALayer]:
    """A LoRA of the original code's layers, by their names there, which changes the weights equally.

    Raises:
        InputError: the original code's layer of one of the layers is not known.
    """
    originals = backbone.original_layers
    if not originals:  # whose names are those of diffusers
        return dict(layers)
    rows = rows_of_layers(backbone)
    fused: dict[str, LoRALayer] = {}
    for name, modules in originals.items():
        # Of several names for a layer, the first.
        if set(modules) & layers.keys() and not any(originals[option] == modules for option in fused):
            fused[name] = _fused(layers, modules, rows)
    named = {module for name in fused for module in originals[name]}
    if missing := sorted(layers.keys() - named):
        raise InputError(f"{missing[0]} has no layer of the original code: tune others, or take format=peft")
    return fused


def _fused(layers: Mapping[str, LoRALayer], modules: tuple[str, ...], rows: Mapping[str, int]) -> LoRALayer:
    """One layer for several, whose outputs are joined: A one below the option, B in blocks."""
    tuned = [layers[module] for module in modules if module in layers]
    if len(modules) == 1:
        return tuned[0]
    scale = tuned[0].scale
    blocks = [
        torch.nn.functional.pad(
            layers[module].up * (layers[module].scale / scale),
            (
                sum(len(layers[before].down) for before in modules[:place] if before in layers),
                sum(len(layers[after].down) for after in modules[place + 1 :] if after in layers),
            ),
        )
        if module in layers
        else tuned[0].up.new_zeros(rows[module], sum(len(layer.down) for layer in tuned))
        for place, module in enumerate(modules)
    ]
    down = torch.cat([layer.down for layer in tuned])  # (the sum of the ranks, in)
    return LoRALayer(down, torch.cat(blocks), scale * len(down))


def diffusers_metadata(layers: Mapping[str, LoRALayer], component: str) -> dict[str, str]:
    """The LoraConfig that diffusers reads from a file's metadata."""
    config = {f"{component}.{key}": value for key, value in _config(layers).items()}
    return {DIFFUSERS_KEY: json.dumps(config)}


def peft_config(layers: Mapping[str, LoRALayer]) -> dict[str, Any]:
    """The content of peft's adapter_config.json."""
    return {"peft_type": "LORA", "task_type": None, "inference_mode": True, **_config(layers)}


def _config(layers: Mapping[str, LoRALayer]) -> dict[str, Any]:
    first = next(iter(layers.values()))
    patterns = {
        "rank_pattern": {f"^{name}": len(layer.down) for name, layer in layers.items()},
        "alpha_pattern": {f"^{name}": layer.alpha for name, layer in layers.items()},
    }
    is_uniform = {(len(layer.down), layer.alpha) for layer in layers.values()} == {
        (len(first.down), first.alpha)
    }
    return {
        "r": len(first.down),
        "lora_alpha": first.alpha,
        "target_modules": list(layers),
        **({} if is_uniform else patterns),
    }


FILE_NAMES = {"diffusers": "pytorch_lora_weights.safetensors", "peft": PEFT_FILE_NAME}
SUFFIXES = {"transformer": "high_noise", "transformer_2": "low_noise"}
"""What files of one expert of Wan 2.2 are called in every tool."""
