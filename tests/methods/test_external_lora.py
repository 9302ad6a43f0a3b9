"""LoRAs of other trainers: the keys of diffusers, ComfyUI and kohya's scripts; files that cannot be used."""

import json
from pathlib import Path

import pytest
import torch
from peft import inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods import lora
from motionexp.methods.adapters import check_adapter, load_adapter
from motionexp.methods.external_lora import EXPORT_KEY
from motionexp.methods.lora import DIFFUSERS_KEY, LoRA
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
        elif kind == "ComfyUI":
            tensors |= {f"diffusion_model.{name}.lora_A.weight": down.half()}
            tensors |= {f"diffusion_model.{name}.lora_B.weight": up.bfloat16()}
            tensors[f"diffusion_model.{name}.alpha"] = torch.tensor([alpha], dtype=torch.float16)
        elif kind == "old diffusers":
            attention, _, layer = name.partition(".to_out.0")
            assert not layer
            tensors |= {f"{attention}.processor.to_out_lora.down.weight": down}
            tensors |= {f"{attention}.processor.to_out_lora.up.weight": up}
        else:
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    if kind == "diffusers":
        settings = {"r": 2, "lora_alpha": 3.0, "rank_pattern": {FF: 4}, "alpha_pattern": {FF: 5.0}}
        metadata[DIFFUSERS_KEY] = json.dumps({f"unet.{key}": value for key, value in settings.items()})
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("kind", "alphas"),
    [("kohya", (3.0, 5.0)), ("ComfyUI", (3.0, 5.0)), ("diffusers", (3.0, 5.0)), ("no alpha", (2.0, 4.0))],
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
    assert (method.window, method.name) == (WINDOW, "external_lora")
    assert torch.equal(predict(unet), base)
    for t, inside in ((599, False), (600, True)):
        assert method.set_active(t) is inside
        # ComfyUI's file has 16-bit numbers.
        tolerance = 0.05 if kind == "ComfyUI" else 1e-5
        torch.testing.assert_close(predict(unet), expected if inside else base, rtol=1e-4, atol=tolerance)
    method.remove()
    assert torch.equal(predict(unet), base)


def test_a_bias_is_added_while_it_is_on(unet: Backbone, tmp_path: Path) -> None:
    down, up = halves(unet, MOTION, 2)
    path = file_of("kohya", {MOTION: (down, up, 3.0)}, tmp_path / "lora.safetensors")
    norm = {"diffusion_model.norm.diff_b": drawn(32)}  # of no layer with a LoRA
    save_file(load_file(path) | {f"{kohya(MOTION)}.diff_b": drawn(32)} | norm, path)
    layer, base = unet.network.get_submodule(MOTION), predict(unet)
    layer.bias.data += drawn(32)
    expected = with_weights_changed(unet, {MOTION: up @ down * 1.5})
    layer.bias.data -= drawn(32)
    with pytest.warns(UserWarning, match="4 of 5 tensors.*norm.diff_b"):
        method = load_adapter(path, unet, WINDOW)
    for t, output in ((599, base), (600, expected)):
        method.set_active(t)
        torch.testing.assert_close(predict(unet), output, rtol=1e-4, atol=1e-5)
    method.remove()
    torch.testing.assert_close(predict(unet), base, rtol=1e-4, atol=1e-5)


def test_the_names_of_old_diffusers(unet: Backbone, tmp_path: Path) -> None:
    down, up = halves(unet, MOTION, 2)
    path = file_of("old diffusers", {MOTION: (down, up, 2.0)}, tmp_path / "old.safetensors")
    expected = with_weights_changed(unet, {MOTION: up @ down})
    method = load_adapter(path, unet, WINDOW)
    method.switch(True)
    torch.testing.assert_close(predict(unet), expected, rtol=1e-4, atol=1e-5)
    method.remove()


def test_it_needs_a_window(unet: Backbone, tmp_path: Path) -> None:
    path = file_of("no alpha", {MOTION: (*halves(unet, MOTION, 2), 2.0)}, tmp_path / "lora.safetensors")
    for read in (lambda: load_adapter(path, unet), lambda: check_adapter(path)):
        with pytest.raises(InputError, match=r"adapter=.*tau="):
            read()
    check_adapter(path, has_window=True)


# --- files that cannot be used

