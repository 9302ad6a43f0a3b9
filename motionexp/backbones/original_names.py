"""The layers of networks by the names of the models' original code, which most LoRA files have.

Names and fusions of Wan and HunyuanVideo are what diffusers' own converters make of a file with every layer.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import HunyuanVideoLoraLoaderMixin, WanLoraLoaderMixin
from torch import nn

from motionexp.diffusion.backbone import Originals

# HunyuanVideo's converter cuts the rows of a fused layer at three times 3072, whatever the network's width.
ROWS = 3 * 3072 + 3

WAN_BLOCK = (
    *(f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in "qkvo"),
    *("cross_attn.k_img", "cross_attn.v_img", "ffn.0", "ffn.2"),
)
WAN_OUTSIDE = (
    *("text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1"),
    *("head.head", "img_emb.proj.1", "img_emb.proj.3"),
)
HUNYUAN_DOUBLE = tuple(
    f"{stream}_{layer}"
    for stream in ("img", "txt")
    for layer in ("attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2", "mod.linear")
)
HUNYUAN_SINGLE = ("linear1", "linear2", "modulation.linear")
HUNYUAN_REFINER = ("self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
HUNYUAN_OUTSIDE = (
    *("img_in.proj", "time_in.mlp.0", "time_in.mlp.2", "guidance_in.mlp.0", "guidance_in.mlp.2"),
    *("vector_in.in_layer", "vector_in.out_layer", "final_layer.linear", "txt_in.input_embedder"),
    *(f"txt_in.{layer}" for layer in ("t_embedder.mlp.0", "t_embedder.mlp.2")),
    *(f"txt_in.c_embedder.{layer}" for layer in ("linear_1", "linear_2")),
)
# As diffusers' script for Mochi's checkpoints has them. It swaps the halves of w1, which is left out.
MOCHI_BLOCK = {
    "attn.qkv_x": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.qkv_y": ("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj"),
    "attn.proj_x": ("attn1.to_out.0",),
    "attn.proj_y": ("attn1.to_add_out",),
    "mlp_x.w2": ("ff.net.2",),
    "mlp_y.w2": ("ff_context.net.2",),
    "mod_x": ("norm1.linear",),
    "mod_y": ("norm1_context.linear",),
}


def wan(network: Any) -> Originals:
    """See `Backbone.original_layers`; of Wan 2.2 those of one expert."""
    return _converted(
        WanLoraLoaderMixin, [*_each_block("blocks", network.config.num_layers, WAN_BLOCK), *WAN_OUTSIDE]
    )


def hunyuan(network: Any) -> Originals:
    """See `Backbone.original_layers`."""
    config = network.config
    refiner = _each_block(
        "txt_in.individual_token_refiner.blocks", config.num_refiner_layers, HUNYUAN_REFINER
    )
    layers = [
        *_each_block("double_blocks", config.num_layers, HUNYUAN_DOUBLE),
        *_each_block("single_blocks", config.num_single_layers, HUNYUAN_SINGLE),
        *(*refiner, *HUNYUAN_OUTSIDE),
    ]
    converted = _converted(HunyuanVideoLoraLoaderMixin, layers)
    # ComfyUI's own names for the same layers.
    return {**converted, **{_in_comfyui(name): modules for name, modules in converted.items()}}


def _in_comfyui(name: str) -> str:
    name = re.sub(r"(_mod|\.modulation)\.linear$", r"\1.lin", name)
    return name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2")


def mochi(network: Any) -> Originals:
    """See `Backbone.original_layers`."""
    return {
        f"blocks.{block}.{layer}": tuple(f"transformer_blocks.{block}.{module}" for module in modules)
        for block in range(network.config.num_layers)
        for layer, modules in MOCHI_BLOCK.items()
    }


def animatediff(network: nn.Module) -> Originals:
    """See `Backbone.original_layers`: the motion modules as their authors' motion LoRAs have them."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return {_of_motion_module(name): (name,) for name in names if ".motion_modules." in name}


def _of_motion_module(name: str) -> str:
    name = re.sub(r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)
    return re.sub(r"\.attn([12])\.", lambda match: f".attention_blocks.{int(match[1]) - 1}.", name)


def _each_block(blocks: str, count: int, layers: Sequence[str]) -> list[str]:
    return [f"{blocks}.{block}.{layer}" for block in range(count) for layer in layers]


def _converted(converter: Any, layers: Sequence[str]) -> Originals:
    """What a converter of diffusers (`lora_state_dict`) makes of layers of the original code.

    It gets a file with every layer: it fails on files that lack some. A tensor holds its layer's number.
    """
    tensors = {}
    for number, name in enumerate(layers):
        value = torch.full((1, 1), float(number))
        tensors[f"diffusion_model.{name}.lora_A.weight"] = value.expand(3, 1)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = value.expand(ROWS, 1)
    modules_of = defaultdict[str, list[str]](list)
    for key, tensor in converter.lora_state_dict(tensors).items():
        if key.endswith(".lora_B.weight"):
            module = key.removeprefix("transformer.").removesuffix(".lora_B.weight")
            modules_of[layers[int(tensor[0, 0])]].append(module)
    return {name: tuple(modules) for name, modules in modules_of.items()}
