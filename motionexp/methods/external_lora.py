"""External LoRAs: files of other trainers, with the keys of diffusers, peft or kohya's scripts."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.lora import DIFFUSERS_KEY, LoRA

# The end of a key names its tensor: a layer computes x + alpha / rank * up(down(x)), A is down and B is up.
ENDS = (
    (re.compile(r"[._]lora(_A(\.\w+)?|[._]down)\.weight$"), "lora_A.weight"),
    (re.compile(r"[._]lora(_B(\.\w+)?|[._]up)\.weight$"), "lora_B.weight"),
    (re.compile(r"\.alpha$"), "alpha"),
)
# The start of a key: the pipeline's component, peft's wrapper, or kohya's prefix, which has _ for each dot.
PREFIX = re.compile(
    r"^(base_model\.model\.|unet\.|transformer\.|diffusion_model\.|lora_(unet|transformer)_)+"
)
TEXT_ENCODER = re.compile(r"^(base_model\.model\.)?(text_encoder|text_model|te\d?\.|lora_te)")


def attach(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], backbone: Backbone, window: Window
) -> LoRA:
    """Attach a LoRA of another trainer, switched off, with the given window, to any layers of the network.

    A layer's update is scaled by alpha / rank. alpha is a tensor of the layer (kohya) or in the file's
    metadata (diffusers). Where the file has neither, alpha is the rank, as in diffusers.

    Raises:
        InputError: a tensor is no part of a LoRA, belongs to a text encoder, or does not fit the network.
    """
    layers = _by_layer(tensors, backbone)
    alphas = _alphas(metadata)
    # 1. Rank and alpha of each layer: A is (rank, in), B is (out, rank).
    sizes: dict[str, tuple[int, float]] = {}
    state: dict[str, Tensor] = {}
    for name, parts in layers.items():
        missing = {"lora_A.weight", "lora_B.weight"} - parts.keys()
        if missing:
            raise InputError(f"{name} has no {missing.pop()}: a LoRA has two for each layer")
        rank = parts["lora_A.weight"].shape[0]
        # The layer's tensor comes first, then its pattern, then the file's alpha; "" is every other layer.
        alpha = parts["alpha"].item() if "alpha" in parts else alphas.get(name, alphas.get("", rank))
        sizes[name] = rank, float(alpha)
        state |= {f"{name}.{part}": parts[part] for part in ("lora_A.weight", "lora_B.weight")}
    # 2. The layers, and their tensors.
    method = LoRA.on_layers(backbone, window, sizes)
    try:
        method.load(state)
    except InputError:
        method.remove()
        raise
    return method


def _by_layer(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, dict[str, Tensor]]:
    """Tensors by the network's layer and by part: lora_A.weight, lora_B.weight, alpha."""
    # kohya's keys have _ for each dot: names are compared in that form.
    names_by_key = {
        name.replace(".", "_"): name
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if TEXT_ENCODER.match(key):
            raise InputError(f"{key} tunes the text encoder: only a LoRA of the network alone can be used")
        end, part = next(((end, part) for end, part in ENDS if end.search(key)), (None, ""))
        if end is None:
            raise InputError(f"{key} is no part of a LoRA (lora_A and lora_B, or lora_down and lora_up)")
        # diffusers' old keys name the attention's processor between the attention and the layer.
        layer = PREFIX.sub("", end.sub("", key)).replace(".", "_").replace("_processor_", "_")
        # Old versions of diffusers omitted the 0 of to_out.0.
        name = names_by_key.get(layer) or names_by_key.get(f"{layer}_0")
        if name is None:
            raise InputError(f"{key} belongs to no layer of this network")
        layers[name][part] = tensor
    return layers


def _alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """alpha by layer, and under "" for all other layers, from the metadata that diffusers writes."""
    settings: dict[str, Any] = json.loads(metadata.get(DIFFUSERS_KEY, "{}"))
    # Keys are COMPONENT.SETTING.
    plain = {PREFIX.sub("", name): value for name, value in settings.items()}
    alphas = {name: float(alpha) for name, alpha in (plain.get("alpha_pattern") or {}).items()}
    if "lora_alpha" in plain:
        alphas[""] = float(plain["lora_alpha"])
    return alphas
