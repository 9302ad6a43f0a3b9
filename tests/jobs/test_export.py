"""`python run.py export`: what it writes for each tool, and the window in the tool's settings.

The tools' own readings of names and settings are written down here anew, from their code as of 2026-11.
"""

import errno
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from diffusers import HunyuanVideoPipeline, WanPipeline
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.cli import main
from motionexp.diffusion.schedule import Window
from motionexp.jobs import export as export_module
from motionexp.methods.adapters import load_adapter, save_adapter, window_of
from motionexp.methods.lora import ADAPTER, LoRA
from tests.support.tiny_families import FAMILIES, Family
from tests.support.training_runs import change

MODELS = {
    "wan": ("wan_1_3b", "model.frames=5 model.frame_range=[5,81] model.height=16 model.width=32"),
    "wan-experts": ("wan2_2_14b", "model.frames=5 model.frame_range=[5,81] model.height=16 model.width=32"),
    "hunyuan": ("hunyuan", "model.frames=5 model.frame_range=[5,129] model.height=16 model.width=32"),
    "mochi": ("mochi", "model.frames=7 model.frame_range=[7,163] model.height=16 model.width=32"),
    "ltx": ("ltx", "model.frames=9 model.frame_range=[9,257] model.height=16 model.width=32"),
}


class Model:
    """A tiny model, an adapter of it, and the command that exports the adapter."""

    def __init__(self, name: str, place: Path) -> None:
        family: Family = FAMILIES[name]
        self.name, self.folder = name, family.save(place / "model")
        self.backbone: PipelineBackbone = family.kind.from_pretrained(self.folder, name="tiny")
        method = LoRA(self.backbone, Window(700), rank=2, alpha=6.0, projections=("q", "v", "o"))
        change(method, size=0.3)
        self.adapter = save_adapter(place / "adapter", self.backbone, method)
        self.changes = deltas(method)
        self._place, self._exported = place, dict[str, Path]()
        method.remove()

    def exported(self, form: str) -> Path:
        """The folder of an export, which tests share."""
        if form not in self._exported:
            self._exported[form] = self._place / f"motion-{form}"
            assert self.export(form, self._exported[form]) == 0
        return self._exported[form]

    def export(self, form: str, folder: Path, *words: str) -> int:
        option, size = MODELS[self.name]
        source = [f"model={option}", f"model.path={self.folder}", "model.name=tiny", *size.split()]
        if not any(word.startswith("adapter=") for word in words):
            source.append(f"adapter={self.adapter}")
        return main(["export", f"format={form}", f"folder={folder}", *source, *words])


def deltas(method: Any) -> dict[str, Tensor]:
    return {name: layer.get_delta_weight(ADAPTER).clone() for name, layer in method.layers.items()}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param))


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", names, indirect=True)


def test_every_format_comes_back_with_its_window(model: Model) -> None:
    for form in ("diffusers", "comfyui", "kohya", "peft"):
        folder = model.exported(form)
        files = sorted(folder.glob("**/*.safetensors"))
        assert len(files) == 1 + (model.name == "wan-experts")
        # Two files in a folder are both experts'; a file alone is named.
        source = files[0] if len(files) == 1 else folder
        method = load_adapter(source, model.backbone)
        assert method.window == window_of(source) == Window(700)
        back = deltas(method)
        method.remove()
        for name, delta in model.changes.items():
            assert_close(back.pop(name), delta, rtol=1e-5, atol=1e-6)
        # The parts of a fused layer that were not tuned.
        assert all(not delta.any() for delta in back.values())
        assert "[700, 1000]" in (folder / "README.md").read_text()


# --- what each tool makes of the names


def comfyui_core(key: str, modules: set[str], family: str) -> str | None:
    """The model's weight that ComfyUI patches for a layer's name (comfy/lora.py, model_lora_keys_unet)."""
    table = {}
    for module in modules:
        table[f"diffusion_model.{module}"] = table[f"lora_unet_{module.replace('.', '_')}"] = module
        if family == "mochi":
            table[module] = module
        if family == "hunyuan":
            renamed = re.sub(r"_(attn)\.(qkv|proj)$", r"_\1_\2", module).replace("_mod.lin", "_mod.linear")
            renamed = renamed.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2")
            table[f"diffusion_model.{renamed}"] = table[f"transformer.{renamed}"] = module
    return table.get(key)


