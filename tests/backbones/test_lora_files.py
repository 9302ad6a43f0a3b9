"""LoRA files that peft and diffusers save, of every family: they act as peft and diffusers load them."""

import json
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from motionexp.backbones.ltx import LTXBackbone
from motionexp.backbones.wan import WanExpertsBackbone
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import load_adapter
from motionexp.methods.lora import DIFFUSERS_KEY
from tests.support.tiny_families import Family

COMPONENTS = ("transformer", "transformer_2")


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> Backbone:
    loaded = family.kind.from_pretrained(folder, name="tiny", fps=6)
    if loaded.any_size:
        loaded.frames, loaded.height, loaded.width = family.video
    return loaded


@pytest.fixture(scope="module")
def output(family: Family, backbone: Backbone) -> Callable[[nn.Module], Tensor]:
    """The output of a network like the backbone's; of Wan 2.2 at a timestep of each expert."""
    conditioning = backbone.embed(["a cat"])

    @torch.no_grad()
    def predict(network: nn.Module) -> Tensor:
        changed = copy(backbone)
        changed.network = network
        timesteps = (900, 300) if isinstance(backbone, WanExpertsBackbone) else (700,)
        return torch.cat([changed.predict(family.noisy(1), t, conditioning) for t in timesteps])

    return predict


def networks(backbone: Backbone) -> dict[str, nn.Module]:
    """Copies of the networks by the pipeline's component."""
    network = deepcopy(backbone.network)
    if isinstance(backbone, WanExpertsBackbone):
        return {component: network.get_submodule(component) for component in COMPONENTS}
    return {backbone.key_prefix.removesuffix("."): network}


def joined(backbone: Backbone, parts: dict[str, nn.Module]) -> nn.Module:
    if not isinstance(backbone, WanExpertsBackbone):
        return next(iter(parts.values()))
    network = deepcopy(backbone.network)
    for component, part in parts.items():
        network.set_submodule(component, part)
    return network


def config_of(network: nn.Module, **settings: Any) -> LoraConfig:
    """Two ranks and three alphas, by a name's end and by an expression; convolutions too."""
    layers = dict(network.named_modules())
    outputs = [name for name in layers if name.endswith("to_out.0")]
    first = [name for name in layers if name in ("conv_in", "patch_embedding")]
    targets = [name.replace("to_out.0", "to_q") for name in outputs] + outputs + first
    return LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=[name for name in targets if name in layers],
        rank_pattern={"to_out.0": 2},
        alpha_pattern={r".*\.0\..*to_q": 5, "attn1.to_out.0": 4},
        init_lora_weights=False,
        **settings,
    )


@torch.no_grad()
def smaller(network: nn.Module) -> None:
    """Random weights answer to small changes with large ones."""
    for name, weight in network.named_parameters():
        if "lora_" in name:
            weight.mul_(0.3)


def acts_as(file: Path, expected: Tensor, backbone: Backbone, output: Callable[[nn.Module], Tensor]) -> None:
    base = output(backbone.network)
    assert (expected - base).abs().max() > 0.01
    method = load_adapter(file, backbone, Window(0))
    method.switch(True)
    assert_close(output(backbone.network), expected, rtol=1e-4, atol=1e-5)
    method.remove()
    assert torch.equal(output(backbone.network), base)


def test_a_folder_of_peft(backbone: Backbone, output: Callable[[nn.Module], Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    (component, network), *more = networks(backbone).items()
    tuned = get_peft_model(network, config_of(network))
    smaller(tuned)
    tuned.save_pretrained(tmp_path)
    if more:
        # It does not say which expert it is of.
        with pytest.raises(InputError, match=r"adapter=.*base_model.model.* component"):
            load_adapter(tmp_path, backbone, Window(0))
        return
    theirs = PeftModel.from_pretrained(networks(backbone)[component], str(tmp_path)).base_model.model
    acts_as(tmp_path, output(theirs), backbone, output)


def test_a_file_of_diffusers_with_use_rslora(
    family: Family, backbone: Backbone, output: Callable[[nn.Module], Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    (component, network), *_ = networks(backbone).items()
    if not hasattr(network, "load_lora_adapter"):
        pytest.skip("diffusers loads no LoRA into this network")
    network.add_adapter(config_of(network, use_rslora=True))
    smaller(network)
    theirs = networks(backbone)
    if family.pipeline is None:
        network.save_lora_adapter(tmp_path)
        theirs[component].load_lora_adapter(
            str(tmp_path), prefix=None, weight_name="pytorch_lora_weights.safetensors"
        )
        acts_as(tmp_path, output(theirs[component]), backbone, output)
        return
    pipeline: Any = family.pipeline
    layers = {f"{component}_lora_layers": get_peft_model_state_dict(network)}
    pipeline.save_lora_weights(tmp_path, **layers, **_collate_lora_metadata({component: network}))
    tensors, *alphas, metadata = pipeline.lora_state_dict(str(tmp_path), return_lora_metadata=True)
    into = pipeline.load_lora_into_unet if alphas else pipeline.load_lora_into_transformer
    into(tensors, *alphas, theirs[component], metadata=metadata)
    acts_as(tmp_path, output(joined(backbone, theirs)), backbone, output)
    if isinstance(backbone, WanExpertsBackbone):
        # A file for both experts: diffusers loads a file into one expert at a time.
        into(tensors, theirs["transformer_2"], metadata=metadata)
        both = tensors | {for_second(name): value.clone() for name, value in tensors.items()}
        config = metadata | {for_second(name): value for name, value in metadata.items()}
        save_file(both, tmp_path / "both.safetensors", {DIFFUSERS_KEY: json.dumps(config)})
        acts_as(tmp_path / "both.safetensors", output(joined(backbone, theirs)), backbone, output)


def for_second(name: str) -> str:
    return name.replace("transformer.", "transformer_2.", 1)


@pytest.mark.parametrize("family", ["animatediff", "ltx"], indirect=True)
def test_keys_of_kohya_and_of_comfyui(
    family: Family, backbone: Backbone, output: Callable[[nn.Module], Tensor], tmp_path: Path
) -> None:
    (network,) = networks(backbone).values()
    pipeline: Any = family.pipeline
    stream, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in network.named_modules():
        # diffusers does not know the motion modules' names in kohya's keys.
        if not name.endswith(("attn1.to_v", "attn2.to_out.0")) or "motion_modules" in name:
            continue
        down = torch.randn(2, layer.in_features, generator=stream)
        up = torch.randn(layer.out_features, 2, generator=stream) / 10
        if family.kind is LTXBackbone:
            key = f"diffusion_model.{name}"
            tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        else:
            key = "lora_unet_" + name.replace(".", "_")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = torch.tensor(6.0)
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file, {"ss_network_alpha": "6.0"} if "unet" in key else None)
    if family.kind is LTXBackbone:
        pipeline.load_lora_into_transformer(pipeline.lora_state_dict(str(file)), network)
    else:
        pipeline.load_lora_into_unet(*pipeline.lora_state_dict(str(file)), network)
    acts_as(file, output(network), backbone, output)
