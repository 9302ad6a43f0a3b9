"""Cases of files of weights: adapters, checkpoints of trainings, models, classifiers."""

import atexit
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.diffusion.schedule import Window
from motionexp.files import BLANK_SEAL, seal
from motionexp.jobs.cell import read_fit_record
from motionexp.methods.adapters import (
    DIGEST_KEY,
    METADATA_KEY,
    Recipe,
    _digest,
    check_adapter,
    load_adapter,
    save_adapter,
)  # fmt: skip
from motionexp.methods.checkpoints import SealedFile
from motionexp.methods.external_lora import EXPORT_KEY
from motionexp.methods.lora import LoRA
from motionexp.metrics.attribute_classifier import AttributeClassifier, ClassifierConfig
from tests.fuzz.damage import MODULE, Damage
from tests.support.tiny_models import save_tiny_pipeline, save_tiny_unet3d

WINDOW = Window(600)
LAYER = "transformer_in.transformer_blocks.0.attn1.to_out.0"
RECIPE = Recipe(["a cat runs"], 5, 8, 2, 1e-2, 0.01, "adamw", {"motionexp": "0.1.0"})


class Payload:
    """Pickled, it imports a module that nothing may import."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, (MODULE,)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its numbers."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def damaged_tensors(damage: Damage, content: bytes) -> bytes:
    """A safetensors file with a damaged header, or with damaged bytes."""
    if damage.maybe(0.5):
        header, numbers = split(content)
        text = damage.dumped(damage.tree(header)).encode(errors="surrogatepass")
        return len(text).to_bytes(8, "little") + text + numbers
    return damage.bytes(content)


@cache
def _folder() -> Path:
    """Of the files that cases copy; the process that made it deletes it, and none that it forked."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _network() -> UNet3DBackbone:
    return UNet3DBackbone.from_pretrained(save_tiny_unet3d(_folder() / "unet"), name="tiny")


@cache
def _adapter() -> bytes:
    method = LoRA(_network(), WINDOW, rank=2, alpha=2.0, projections=["v", "o"])
    try:
        return save_adapter(_folder() / "adapter", _network(), method, RECIPE).read_bytes()
    finally:
        method.remove()


def _use_adapter(folder: Path, damage: Damage) -> None:
    window = None if damage.maybe(0.1) else WINDOW
    check_adapter(folder, window is not None)
    load_adapter(folder, _network(), window).remove()


def adapter(damage: Damage, folder: Path) -> None:
    """An adapter of motionexp; half of the damage comes with the right digest."""
    content = _adapter()
    if damage.maybe(0.6):
        header, numbers = split(content)
        about = damage.tree(json.loads(header["__metadata__"][METADATA_KEY]))
        text = damage.dumped(about)
        tensors = {
            name: torch.frombuffer(
                bytearray(numbers[slice(*part["data_offsets"])]), dtype=torch.float32
            ).view(part["shape"])
            for name, part in header.items()
            if name != "__metadata__"
        }
        if damage.maybe(0.3):
            name = damage.random.choice(list(tensors))
            tensors[name] = _other_tensor(damage, tensors[name])
        metadata = header["__metadata__"] | {METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}
        try:
            content = save(tensors, metadata)
        except (UnicodeError, RuntimeError, ValueError):
            content = damaged_tensors(damage, content)
    else:
        content = damaged_tensors(damage, content)
    (folder / "adapter.safetensors").write_bytes(content)
    fit = {"suite": "squares", "reference": "one", "steps": 2, "seconds": 1.0}
    (folder / "fit.json").write_bytes(damage.encoded(damage.dumped(damage.tree(fit))))
    _use_adapter(folder, damage)
    read_fit_record(folder)


def _other_tensor(damage: Damage, tensor: torch.Tensor) -> torch.Tensor:
    empty, infinite = torch.tensor([]), torch.tensor(float("inf"))
    tensors = [empty, infinite, torch.tensor(1.0), tensor[None], tensor[None][:0], tensor * float("nan")]
    tensors += [tensor.half(), tensor.bool(), tensor.to(torch.int64), tensor.to(torch.complex64)]
    return damage.random.choice([*tensors, torch.ones(1, *tensor.shape[1:])])