def wan_video_wrapper(key: str) -> str:
    """nodes_model_loading.py, standardize_lora_key_format, as far as it touches layers of blocks."""
    key = re.sub(r"^transformer\.", "diffusion_model.", key)
    key = re.sub(r"^blocks\.", "diffusion_model.blocks.", key)
    return key.replace(".attn1.", ".cross_attn.").replace(".attn2.", ".cross_attn.")


def musubi(modules: set[str]) -> dict[str, str]:
    """networks/lora.py, create_modules (30c658c, 2026-06): the keys of a network's modules before their dot.

    utils/lora_utils.py merges `KEY.lora_down.weight`, `KEY.lora_up.weight` and `KEY.alpha` by the same names.
    """
    return {f"lora_unet.{module}".replace(".", "_"): module for module in modules}


def wan2gp(key: str, family: str) -> str:
    """The module for a layer's key: mmgp 04b8d1f (2026-07), offload.py, load_loras_into_model, which takes
    off a prefix; before it, for Wan, models/wan/modules/model.py, preprocess_loras (Wan2GP 8681e9f, 2026-08).
    """
    if family.startswith("wan") and key.startswith("lora_unet_"):
        key = re.sub("^lora_unet__?blocks_", "diffusion_model.blocks.", key)
        key = re.sub("_(cross_attn|self_attn|ffn)_", r".\1.", key)
    return re.sub(r"^(diffusion_model|transformer)\.", "", key)


# Modules of Wan2GP whose names differ from the original code's; it cuts the fused ones into their parts
# (models/hyvideo/modules/models.py, get_linear_split_map).
OF_WAN2GP = {"img_attn.qkv": "img_attn_qkv", "img_attn.proj": "img_attn_proj"}


TUNED = {
    "wan": {f"blocks.{block}.self_attn.{letter}" for block in (0, 1) for letter in "qvo"},
    "wan-experts": {f"blocks.{block}.self_attn.{letter}" for block in (0, 1) for letter in "qvo"},
    "hunyuan": {"double_blocks.0.img_attn.qkv", "double_blocks.0.img_attn.proj", "single_blocks.0.linear1"},
    "mochi": {f"blocks.{block}.attn.{layer}" for block in (0, 1) for layer in ("qkv_x", "proj_x")},
    "ltx": {
        f"transformer_blocks.{block}.attn1.{layer}"
        for block in (0, 1)
        for layer in ("to_q", "to_v", "to_out.0")
    },
}
"""Which modules of the original code the adapter tunes.

Mochi's: genmo/mochi_preview/dit/joint_model/asymm_models_joint.py (0c86aeb, 2025-11), AsymmetricAttention.
"""


def layers_in(file: Path, *ends: str) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(file).items():
        end = next(end for end in ends if key.endswith(end))
        layers.setdefault(key.removesuffix(f".{end}"), {})[end] = tensor
    assert all(set(parts) == set(ends) for parts in layers.values())
    return layers


def test_the_tools_find_every_layer(model: Model) -> None:
    tuned = TUNED[model.name]
    for file in model.exported("comfyui").glob("*.safetensors"):
        layers = layers_in(file, "lora_A.weight", "lora_B.weight", "alpha")
        assert {comfyui_core(key, tuned, model.name) for key in layers} == tuned
        if model.name.startswith("wan"):
            assert {wan_video_wrapper(key) for key in layers} == {f"diffusion_model.{name}" for name in tuned}
        if model.name != "mochi":  # which Wan2GP does not have
            named = set(tuned)
            for original, name in OF_WAN2GP.items():
                named = {module.replace(original, name) for module in named}
            assert {wan2gp(key, model.name) for key in layers} == named
    for file in model.exported("kohya").glob("*.safetensors"):
        layers = layers_in(file, "lora_down.weight", "lora_up.weight", "alpha")
        assert {musubi(tuned)[key] for key in layers} == tuned
        if model.name.startswith("wan"):
            assert {wan2gp(key, model.name) for key in layers} == tuned
    if model.name != "wan-experts":
        return
    for form in ("comfyui", "kohya"):
        names = {file.name for file in model.exported(form).glob("*.safetensors")}
        assert names == {f"motion-{form}_{noise}_noise.safetensors" for noise in ("high", "low")}


