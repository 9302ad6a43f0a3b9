"""LoRA files in the names of the models' original code: what diffusers' converters make of them, and more."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoPipeline, WanPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from motionexp.backbones import original_names
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import load_adapter
from motionexp.methods.lora import ADAPTER
from tests.support.tiny_families import FAMILIES, Family

ALPHA = 3.0
WAN_BLOCK = [f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in "qkvo"] + ["ffn.0", "ffn.2"]


@pytest.fixture(scope="module", params=["wan", "wan-experts", "hunyuan", "mochi"])
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def backbone(family: Family, folder: Path) -> Backbone:
    return family.kind.from_pretrained(folder, name="tiny", fps=6)


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", names, indirect=True)


def half(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))


def file_of(
    path: Path,
    layers: Mapping[str, tuple[int, int]],
    form: str = "diffusion_model.{}.lora_{}.weight",
    **more: Tensor,
) -> Path:
    """A file of rank 2 with {layer: (inputs, outputs)}; `form` gets a layer's name and A or B."""
    tensors = dict(more)
    for number, (name, (inputs, outputs)) in enumerate(layers.items()):
        if form.startswith("lora_unet"):
            stem = form.format(name.replace(".", "_"))
            tensors |= {f"{stem}.lora_down.weight": half(2, inputs) + number}
            tensors |= {f"{stem}.lora_up.weight": half(outputs, 2), f"{stem}.alpha": torch.tensor(ALPHA)}
        else:
            tensors |= {
                form.format(name, "A"): half(2, inputs) + number,
                form.format(name, "B"): half(outputs, 2),
            }
    save_file(tensors, path)
    return path


def changes(file: Path, backbone: Backbone) -> dict[str, Tensor]:
    """What a file changes of the weights of each layer of the network, by peft's own reckoning."""
    method = load_adapter(file, backbone, Window(0))
    deltas = {name: layer.get_delta_weight(ADAPTER).clone() for name, layer in method.layers.items()}
    method.remove()
    return deltas


def wan_layers(network: nn.Module, blocks: int = 2) -> dict[str, tuple[int, int]]:
    width, inner = (
        network.config.num_attention_heads * network.config.attention_head_dim,
        network.config.ffn_dim,
    )
    sizes = {"ffn.0": (width, inner), "ffn.2": (inner, width)}
    return {
        f"blocks.{block}.{layer}": sizes.get(layer, (width, width))
        for block in range(blocks)
        for layer in WAN_BLOCK
    }


def converted(pipeline: type, file: Path) -> dict[str, Tensor]:
    """The product B A of each layer, by the name that diffusers' converter gives it."""
    tensors = pipeline.lora_state_dict(str(file.parent), weight_name=file.name)
    ends = ".lora_B.weight", ".lora_A.weight"
    return {
        name.removesuffix(ends[0]).removeprefix("transformer."): up @ tensors[name.replace(*ends)]
        for name, up in tensors.items()
        if name.endswith(ends[0])
    }


@only("wan")
@pytest.mark.parametrize("form", ["diffusion_model.{}.lora_{}.weight", "lora_unet_{}"])
def test_wan_is_read_as_diffusers_reads_it(form: str, backbone: Backbone, tmp_path: Path) -> None:
    file = file_of(tmp_path / "lora.safetensors", wan_layers(backbone.network), form)
    ours, theirs = changes(file, backbone), converted(WanPipeline, file)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 20
    for name, delta in theirs.items():
        assert_close(ours[name], delta, rtol=1e-5, atol=1e-6)


@only("wan")
@pytest.mark.parametrize(
    "form",
    [
        "lora_unet_{}",  # diffusers' converter takes only files with every layer
        "lora_unet__{}",
        "pipe.dit.{}.lora_{}.default.weight",
        "{}.lora_{}.weight",
        "transformer.{}.lora_{}.weight",
    ],
)
def test_wan_with_a_few_layers_and_any_start(form: str, backbone: Backbone, tmp_path: Path) -> None:
    layers = {
        name: size for name, size in wan_layers(backbone.network).items() if name.endswith("self_attn.v")
    }
    file = file_of(tmp_path / "lora.safetensors", layers, form)
    deltas = changes(file, backbone)
    scale = ALPHA / 2 if form.startswith("lora_unet") else 1.0
    for number in (0, 1):
        width = backbone.network.get_submodule("blocks.0.attn1.to_v").in_features
        expected = half(width, 2) @ (half(2, width) + number) * scale
        assert_close(deltas[f"blocks.{number}.attn1.to_v"], expected, rtol=1e-5, atol=1e-6)
    assert len(deltas) == 2


