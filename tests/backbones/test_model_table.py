"""docs/models.md: what it says of each model is what `conf/model/` and the network itself say."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetMotionModel,
    WanTransformer3DModel,
)
from hydra.utils import get_object
from torch import nn

from motionexp.backbones import load_backbone
from motionexp.backbones.random_weights import COGVIDEOX_5B, LATTE_1, WAN_1_3B
from motionexp.backbones.show1_network import ShowOneUNet
from motionexp.backbones.wan import WanExperts
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from tests.support.tiny_show1 import SHOW_1

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ROWS = {row[0].strip("`"): row[1:] for row in re.findall(r"^\| (`\w+`) \| (.*) \|$", PAGE, re.MULTILINE)
        for row in [[row[0], *row[1].split(" | ")]]}  # fmt: skip


def animatediff() -> nn.Module:
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNetMotionModel.from_unet2d(unet, MotionAdapter(use_motion_mid_block=False), load_weights=False)


def wan_experts() -> nn.Module:
    return WanExperts(WanTransformer3DModel(), WanTransformer3DModel(), boundary=875)


UNET3D = partial(UNet3DConditionModel, sample_size=32, cross_attention_dim=1024, attention_head_dim=64)
COGVIDEOX_2B = {**COGVIDEOX_5B, "num_attention_heads": 30, "num_layers": 30,
                "use_rotary_positional_embeddings": False}  # fmt: skip
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "modelscope": UNET3D,
    "zeroscope": UNET3D,
    "show1": partial(ShowOneUNet, **SHOW_1),
    "latte": partial(LatteTransformer3DModel, **LATTE_1),
    "cogvideox_2b": partial(CogVideoXTransformer3DModel, **COGVIDEOX_2B),
    "cogvideox_5b": partial(CogVideoXTransformer3DModel, **COGVIDEOX_5B),
    "animatediff": animatediff,
    "wan_1_3b": partial(WanTransformer3DModel, **WAN_1_3B),
    "wan_14b": WanTransformer3DModel,
    "wan2_2_14b": wan_experts,
    "ltx": LTXVideoTransformer3DModel,
    "hunyuan": HunyuanVideoTransformer3DModel,
    "mochi": MochiTransformer3DModel,
}


@dataclass(frozen=True)
class OnMeta:
    """The part of a backbone that counting trainable parameters reads."""

    network: nn.Module
    names: dict[str, list[str]]

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        return self.names


def sizes(backbone: Backbone) -> list[str]:
    """Parameters of the network, motion attentions, and what LoRA and full-rank tuning train."""
    numbers = (
        sum(parameter.numel() for parameter in backbone.network.parameters()),
        len(backbone.motion_projections(Window(0))["v"]),
        LoRA.trainable_parameters(backbone, rank=4),
        FullRank.trainable_parameters(backbone),
    )
    return [f"{number:,}" for number in numbers]


def facts(model: ModelConfig) -> list[str]:
    """Hub, revision, default tau and frames of a model's file, as the page writes them."""
    revision = model.revision or "—"
    if not re.fullmatch(r"[0-9a-f]{40}(\+[0-9a-f]{40})?", revision):
        revision = f"**moving**: {revision}"
    frames = str(model.frames)
    if model.frame_range:
        step = f", step {model.frame_step}" if model.frame_step > 1 else ""
        frames += f" ({model.frame_range[0]} to {model.frame_range[1]}{step})"
    short = "+".join(commit[:12] for commit in revision.split("+"))
    return [model.path, revision if "moving" in revision else short, f"{model.default_tau:g}", frames]


def test_every_model_of_the_hub_has_a_row() -> None:
    assert set(ROWS) == set(options("model"))
    assert {name for name, row in ROWS.items() if row[0].startswith("bundled:")} == set(ROWS) - set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_says_what_the_models_file_says(name: str) -> None:
    row, model = ROWS[name], load([f"model={name}"]).model
    assert row[:4] == facts(model)
    # Only a configuration in the owner's own repository is verified.
    assert ("**unverified**" in row[8]) == (f"hub, {model.path.split('/')[0]}/" not in row[8])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_has_the_networks_sizes(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]()
    family: Any = get_object(load([f"model={name}"]).model._target_).__self__
    on_meta = OnMeta(network, family.find_projections(network, "motion"))
    assert ROWS[name][4:8] == sizes(cast(Backbone, on_meta))


@pytest.mark.parametrize("name", sorted(set(ROWS) - set(NETWORKS)))
def test_a_bundled_models_row_has_its_sizes(name: str) -> None:
    model = load([f"model={name}"]).model
    assert ROWS[name] == [model.path, *sizes(load_backbone(model.path, device="cpu"))]