@only("wan", "hunyuan")
def test_diffusers_converts_what_comfyui_gets(model: Model) -> None:
    pipeline = {"wan": WanPipeline, "hunyuan": HunyuanVideoPipeline}[model.name]
    tensors = load_file(model.exported("comfyui") / "motion-comfyui.safetensors")
    alphas = {key: tensors.pop(key) for key in [*tensors] if key.endswith(".alpha")}
    if model.name == "hunyuan":  # whose converter takes no alpha, and the real model's width alone
        tensors = {key: tensor for key, tensor in tensors.items() if "single_blocks" not in key}
        scales = {key.removesuffix(".alpha"): float(alpha) for key, alpha in alphas.items()}
        tensors = {
            key: tensor * (scales[key.split(".lora_")[0]] / len(tensor) if ".lora_A" in key else 1)
            for key, tensor in tensors.items()
        }
        alphas = {}
    converted = pipeline.lora_state_dict(tensors | alphas)
    ends, compared = (".lora_B.weight", ".lora_A.weight"), 0
    for key, up in converted.items():
        name = key.removeprefix("transformer.").removesuffix(ends[0])
        if key.endswith(ends[0]) and name in model.changes:
            assert_close(up @ converted[key.replace(*ends)], model.changes[name], rtol=1e-5, atol=1e-6)
            compared += 1
    assert compared == sum("single" not in name for name in model.changes)