NAME = f"unet.{MOTION}"
PAIR = {f"{NAME}.lora_A.weight": torch.ones(2, 32), f"{NAME}.lora_B.weight": torch.ones(32, 2)}
ALPHA = {f"{NAME}.alpha": torch.tensor(3.0)}
UNKNOWN = "blocks.0.self_attn.q"
KOHYA = kohya(MOTION)


def pair(name: str) -> dict[str, Tensor]:
    return {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight": torch.ones(32, 2)}


def described(**settings: object) -> dict[str, str]:
    return {DIFFUSERS_KEY: json.dumps({f"unet.{key}": value for key, value in settings.items()})}


ALONE = {
    "no tensors": ({}, {}, ""),
    "size 0": ({name: torch.zeros(0) for name in PAIR}, {}, f"{NAME}"),
    "NaN": (PAIR | {f"{NAME}.lora_B.weight": torch.full((32, 2), float("nan"))}, {}, f"{NAME}"),
    "infinite": (PAIR | {f"{NAME}.lora_A.weight": torch.full((2, 32), float("inf"))}, {}, f"{NAME}"),
    "NaN in 8 bits": (
        PAIR | {f"{NAME}.lora_A.weight": torch.full((2, 32), float("nan")).to(torch.float8_e4m3fn)},
        {},
        f"{NAME}",
    ),
    "whole numbers": ({name: value.to(torch.int8) for name, value in PAIR.items()}, {}, "torch.int8"),
    "half a pair": (PAIR | {f"unet.{FF}.lora_A.weight": torch.ones(2, 32)}, {}, f"{FF} .*lora_B.weight"),
    "ranks": (PAIR | {f"{NAME}.lora_B.weight": torch.ones(32, 3)}, {}, f"{NAME}"),
    "one dimension": ({name: torch.ones(2) for name in PAIR}, {}, f"{NAME}"),
    "twice": (PAIR | {f"{NAME}.lora_down.weight": torch.ones(2, 32)}, {}, "lora_(down|[AB])"),
    "two adapters": (
        {f"{NAME}.lora_{half}.{name}.weight": torch.ones(2, 2) for half in "AB" for name in ("one", "two")},
        {},
        "lora_[AB].two",
    ),
    "alpha 0": (PAIR | {f"{NAME}.alpha": torch.tensor(0.0)}, {}, f"{NAME}.alpha"),
    "two alphas": (PAIR | {f"{NAME}.alpha": torch.ones(2)}, {}, f"{NAME}.alpha"),
    "alpha of one layer": (PAIR | ALPHA | pair(f"unet.{FF}"), {}, f"{FF}"),
    "DoRA": (PAIR | {f"{NAME}.lora_magnitude_vector": torch.ones(8)}, {}, "magnitude"),
    "kohya's DoRA": (PAIR | {f"{KOHYA}.dora_scale": torch.ones(8)}, {}, "dora_scale"),
    "LoHa": ({f"{KOHYA}.hada_w1_a": torch.ones(8, 2)}, {}, "hada"),
    "LoKr": ({f"{KOHYA}.lokr_w1": torch.ones(8, 2)}, {}, "lokr"),
    "a difference": (PAIR | {f"{NAME}.diff": torch.ones(8)}, {}, "diff"),
    "a bias alone": ({f"{NAME}.diff_b": torch.ones(8)}, {}, "diff_b"),
    "a bias": (PAIR | {f"{NAME}.lora_B.bias": torch.ones(8)}, {}, "bias"),
    "kohya's text encoder": (pair("lora_te_text_model_encoder_layers_0_mlp_fc1"), {}, "text encoder"),
    "text encoder": (pair("text_encoder.layers.0"), {}, "text encoder"),
    "peft without settings": (pair(f"base_model.model.{MOTION}"), {}, "adapter_config.json"),
    "no JSON": (PAIR, {DIFFUSERS_KEY: "{"}, f"{DIFFUSERS_KEY}"),
    "deep JSON": (PAIR, {DIFFUSERS_KEY: "[" * 100_000}, f"{DIFFUSERS_KEY}"),
    "a list": (PAIR, {DIFFUSERS_KEY: "[]"}, f"{DIFFUSERS_KEY}"),
    "nothing described": (PAIR, {DIFFUSERS_KEY: "{}"}, f"{DIFFUSERS_KEY}"),
    "only the text encoder": (
        PAIR,
        {DIFFUSERS_KEY: '{"text_encoder.r": 2}'},
        f"{DIFFUSERS_KEY}",
    ),
    "null": (PAIR, described(r=2, lora_alpha=None), "lora_alpha"),
    "words": (PAIR, described(r=2, lora_alpha="four"), "lora_alpha"),
    "NaN alpha": (PAIR, described(r=2, lora_alpha=float("nan")), "lora_alpha"),
    "a huge alpha": (PAIR, described(r=2, lora_alpha=10**400), "lora_alpha"),
    "a true alpha": (PAIR, described(r=2, lora_alpha=True), "lora_alpha"),
    "a rank in words": (PAIR, described(r="2"), "'2'"),
    "rank 0": (PAIR, described(r=0), "unet: .*0"),
    "a list of ranks": (PAIR, described(r=2, rank_pattern=[1]), "rank_pattern"),
    "a list of alphas": (PAIR, described(r=2, alpha_pattern="x"), "alpha_pattern"),
    "a null in a pattern": (PAIR, described(r=2, alpha_pattern={"x": None}), "lora_alpha"),
    "an expression": (PAIR, described(r=2, alpha_pattern={"(": 2}), r"alpha_pattern.*\('"),
    "rslora in words": (PAIR, described(r=2, use_rslora="no"), "use_rslora='no'"),
    "other methods": (PAIR, described(r=2, peft_type="LOHA"), "peft_type='LOHA'"),
    "use_dora": (PAIR, described(r=2, use_dora=True), "use_dora"),
    "lora_bias": (PAIR, described(r=2, lora_bias=True), "lora_bias"),
    "biases": (PAIR, described(r=2, bias="all"), "bias='all'"),
    "modules_to_save": (PAIR, described(r=2, modules_to_save=["proj_out"]), "modules_to_save"),
    "a later setting": (PAIR, described(r=2, use_new=True), "use_new"),
    "PiSSA": (PAIR, described(r=2, init_lora_weights="pissa_niter_4"), "init_lora_weights='pissa_niter_4'"),
    "alpha twice": (PAIR | ALPHA, described(r=2), f"{NAME}.alpha"),
    "kohya's metadata": (PAIR, {"ss_network_alpha": "16"}, "ss_network_alpha=16"),
    "plain metadata": (PAIR, {"unet.lora_alpha": "16"}, "lora_alpha=16"),
    "metadata in words": (PAIR, {"lora_alpha": "many"}, "lora_alpha=many"),
    "metadata in JSON": (PAIR, {"lora_config": '{"r": 2, "lora_alpha": 16}'}, "lora_alpha=16"),
    "a damaged window": (PAIR, {EXPORT_KEY: '{"low": "x", "high": 1000}'}, "window"),
    "half a window": (PAIR, {EXPORT_KEY: '{"low": 700}'}, "window"),
    "plain rslora": (PAIR, {"use_rslora": "True"}, "use_rslora=True"),
}


@pytest.mark.parametrize("case", ALONE)
def test_a_file_that_is_wrong_without_a_network(case: str, tmp_path: Path) -> None:
    tensors, metadata, named = ALONE[case]
    save_file(tensors, tmp_path / "lora.safetensors", metadata or None)
    with pytest.raises(InputError, match=f"^adapter=.*lora.safetensors: .*{named}"):
        check_adapter(tmp_path / "lora.safetensors", has_window=True)


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_network_alpha": "2.0", "ss_network_dim": "2"},
        {"ss_network_alpha": "None", "prompt": "{a cat}", "use_rslora": "false"},
        described(r=2, lora_alpha=2, rank_pattern=None, bias="none", use_dora=False, eva_config=None),
        described(r=2, lora_alpha=2, init_lora_weights="gaussian", lora_dropout=0.1, auto_mapping={"a": 1}),
    ],
)
def test_settings_that_change_nothing(metadata: dict[str, str], unet: Backbone, tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "lora.safetensors", metadata)
    method = load_adapter(tmp_path / "lora.safetensors", unet, WINDOW)
    assert {layer.scaling["motionexp"] for layer in method.layers.values()} == {1.0}
    method.remove()


