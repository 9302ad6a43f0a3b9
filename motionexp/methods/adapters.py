"""Adapter files: the tuned tensors in diffusers' keys, with the window and the recipe in the metadata."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from motionexp.config.renames import METHODS
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.methods.base import TuningMethod
from motionexp.methods.external_lora import attach
from motionexp.methods.lora import LoRA

FILE_NAME = "adapter.safetensors"
METADATA_KEY = "motionexp"
DIGEST_KEY = "motionexp_sha256"  # safetensors has no checksum: a flipped bit would load
_NO_WINDOW = (
    "adapter={path}: not saved by motionexp, so that it does not say in which window it acts: give tau=,"
    " 0 for all timesteps"
)


@dataclass(frozen=True)
class Recipe:
    """How the tensors came about; it goes into the file and is not needed to apply them.

    Attributes:
        captions: of the references that were tuned on.
        seed, steps, batch_size, learning_rate, weight_decay, optimizer: of the training.
        packages: versions by name, motionexp's among them.
    """

    captions: list[str]
    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str
    packages: dict[str, str]


def save_adapter(folder: Path, backbone: Backbone, method: TuningMethod, recipe: Recipe) -> Path:
    """Write `adapter.safetensors`, whole or not at all, and return its path.

    The keys are those that diffusers' `load_lora_weights` expects (`transformer.MODULE.lora_A.weight`, ...,
    with `unet.` before those of a U-Net), and for full-rank tuning those of the network's own
    `load_state_dict` (`MODULE.weight`, ...). Neither applies the window, which stands in the metadata under
    `motionexp`, as JSON, with the rest of the recipe.

    Raises:
        ValueError: the method's window is empty: there is no adapter then.
        OSError: it cannot be written.
    """
    if method.window.is_empty:
        raise ValueError("tau = 1000 is the base model: it has no adapter to save")
    tensors = {
        method.key_prefix + name: tensor.to("cpu").contiguous() for name, tensor in method.state().items()
    }
    about = {
        "model": backbone.name,
        "source": backbone.source,
        "revision": backbone.revision,
        "weights_hash": backbone.weights_hash,
        "method": method.name,
        "settings": method.settings,
        "window": asdict(method.window),
        "recipe": asdict(recipe),
    }
    text = json.dumps(about)
    metadata = {"format": "pt", METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}
    if isinstance(method, LoRA):
        metadata["lora_adapter_metadata"] = json.dumps(_peft_settings(method))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    write_whole(path, save(tensors, metadata))
    return path


def load_adapter(path: Path, backbone: Backbone, window: Window | None = None) -> TuningMethod:
    """Attach a kept adapter, switched off, with its own window; or a LoRA that another trainer made.

    Args:
        path: the file, or the folder that holds `adapter.safetensors`.
        backbone: of the same weights as it was tuned on; another trainer's file does not tell which.
        window: of another trainer's, which carries none; unused with ours.

    Raises:
        InputError: there is no such file; it is damaged or no adapter; it belongs to other weights, or to
            another network; or its window is nowhere said. No method is left attached then.
    """
    path = _file(path)
    tensors, about, metadata = _read(path)
    if about is None:
        if window is None:
            raise InputError(_NO_WINDOW.format(path=path))
        try:
            return attach(tensors, metadata, backbone, window)
        except InputError as error:
            raise InputError(f"adapter={path}: unusable with {backbone.name}: {error}") from error
    try:
        method_class = find_method(METHODS.get(about["method"], about["method"]))
    except InputError as error:
        raise InputError(f"adapter={path}: {error}") from error
    kept = about["window"]
    knots = tuple((t, weight) for t, weight in kept.get("knots", ()))
    window = Window(kept["low"], kept["high"], knots)
    method = method_class(backbone, window, **about["settings"])
    try:
        method.load({name.removeprefix(method.key_prefix): tensor for name, tensor in tensors.items()})
        if about["weights_hash"] != backbone.weights_hash:
            raise InputError("the shapes agree, but the weights are others")
    except InputError as error:
        method.remove()
        raise InputError(
            f"adapter={path}: tuned on {about['model']} (weights {about['weights_hash'][:12]}), unusable"
            f" with {backbone.name} (weights {backbone.weights_hash[:12]}): {error}"
        ) from error
    return method


def find_method(name: str) -> Callable[..., TuningMethod]:
    """The tuning method in the file of that name in this folder.

    Raises:
        InputError: there is no such file, or it holds no method.
    """
    folder = Path(__file__).parent
    found = []
    if (folder / f"{name}.py").is_file():
        module = import_module(f"{__package__}.{name}")
        found = [value for value in vars(module).values() if _is_method(value, module.__name__)]
    if not found:
        raise InputError(f"method {name}: motionexp/methods/ has no such method")
    return found[0]


def _is_method(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, TuningMethod) and value.__module__ == module


def check_adapter(path: Path, has_window: bool = False) -> None:
    """Raises InputError where a file, or the one in a folder, is no whole adapter; needs no backbone.

    `has_window` says whether there is a window for another trainer's.
    """
    path = _file(path)
    _, about, _ = _read(path)
    if about is None and not has_window:
        raise InputError(_NO_WINDOW.format(path=path))


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None, dict[str, str]]:
    """Tensors, what we wrote about them (None: another trainer's file), and all metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"adapter={path}: there is no such file") from None
    except SafetensorError as error:
        raise InputError(f"adapter={path}: damaged, or not a safetensors file ({error})") from error
    if METADATA_KEY not in metadata:
        return tensors, None, metadata
    if metadata.get(DIGEST_KEY) != _digest(metadata[METADATA_KEY], tensors):
        raise InputError(f"adapter={path}: damaged: its contents are not those that were saved")
    return tensors, json.loads(metadata[METADATA_KEY]), metadata


def _peft_settings(method: LoRA) -> dict[str, Any]:
    """What diffusers makes its LoraConfig of, for each component; without it, it takes alpha for the rank."""
    names = sorted({(method.key_prefix + name).rsplit(".", 2)[0] for name in method.parameters})
    modules: dict[str, list[str]] = defaultdict(list)
    for name in names:
        component, _, module = name.partition(".")
        modules[component].append(module)
    rank, alpha = method.settings["rank"], method.settings["alpha"]
    return {
        f"{component}.{key}": value
        for component, own in modules.items()
        for key, value in (("r", rank), ("lora_alpha", alpha), ("target_modules", own))
    }


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