@only("wan-experts")
def test_the_settings_beside_the_file(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.export("comfyui", tmp_path / "my-motion", "shift=12", "steps=40") == 0
    assert re.search("shift 12: .* on in 34 of 40 sampling steps", capsys.readouterr().out)
    settings = json.loads((tmp_path / "my-motion" / "window.json").read_text())
    # Of Wan 2.2's 40 steps at shift 12, 26 have t >= 875, and 34 have t >= 700.
    assert settings["weights"] == [1.0] * 34 + [0.0] * 6
    low = settings["files"]["my-motion_low_noise.safetensors"]
    assert low["wan2gp"] == "0;" + ",".join(["1"] * 8 + ["0"] * 6)
    assert low["prompt_control"] == "[<lora:my-motion_low_noise:1>::0.838]"
    high = settings["files"]["my-motion_high_noise.safetensors"]["wan2gp"]
    assert high == ",".join(["1"] * 26) + ";0"
    nodes: Mapping[str, Any] = json.loads(
        (tmp_path / "my-motion" / "my-motion_low_noise_hooks.json").read_text()
    )
    assert nodes["1"]["inputs"]["lora_name"] == "my-motion_low_noise.safetensors"
    frames = [node["inputs"] for node in nodes.values() if node["class_type"] == "CreateHookKeyframe"]
    assert [(frame["start_percent"], frame["strength_mult"]) for frame in frames] == [
        (0.0, 1.0),
        (0.838, 0.0),
    ]
    links = [value for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert all(link[0] in nodes for link in links)
    # WanVideoWrapper's samplers count their steps from 0 (custom_linear.py: index_select by the step), and a
    # list is an error unless merge_loras is false (nodes_model_loading.py, 2026-11).
    readme = (tmp_path / "my-motion" / "README.md").read_text()
    assert json.loads(re.search(r"my-motion_high_noise.safetensors: (\[.*\])", readme)[1]) == [1.0] * 26
    strengths = json.loads(re.search(r"my-motion_low_noise.safetensors: (\[.*\])", readme)[1])
    assert strengths == [1.0] * 8 + [0.0] * 6 == low["weights"]
    assert all(part in readme for part in ("merge_loras=false", "end_step=26", "start_step=26"))
    # Of WanVideoWrapper and of Wan2GP.
    assert readme.count("40 steps, at shift 12 with the timesteps of unipc") == 2


# Of ComfyUI's classes of models and of its nodes: the function of the shift, and what sigma is multiplied by
# for the network (comfy/supported_models.py, comfy/model_base.py and comfy_extras/, 2026-11).
IN_COMFYUI = {
    **dict.fromkeys(("wan", "wan-experts", "hunyuan"), ("DiscreteFlow", 1000)),
    "mochi": ("DiscreteFlow", 1),
    "ltx": ("Flux", 1),
}
NODES = {
    "ModelSamplingSD3": ("DiscreteFlow", 1000),
    "ModelSamplingAuraFlow": ("DiscreteFlow", 1),
    "ModelSamplingFlux": ("Flux", 1),
    "ModelSamplingLTXV": ("Flux", 1),
}


def test_the_node_of_the_shift_suits_the_model_in_comfyui(model: Model) -> None:
    readme = (model.exported("comfyui") / "README.md").read_text()
    node = re.search(r"take (\w+)", readme)
    assert node is not None
    assert NODES[node[1]] == IN_COMFYUI[model.name]
    settings = json.loads((model.exported("comfyui") / "window.json").read_text())
    shift = re.search(r" shift ([\d.]*\d)", readme.partition("take ")[2])
    assert shift is not None
    assert float(shift[1]) == pytest.approx(settings["shift"], rel=1e-5)
    for step in ltxv_scheduler(readme, settings) if model.name == "ltx" else ():
        assert step


def ltxv_scheduler(readme: str, settings: Any) -> list[bool]:
    """Whether each of our steps is one of nodes_lt.py, LTXVScheduler, within the node's two digits."""
    logarithm = float(re.search(r"max_shift and base_shift ([\d.]+\d)", readme)[1])  # type: ignore[index]
    steps, terminal = settings["steps"], 0.1
    unit = [1 - step / steps for step in range(steps)]
    sigmas = [math.exp(logarithm) / (math.exp(logarithm) + 1 / sigma - 1) for sigma in unit]
    stretch = (1 - sigmas[-1]) / (1 - terminal)
    return [
        abs(1000 - 1000 * (1 - sigma) / stretch - t) < 3
        for sigma, t in zip(sigmas, settings["t"], strict=True)
    ]


@only("wan")
def test_a_soft_windows_weights_are_the_same_everywhere(model: Model, tmp_path: Path) -> None:
    soft = Window(300, 1000, ((300.0, 0.0), (700.0, 1.0)))
    method = LoRA(model.backbone, soft, rank=2)
    adapter = save_adapter(tmp_path / "adapter", model.backbone, method)
    method.remove()
    assert model.export("comfyui", tmp_path / "soft", f"adapter={adapter}") == 0
    frames = json.loads((tmp_path / "soft" / "window.json").read_text())["comfyui_keyframes"]
    nodes = json.loads((tmp_path / "soft" / "soft_hooks.json").read_text()).values()
    inputs = [node["inputs"] for node in nodes if node["class_type"] == "CreateHookKeyframe"]
    readme = (tmp_path / "soft" / "README.md").read_text()
    assert 2 < len(frames) == len(inputs)
    for frame, node in zip(frames, inputs, strict=True):
        assert frame == {name: node[name] for name in frame}
        assert f"{frame['strength_mult']:g} from {frame['start_percent']:g}" in readme


@only("ltx")
def test_guidance_that_a_lora_does_not_carry_is_said(model: Model) -> None:
    card = (model.exported("diffusers") / "README.md").read_text()
    assert "with `stg_scale=1 stg_blocks=[19] guidance_rescale=0.7`, which this program leaves out" in card


# --- bad input


@only("wan")
def test_a_window_without_a_step_is_refused_before_anything_is_written(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = LoRA(model.backbone, Window(300, 500), rank=2)
    adapter = save_adapter(tmp_path / "adapter", model.backbone, method)
    method.remove()
    for form in ("comfyui", "diffusers"):
        words = [f"adapter={adapter}", "steps=2", "shift=8"]
        assert model.export(form, tmp_path / "new" / "motion", *words) == 2
        assert re.search(r"adapter=.*\[300, 500\].*steps=", capsys.readouterr().err)
        assert not (tmp_path / "new").exists()


@only("wan")
def test_an_export_is_written_whole_or_not_at_all(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "window.json":
            raise OSError(errno.ENOSPC, "full", str(path))
        path.write_bytes(content)

    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with monkeypatch.context() as patched:
            patched.setattr(export_module, "write_whole", full)
            assert model.export("peft", tmp_path / name) != 0
        assert [*tmp_path.glob(f"{name}/*")] == []
        assert model.export("peft", tmp_path / name) == 0
        assert (tmp_path / name / "adapter_config.json").is_file()
    assert {entry.name for entry in tmp_path.iterdir()} == {"new", "empty"}


@only("wan")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("format=gguf", "format=gguf"),
        ("shift=0", "shift=0"),
        ("shift=-3", "shift=-3"),
        ("shift=high", "shift=high"),
        ("tau=0.56", "tau=0.56"),
        ("steps=0", "steps"),
        ("model.name=another", "tiny.*another"),
        ("folder=docs", "folder=docs"),
        ("adapter=missing", "adapter=missing"),
    ],
)
def test_a_wrong_word_is_named(
    model: Model, words: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option, size = MODELS["wan"]
    given = {word.partition("=")[0]: word for word in size.split()} | {
        "adapter": f"adapter={model.adapter}",
        "format": "format=comfyui",
        "folder": f"folder={tmp_path / 'new'}",
        "model": f"model={option}",
        "model.path": f"model.path={model.folder}",
        "model.name": "model.name=tiny",
    }
    given[words.partition("=")[0]] = words
    assert main(["export", *given.values()]) == 2
    assert re.search(named, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()