@pytest.mark.parametrize(
    ("tensors", "metadata", "named"),
    [
        (pair(f"diffusion_model.{UNKNOWN}"), {}, f"{UNKNOWN} .*diffusers.*unet.*lora_A.weight"),
        (pair("lora_unet_blocks_0_self_attn_q"), {}, "lora_unet_blocks_0_self_attn_q .*diffusers"),
        (PAIR | pair("transformer.transformer_blocks.0.attn1.to_q"), {}, "transformer_blocks.0.attn1.to_q"),
        (PAIR | pair(f"transformer_2.{MOTION}"), {}, "transformer_2"),
        (PAIR | pair(MOTION), {}, MOTION),
        (PAIR | {f"{NAME}.diff_b": torch.ones(8)}, {}, rf"{MOTION}: diff_b is \(8,\).*32"),
        ({name: value[:, :2] for name, value in PAIR.items()}, {}, rf"{MOTION}.*\(2, 2\).*\(2, 32\)"),
        (PAIR, described(r=4), f"{MOTION} has rank 2, but {DIFFUSERS_KEY} of unet says 4"),
        (PAIR, described(lora_alpha=2), "says 8"),  # as peft and diffusers have it where none is given
        (PAIR, {DIFFUSERS_KEY: '{"r": 2, "lora_alpha": 9}'}, f"{DIFFUSERS_KEY}"),
        (PAIR, {DIFFUSERS_KEY: '{"transformer.r": 2}'}, f"{DIFFUSERS_KEY}"),
    ],
)
def test_what_does_not_fit_the_network_is_named(
    unet: Backbone, tensors: dict[str, Tensor], metadata: dict[str, str], named: str, tmp_path: Path
) -> None:
    file, base = tmp_path / "lora.safetensors", predict(unet)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata or None)
    check_adapter(file, has_window=True)
    with pytest.raises(InputError, match=f"^adapter=.*lora.safetensors: .*{named}"):
        load_adapter(file, unet, WINDOW)
    # Nothing stays attached.
    assert torch.equal(predict(unet), base)
    save_file(PAIR, file)
    load_adapter(file, unet, WINDOW).remove()