@only("hunyuan")
def test_fused_layers_of_hunyuan(backbone: Backbone, tmp_path: Path) -> None:
    config = backbone.network.config
    width = config.num_attention_heads * config.attention_head_dim
    inner = int(width * config.mlp_ratio)
    layers = {
        "double_blocks.0.img_attn_qkv": (width, 3 * width),
        "double_blocks.0.img_attn_proj": (width, width),
        "double_blocks.0.txt_attn_qkv": (width, 3 * width),
        "double_blocks.0.img_mlp.fc1": (width, inner),
    }
    file = file_of(tmp_path / "double.safetensors", layers)
    theirs = converted(HunyuanVideoPipeline, file)
    ours = changes(file, backbone)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 8
    for name, delta in theirs.items():
        assert_close(ours[name], delta, rtol=1e-5, atol=1e-6)
    # diffusers' converter cuts these at the real model's width, and those of the refiner within A.
    more = {
        "single_blocks.0.linear1": (width, 3 * width + inner),
        "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": (width, 3 * width),
    }
    deltas = changes(file_of(tmp_path / "single.safetensors", more, "lora_unet_{}"), backbone)
    for number, (block, parts) in enumerate(
        {
            "single_transformer_blocks.0": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
            "context_embedder.token_refiner.refiner_blocks.0": ("attn.to_q", "attn.to_k", "attn.to_v"),
        }.items()
    ):
        whole = torch.cat([deltas[f"{block}.{part}"] for part in parts])
        expected = half(len(whole), 2) @ (half(2, width) + number) * ALPHA / 2
        assert_close(whole, expected, rtol=1e-5, atol=1e-6)
    assert len(deltas) == 7
    wrong = {"double_blocks.0.img_attn_qkv": (width, 3 * width + 1)}
    with pytest.raises(InputError, match=rf"img_attn_qkv.* {3 * width + 1} rows.* {3 * width}"):
        load_adapter(file_of(tmp_path / "wrong.safetensors", wrong), backbone, Window(0))


@only("mochi")
def test_fused_layers_of_mochi(backbone: Backbone, tmp_path: Path) -> None:
    width = backbone.network.get_submodule("transformer_blocks.0.attn1.to_q").in_features
    file = file_of(
        tmp_path / "lora.safetensors",
        {"blocks.0.attn.qkv_x": (width, 3 * width), "blocks.1.attn.proj_x": (width, width)},
        "{}.lora_{}.weight",
    )
    deltas = changes(file, backbone)
    whole = torch.cat([deltas[f"transformer_blocks.0.attn1.to_{letter}"] for letter in "qkv"])
    assert_close(whole, half(3 * width, 2) @ half(2, width), rtol=1e-5, atol=1e-6)
    assert len(deltas) == 4
    assert "transformer_blocks.1.attn1.to_out.0" in deltas


def test_motion_modules_of_animatediff() -> None:
    block = nn.ModuleDict({"attn1": nn.ModuleDict({"to_q": nn.Linear(2, 2)}), "attn2": nn.Linear(2, 2)})
    module = nn.ModuleDict({"transformer_blocks": nn.ModuleList([block]), "proj_in": nn.Linear(2, 2)})
    network = nn.ModuleDict(
        {"down_blocks": nn.ModuleList([nn.ModuleDict({"motion_modules": nn.ModuleList([module])})])}
    )
    start = "down_blocks.0.motion_modules.0"
    inner = f"{start}.temporal_transformer.transformer_blocks.0.attention_blocks"
    names = original_names.animatediff(network)
    assert names[f"{inner}.0.to_q"] == (f"{start}.transformer_blocks.0.attn1.to_q",)
    assert names[f"{start}.temporal_transformer.proj_in"] == (f"{start}.proj_in",)


@only("hunyuan")
def test_the_bias_of_a_fused_layer_is_cut(backbone: Backbone, tmp_path: Path) -> None:
    name, modules = "double_blocks.0.img_attn_qkv", ("to_q", "to_k", "to_v")
    size = backbone.network.get_submodule("transformer_blocks.0.attn.to_q").weight.shape[0]
    bias = torch.arange(3.0 * size)
    odd = {f"diffusion_model.{name}.diff_b": bias}
    method = load_adapter(
        file_of(tmp_path / "lora.safetensors", {name: (size, 3 * size)}, **odd), backbone, Window(0)
    )
    method.remove()
    parts = [method.biases[f"transformer_blocks.0.attn.{module}"] for module in modules]
    assert torch.equal(torch.cat(parts), bias)


# --- what is not loaded


