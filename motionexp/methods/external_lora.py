"""LoRAs that other trainers made: the keys of diffusers, peft and kohya's scripts, put onto a network."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.lora import LoRA

DIFFUSERS_KEY = "lora_adapter_metadata"
# The end of a key says what its tensor is: x + scale * up(down(x)).
ENDS = (
    (re.compile(r"[._]lora(_A(\.\w+)?|[._]down)\.weight$"), "lora_A.weight"),
    (re.compile(r"[._]lora(_B(\.\w+)?|[._]up)\.weight$"), "lora_B.weight"),
    (re.compile(r"\.alpha$"), "alpha"),
)
# Whose network it is: the pipelines' own prefixes, peft's, and kohya's, which has _ for every dot.
PREFIX = re.compile(
    r"^(base_model\.model\.|unet\.|transformer\.|diffusion_model\.|lora_(unet|transformer)_)+"
)
TEXT_ENCODER = re.compile(r"^(base_model\.model\.)?(text_encoder|text_model|te\d?\.|lora_te)")


def attach(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], backbone: Backbone, window: Window
) -> LoRA:
    """Attach a LoRA of another trainer, switched off, on in `window`; on any layers, not the motion's alone.

    A layer's update is scaled by alpha / rank. alpha stands beside the layer (kohya), in the file's metadata
    (diffusers), or is the rank where neither has it, as diffusers takes it.

    Raises:
        InputError: a tensor is no part of a LoRA, belongs to a text encoder, or does not fit the network.
    """
    layers = _layers(tensors, backbone)
    alphas = _alphas(metadata)
    sizes: dict[str, tuple[int, float]] = {}
    state: dict[str, Tensor] = {}
    for name, parts in layers.items():
        missing = {"lora_A.weight", "lora_B.weight"} - parts.keys()
        if missing:
            raise InputError(f"{name} has no {missing.pop()}: a LoRA has two for each layer")
        rank = parts["lora_A.weight"].shape[0]
        alpha = parts["alpha"].item() if "alpha" in parts else alphas.get(name, alphas.get("", rank))
        sizes[name] = rank, float(alpha)
        state |= {f"{name}.{part}": parts[part] for part in ("lora_A.weight", "lora_B.weight")}
    method = LoRA.on_layers(backbone, window, sizes)
    try:
        method.load(state)
    except InputError:
        method.remove()
        raise
    return method


def _layers(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, dict[str, Tensor]]:
    """The tensors by layer of the network and by what they are: lora_A.weight, lora_B.weight, alpha."""
    flat = {
        name.replace(".", "_"): name
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if TEXT_ENCODER.match(key):
            raise InputError(f"it tunes the text encoder too ({key}): only the network is tuned here")
        found = [(end, part) for end, part in ENDS if end.search(key)]
        if not found:
            raise InputError(f"{key} is no part of a LoRA (lora_A and lora_B, or lora_down and lora_up)")
        end, part = found[0]
        layer = PREFIX.sub("", end.sub("", key)).replace(".", "_").replace("_processor_", "_")
        name = flat.get(layer) or flat.get(f"{layer}_0")  # diffusers once left the 0 of to_out.0 away
        if name is None:
            raise InputError(f"{key} belongs to no layer of this network")
        layers[name][part] = tensor
    return layers


def _alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """alpha by layer, and under "" for the others, as diffusers writes it into the file."""
    settings: dict[str, Any] = json.loads(metadata.get(DIFFUSERS_KEY, "{}"))
    plain = {PREFIX.sub("", name): value for name, value in settings.items()}
    alphas = {name: float(alpha) for name, alpha in (plain.get("alpha_pattern") or {}).items()}
    if "lora_alpha" in plain:
        alphas[""] = float(plain["lora_alpha"])
    return alphas