def test_nothing_stays_attached_where_peft_fails(unet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    base, attributes = predict(unet), set(vars(unet.network))

    def fails(*_: object, **__: object) -> None:
        inject_adapter_in_model(*_, **__)
        raise ValueError("no")

    monkeypatch.setattr(lora, "inject_adapter_in_model", fails)
    with pytest.raises(ValueError, match="no"):
        LoRA(unet, WINDOW)
    assert torch.equal(predict(unet), base)
    assert set(vars(unet.network)) == attributes
    monkeypatch.undo()
    LoRA(unet, WINDOW).remove()


# --- peft's adapter_config.json

LORA_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["to_out.0"]}


def peft_folder(
    folder: Path, config: object, name: str = "adapter_model.safetensors", **metadata: str
) -> Path:
    save_file(pair(f"base_model.model.{MOTION}"), folder / name, metadata or None)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / name


def test_adapter_config_scales_its_file(unet: Backbone, tmp_path: Path) -> None:
    path = peft_folder(tmp_path, LORA_CONFIG)
    for named in (path, tmp_path):
        method = load_adapter(named, unet, WINDOW)
        assert method.layers[MOTION].scaling["motionexp"] == 3.0
        method.remove()


@pytest.mark.parametrize(
    ("config", "metadata", "named"),
    [
        ("{", {}, "adapter_config.json"),
        ("null", {}, "adapter_config.json"),
        (LORA_CONFIG | {"peft_type": "IA3"}, {}, "IA3"),
        (LORA_CONFIG | {"r": 4}, {}, "rank 2, but adapter_config.json says 4"),
        (LORA_CONFIG | {"target_modules": ["to_q"]}, {}, "adapter_config.json"),
        (LORA_CONFIG | {"exclude_modules": [MOTION]}, {}, "adapter_config.json"),
        (LORA_CONFIG | {"target_modules": "(", "r": 2}, {}, "adapter_config.json"),
        (LORA_CONFIG | {"target_modules": None}, {}, "target_modules"),
        (LORA_CONFIG | {"layers_to_transform": [7]}, {}, "adapter_config.json"),
        (LORA_CONFIG, described(r=2), DIFFUSERS_KEY),
    ],
)
def test_an_adapter_config_that_does_not_fit(
    unet: Backbone, config: object, metadata: dict[str, str], named: str, tmp_path: Path
) -> None:
    path = peft_folder(tmp_path, config, **metadata)
    with pytest.raises(InputError, match=f"^adapter=.*: .*{named}"):
        load_adapter(path, unet, WINDOW)
    LoRA(unet, WINDOW).remove()


def test_peft_under_another_name_is_refused(unet: Backbone, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^adapter=.*mine.safetensors: .*adapter_model.safetensors"):
        check_adapter(peft_folder(tmp_path, LORA_CONFIG, "mine.safetensors"), has_window=True)