def external_lora(damage: Damage, folder: Path) -> None:
    """LoRAs of other trainers: their tensors, their names, the settings beside them."""
    layer = _network().network.get_submodule(LAYER)
    down, up = torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2)
    kohya, peft = f"lora_unet_{LAYER.replace('.', '_')}", f"base_model.model.{LAYER}"
    alpha = torch.tensor(2.0)
    forms = {
        "kohya": {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up, f"{kohya}.alpha": alpha},
        "diffusers": {f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up},
        "peft": {f"{peft}.lora_A.weight": down, f"{peft}.lora_B.weight": up},
    }
    form = damage.random.choice(list(forms))
    tensors, metadata = forms[form], {"format": "pt"}
    if damage.maybe(0.4):
        name = damage.random.choice(list(tensors))
        tensors[name] = _other_tensor(damage, tensors[name])
    settings = {
        "r": 2,
        "lora_alpha": 3.0,
        "rank_pattern": {"to_out": 2},
        "alpha_pattern": {},
        "use_rslora": False,
    }
    if form == "diffusers":
        flat = {f"unet.{name}": value for name, value in settings.items()}
        metadata["lora_adapter_metadata"] = damage.dumped(damage.tree(flat))
    if damage.maybe(0.2):
        window = {"low": 600, "high": 1000.0, "knots": [[600, 0.5], [1000, 1.0]]}
        metadata[EXPORT_KEY] = damage.dumped(damage.tree(window))
    name = {"peft": "adapter_model.safetensors"}.get(form, "lora.safetensors")
    try:
        content = save(tensors, metadata)
    except (UnicodeError, RuntimeError, ValueError):
        content = save(tensors)
    if form != "diffusers" and damage.maybe(0.4):
        content = damaged_tensors(damage, content)
    (folder / name).write_bytes(content)
    if form == "peft":
        config = settings | {"peft_type": "LORA", "target_modules": ["to_out.0"], "layers_to_transform": None}
        (folder / "adapter_config.json").write_bytes(damage.encoded(damage.dumped(damage.tree(config))))
    _use_adapter(folder if form == "peft" else folder / name, damage)


@cache
def _checkpoint() -> bytes:
    memory = io.BytesIO()
    content = {"state_dict": {"a": torch.ones(3)}, "epoch": 1, "loops": {"steps": [1, 2]}, "losses": [0.5]}
    torch.save(content, memory)
    return memory.getvalue()


def training_checkpoint(damage: Damage, folder: Path) -> None:
    """A checkpoint of a training; half of the damage comes with the right seal, some with code."""
    content, blank = _checkpoint(), BLANK_SEAL.encode()
    if damage.maybe(0.5):
        if damage.maybe(0.3):
            memory = io.BytesIO()
            torch.save({"state_dict": Payload()}, memory)
            content = damage.random.choice((memory.getvalue(), pickle.dumps(Payload())))
        content = bytes(seal(damage.bytes(content) + blank))
    else:
        content = damage.bytes(bytes(seal(content + blank)))
    (folder / "last.ckpt").write_bytes(content)
    SealedFile().load_checkpoint(folder / "last.ckpt")


@cache
def _pipelines() -> dict[str, Path]:
    return {
        "latte": save_tiny_pipeline(_folder() / "pipeline-latte"),
        "unet": save_tiny_unet3d(_folder() / "pipeline-unet"),
    }


def model_folder(damage: Damage, folder: Path) -> None:
    """A pipeline's folder with one damaged file: settings, weights, vocabulary."""
    kind = damage.random.choice(("latte", "unet"))
    source = _pipelines()[kind]
    shutil.copytree(source, folder / "model")
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    file = folder / "model" / damage.random.choice(files)
    content = file.read_bytes()
    if file.suffix == ".json" and damage.maybe(0.8):
        content = damage.encoded(damage.dumped(damage.tree(json.loads(content))))
    elif file.suffix == ".safetensors":
        content = damaged_tensors(damage, content)
    else:
        content = damage.bytes(content)
    file.write_bytes(content)
    backbone = {"latte": LatteBackbone, "unet": UNet3DBackbone}[kind].from_pretrained(
        folder / "model", name="tiny"
    )
    backbone.check_captions(["a cat"])
    assert backbone.schedule is not None


@cache
def _classifier() -> Path:
    config = ClassifierConfig({"colour": ("red", "blue")}, width=8)
    AttributeClassifier(config).save(_folder() / "classifier")
    return _folder() / "classifier"


def classifier(damage: Damage, folder: Path) -> None:
    shutil.copytree(_classifier(), folder / "classifier")
    name = damage.random.choice(("config.json", "model.safetensors"))
    file = folder / "classifier" / name
    if name == "config.json":
        file.write_bytes(damage.encoded(damage.dumped(damage.tree(json.loads(file.read_text())))))
    else:
        file.write_bytes(damaged_tensors(damage, file.read_bytes()))
    AttributeClassifier.load(folder / "classifier")


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    "adapter": (adapter, 600),
    "external_lora": (external_lora, 600),
    "training_checkpoint": (training_checkpoint, 500),
    "model_folder": (model_folder, 500),
    "classifier": (classifier, 300),
}