@only("wan")
def test_what_is_not_loaded_is_listed(backbone: Backbone, tmp_path: Path) -> None:
    odd = {
        "diffusion_model.blocks.0.norm3.diff": torch.zeros(2),
        "diffusion_model.img_emb.proj.1.lora_A.weight": half(2, 4),
        "diffusion_model.img_emb.proj.1.lora_B.weight": half(4, 2),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": half(2, 4),
    }
    file = file_of(tmp_path / "lora.safetensors", wan_layers(backbone.network), **odd)
    with pytest.warns(UserWarning, match="40 of 44 tensors .*20 layers") as warned:
        method = load_adapter(file, backbone, Window(0))
    method.remove()
    assert set(method.unread) == set(odd)
    assert all(name in str(warned[0].message) for name in odd)


@only("wan")
def test_of_many_tensors_the_first_are_listed(
    backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {
        f"diffusion_model.blocks.{block}.norm{norm}.diff": half(2) for block in (0, 1) for norm in range(9)
    }
    file = file_of(tmp_path / "lora.safetensors", wan_layers(backbone.network), **odd)
    with caplog.at_level("DEBUG"), pytest.warns(UserWarning, match="and 14 others") as warned:
        load_adapter(file, backbone, Window(0)).remove()
    assert sum(name in str(warned[0].message) for name in odd) == 4
    assert all(name in caplog.text for name in odd)


@only("wan")
@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ({"double_blocks.0.img_attn_qkv": (24, 72)}, "double_blocks.0.img_attn_qkv.*two models"),
        ({"down_blocks.0.attentions.0.proj_in": (24, 24)}, "down_blocks.0.*two models"),
        ({"blocks.7.self_attn.q": (24, 24)}, "blocks.7.self_attn.q.*deeper"),
        ({"blocks.0.self_attn.v": (1536, 1536)}, r"blocks.0.attn1.to_v.*\(2, 1536\).*\(2, 24\)"),
    ],
)
def test_a_file_for_another_model(
    layers: dict[str, tuple[int, int]], named: str, backbone: Backbone, tmp_path: Path
) -> None:
    file = file_of(tmp_path / "lora.safetensors", wan_layers(backbone.network) | layers)
    with pytest.raises(InputError, match=f"^adapter=.*{named}"):
        load_adapter(file, backbone, Window(0))
    alone = file_of(tmp_path / "alone.safetensors", layers)
    with pytest.raises(InputError, match=next(iter(layers)).split(".")[0]):
        load_adapter(alone, backbone, Window(0))


# --- files for one of two experts


@pytest.fixture
def single(tmp_path: Path, backbone: Backbone) -> Path:
    layers = {"blocks.0.self_attn.v": (24, 24)}
    return file_of(tmp_path / "motion.safetensors", layers, "lora_unet_{}")


@only("wan-experts")
def test_the_files_names_say_the_expert(single: Path, backbone: Backbone) -> None:
    with pytest.raises(InputError, match=r"lora_unet_blocks_0_self_attn_v.*expert.*high or low"):
        load_adapter(single, backbone, Window(0))
    high = single.rename(single.with_name("motion_HighNoise.safetensors"))
    assert list(changes(high, backbone)) == ["transformer.blocks.0.attn1.to_v"]
    low = single.with_name("motion-low_noise.safetensors")
    low.write_bytes(high.read_bytes())
    assert list(changes(low, backbone)) == ["transformer_2.blocks.0.attn1.to_v"]
    both = changes(single.parent, backbone)
    assert list(both) == ["transformer.blocks.0.attn1.to_v", "transformer_2.blocks.0.attn1.to_v"]


@only("wan-experts")
def test_the_layers_names_win_over_a_bare_word_of_the_files(tmp_path: Path, backbone: Backbone) -> None:
    layers, layer = {"blocks.0.attn1.to_v": (24, 24)}, "transformer_2.blocks.0.attn1.to_v"
    kick = file_of(tmp_path / "wan22_high_kick.safetensors", layers, "transformer_2.{}.lora_{}.weight")
    assert list(changes(kick, backbone)) == [layer]
    # Beside a file for high noise, whose names diffusers begins with transformer for either expert.
    kick.rename(tmp_path / "kick_low_noise.safetensors")
    high = file_of(tmp_path / "kick_high_noise.safetensors", layers, "transformer.{}.lora_{}.weight")
    assert list(changes(tmp_path, backbone)) == [layer.replace("_2", ""), layer]
    file_of(high, layers, "transformer_2.{}.lora_{}.weight")
    for adapter in (high, tmp_path):
        with pytest.raises(InputError, match=rf"{high.name}: its own name has high_noise, .* \({layer}\)"):
            load_adapter(adapter, backbone, Window(0))
