"""LoRAs of other trainers: diffusers' and kohya's keys, against diffusers' loading and plain arithmetic."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import check_adapter, load_adapter
from motionexp.methods.external_lora import DIFFUSERS_KEY
from tests.support.tiny_cogvideox import save_tiny_cogvideox
from tests.support.tiny_models import save_tiny_unet3d

WINDOW = Window(600)
FF = "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"
MOTION = "transformer_in.transformer_blocks.0.attn1.to_out.0"


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return UNet3DBackbone.from_pretrained(save_tiny_unet3d(tmp_path_factory.mktemp("unet")), name="tiny")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def halves(backbone: Backbone, name: str, rank: int) -> tuple[Tensor, Tensor]:
    layer = backbone.network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return drawn(rank, layer.in_features), drawn(layer.out_features, rank)


@torch.no_grad()
def predict(backbone: Backbone) -> Tensor:
    return backbone.predict(drawn(1, 4, 3, 4, 4), 700, backbone.embed(["a cat"]))


@torch.no_grad()
def with_weights_changed(backbone: Backbone, changes: dict[str, Tensor]) -> Tensor:
    """The output with matrices added to the weights of layers, which are put back."""
    layers = {name: backbone.network.get_submodule(name) for name in changes}
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight.add_(changes[name])
    output = predict(backbone)
    for name, layer in layers.items():
        layer.weight.copy_(before[name])
    return output


def kohya(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def file_of(kind: str, layers: dict[str, tuple[Tensor, Tensor, float]], path: Path) -> Path:
    """{layer: (down, up, alpha)} in the keys of a trainer."""
    tensors, metadata = {}, {"format": "pt"}
    for name, (down, up, alpha) in layers.items():
        if kind == "kohya":
            tensors |= {f"{kohya(name)}.lora_down.weight": down, f"{kohya(name)}.lora_up.weight": up}
            tensors[f"{kohya(name)}.alpha"] = torch.tensor(alpha)
        elif kind == "peft":
            tensors |= {f"base_model.model.{name}.lora_A.default.weight": down}
            tensors |= {f"base_model.model.{name}.lora_B.default.weight": up}
        else:
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    if kind == "diffusers":
        settings = {"unet.lora_alpha": 3.0, "unet.alpha_pattern": {FF: 5.0}}
        metadata[DIFFUSERS_KEY] = json.dumps(settings)
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("kind", "alphas"), [("kohya", (3.0, 5.0)), ("diffusers", (3.0, 5.0)), ("peft", (2.0, 4.0))]
)
def test_it_adds_its_matrices_within_the_given_window(
    unet: Backbone, kind: str, alphas: tuple[float, float], tmp_path: Path
) -> None:
    layers = {
        name: (*halves(unet, name, rank), alpha)
        for name, rank, alpha in zip((MOTION, FF), (2, 4), alphas, strict=True)
    }
    path = file_of(kind, layers, tmp_path / "lora.safetensors")
    expected = with_weights_changed(
        unet, {name: up @ down * alpha / len(down) for name, (down, up, alpha) in layers.items()}
    )
    base = predict(unet)
    assert (expected - base).abs().max() > 0.01
    method = load_adapter(path, unet, WINDOW)
    assert method.window == WINDOW
    assert torch.equal(predict(unet), base)
    for t, inside in ((599, False), (600, True)):
        assert method.set_active(t) is inside
        torch.testing.assert_close(predict(unet), expected if inside else base, rtol=1e-4, atol=1e-5)
    method.remove()
    assert torch.equal(predict(unet), base)


def test_what_diffusers_trained_acts_as_diffusers_loads_it(tmp_path: Path) -> None:
    folder = save_tiny_cogvideox(tmp_path / "tiny")
    backbone = CogVideoXBackbone.from_pretrained(folder)
    theirs = CogVideoXPipeline.from_pretrained(folder)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["to_k", "to_out.0"], init_lora_weights=False)
    theirs.transformer.add_adapter(config)
    theirs.transformer.save_lora_adapter(str(tmp_path / "lora"))
    (path,) = (tmp_path / "lora").glob("*.safetensors")

    def outputs(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return network(drawn(1, 3, 4, 4, 6), drawn(1, 12, 16), torch.tensor([700]), return_dict=False)[0]

    base = outputs(backbone.network)
    method = load_adapter(path, backbone, Window(0))
    method.switch(True)
    torch.testing.assert_close(outputs(backbone.network), outputs(theirs.transformer))
    assert (outputs(backbone.network) - base).abs().max() > 0.01
    method.remove()


def test_it_needs_a_window(unet: Backbone, tmp_path: Path) -> None:
    path = file_of("peft", {MOTION: (*halves(unet, MOTION, 2), 2.0)}, tmp_path / "lora.safetensors")
    for read in (lambda: load_adapter(path, unet), lambda: check_adapter(path)):
        with pytest.raises(InputError, match=r"adapter=.*tau="):
            read()
    check_adapter(path, has_window=True)


@pytest.mark.parametrize(
    ("key", "shape", "named"),
    [
        ("lora_unet_blocks_7_attn1_to_q.lora_down.weight", (2, 8), "lora_unet_blocks_7_attn1_to_q"),
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", (2, 8), "to_q.lora_A"),
        (f"unet.{MOTION}.lora_A.weight", (2, 9), rf"{MOTION}.*\(2, 9\).*\(2, 32\)"),
        (f"unet.{MOTION}.lora_magnitude_vector", (8,), "lora_magnitude_vector"),
        (f"{kohya(MOTION)}.hada_w1_a", (8, 2), "hada_w1_a"),
        (
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            (2, 8),
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ),
        ("text_encoder.layers.0.lora_A.weight", (2, 8), r"text_encoder\.layers"),
        (f"unet.{FF}.lora_A.weight", (2, 32), rf"{FF} .*lora_B\.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    unet: Backbone, key: str, shape: tuple[int, ...], named: str, tmp_path: Path
) -> None:
    down, up = halves(unet, MOTION, 2)
    tensors = {
        f"unet.{MOTION}.lora_A.weight": down,
        f"unet.{MOTION}.lora_B.weight": up,
        key: torch.zeros(shape),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=f"lora.safetensors: .*{named}"):
        load_adapter(tmp_path / "lora.safetensors", unet, WINDOW)
    load_adapter(
        file_of("peft", {MOTION: (down, up, 2.0)}, tmp_path / "fits.safetensors"), unet, WINDOW
    ).remove()
