"""Adapter files: the tuned tensors in diffusers' keys, with the window and the recipe in the metadata."""

import hashlib
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from inspect import getmembers, isabstract, isclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from motionexp.config.adapter_files import FILE_NAME, adapter_files, expert_of, names_noise, peft_config_file
from motionexp.config.renames import METHODS
from motionexp.config.targets import check_allowed
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.files import sorted_metadata, user_path, write_whole
from motionexp.methods.base import TuningMethod
from motionexp.methods.external_lora import EXPORT_KEY, ExternalFile, ExternalLoRA, attach, read_external
from motionexp.methods.lora_config import is_alpha, read_object

METADATA_KEY = "motionexp"
DIGEST_KEY = "motionexp_sha256"  # safetensors has no checksum: a flipped bit would load
_NO_WINDOW = (
    "adapter={path}: not saved by motionexp and without a window: give sampling_tau= (or tau=), the lowest"
    " timestep at which it acts (0 for all timesteps)"
)
# The experts' components, by the words in the names of their files.
EXPERTS = {"high": "transformer", "low": "transformer_2"}

_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
_ABOUT = {"model": str, "weights_hash": str, "method": str, "settings": dict, "window": dict}


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter file of motionexp: its tensors, and how they were made."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How the tensors were trained. The file stores the recipe; applying the tensors does not need it.

    Attributes:
        captions: training captions of the references.
        seed, steps, batch_size, learning_rate, weight_decay, optimizer: of the training.
        packages: versions by name, including motionexp's.
    """

    captions: list[str]
    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str
    packages: dict[str, str]


def save_adapter(
    folder: str | Path, backbone: Backbone, method: TuningMethod, recipe: Recipe | None = None
) -> Path:
    """Write `adapter.safetensors`, whole or not at all, and return its path.

    The keys of a LoRA are those of diffusers' `load_lora_weights` (`transformer.MODULE.lora_A.weight`, with
    `unet.` for a U-Net). The keys of full-rank tuning are those of the network's own `load_state_dict`
    (`MODULE.weight`). diffusers does not apply the window: it is in the metadata under `motionexp`, as JSON,
    with the recipe, which may be missing.

    Raises:
        ValueError: the method's window is empty: there is no adapter then.
        OSError: the file cannot be written.
    """
    if method.window.is_empty:
        raise ValueError("tau = 1000 is the base model: it has no adapter to save")
    # 1. The tensors under the names that diffusers reads. safetensors stores contiguous tensors alone.
    tensors = {
        method.key_prefix + name: tensor.to("cpu").contiguous() for name, tensor in method.state().items()
    }
    # 2. All that `load_adapter` needs to attach them again, and the recipe for the reader.
    about = {
        "model": backbone.name,
        "source": backbone.source,
        "revision": backbone.revision,
        "weights_hash": backbone.weights_hash,
        "method": _stored_name(method),
        "settings": method.settings,
        "window": asdict(method.window),
        "recipe": asdict(recipe) if recipe is not None else None,
    }
    # 3. The digest is of the text as stored: the order of JSON keys is part of it.
    text = json.dumps(about)
    metadata = {"format": "pt", METADATA_KEY: text, DIGEST_KEY: _digest(text, tensors)}
    metadata |= method.file_metadata()
    path = user_path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, sorted_metadata(save(tensors, metadata)))
    return path


def load_adapter(
    path: str | Path, backbone: Backbone, window: Window | None = None, plugins: Collection[str] = ()
) -> TuningMethod:
    """Attach a stored adapter with its window, switched off; or an external LoRA with the given window.

    It warns of tensors of an external LoRA that are not loaded, and names them.

    Args:
        path: the file, or its folder (`motionexp.config.adapter_files`).
        backbone: with the weights that the adapter was tuned on; an external file does not name its weights.
        window: of an external LoRA; None: the one in a file that motionexp has exported. Ignored for an
            adapter of motionexp.
        plugins: packages outside motionexp whose methods may be run.

    Raises:
        InputError: the file is missing, damaged or no adapter; it belongs to other weights or to another
            network; or there is no window. No method is left attached then.
    """
    method = attach_adapter(path, backbone, window, plugins)
    if isinstance(method, ExternalLoRA) and method.unread:
        warnings.warn(f"{path}: {method.note}", stacklevel=2)
    return method


def attach_adapter(
    path: str | Path,
    backbone: Backbone,
    window: Window | None = None,
    plugins: Collection[str] = (),
    *,
    default_window: Window | None = None,
) -> TuningMethod:
    """As `load_adapter`, without the warning: `ExternalLoRA.note` has what is loaded and what is not.

    `default_window`: of an external LoRA whose file has none, where `window` is None.
    """
    content = _read(path)
    # 1. The file of another trainer: it does not name its weights.
    if not isinstance(content, StoredAdapter):
        window = window or _window_in(content, path) or default_window
        if window is None:
            raise InputError(_NO_WINDOW.format(path=path))
        try:
            return attach(content, backbone, window)
        except InputError as error:
            raise InputError(f"adapter={path}: unusable with {backbone.name}: {error}") from error
    about, tensors = content.about, content.tensors
    try:
        # 2. The method as it was attached for the training.
        method_class = find_method(METHODS.get(about["method"], about["method"]), plugins)
        method = method_class(backbone, read_window(about["window"]), **about["settings"])
    except InputError as error:
        raise InputError(f"adapter={path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"adapter={path}: its window or settings are not of this version ({error})"
        ) from error
    try:
        # 3. The tensors, into a method that is removed again if they do not fit.
        method.load({name.removeprefix(method.key_prefix): tensor for name, tensor in tensors.items()})
        # After the shapes, whose error says more about a wrong model.
        if about["weights_hash"] != backbone.weights_hash:
            raise InputError("the shapes agree, but the weights are different")
    except InputError as error:
        method.remove()
        raise InputError(
            f"adapter={path}: tuned on {about['model']} (weights {about['weights_hash'][:12]}), unusable"
            f" with {backbone.name} (weights {backbone.weights_hash[:12]}): {error}"
        ) from error
    return method


def _stored_name(method: TuningMethod) -> str:
    kind = type(method)
    return method.name if kind.__module__.startswith("motionexp.") else f"{kind.__module__}.{kind.__name__}"


def find_method(name: str, plugins: Collection[str] = ()) -> type[TuningMethod]:
    """Return the tuning method in the module of that name in this folder; a plugin's by its import path.

    Raises:
        InputError: there is no such module, or it holds no method; or `plugins` lacks the path's package.
    """
    if "." in name:
        check_allowed(name, plugins, "method")
        kind: type[TuningMethod] = get_class(name)
        if not issubclass(kind, TuningMethod):
            raise InputError(f"method {name}: not a subclass of motionexp.methods.base.TuningMethod")
        return kind
    if (Path(__file__).parent / f"{name}.py").is_file():
        module = import_module(f"{__package__}.{name}")
        for _, value in getmembers(module, isclass):
            # Not the classes that the module imports, and not the interface itself.
            is_here = value.__module__ == module.__name__ and not isabstract(value)
            if is_here and issubclass(value, TuningMethod) and value.is_single:
                return value
    raise InputError(f"method {name}: motionexp/methods/ has no such method")


def check_adapter(path: Path, has_window: bool = False, plugins: Collection[str] = ()) -> None:
    """Raise InputError if a file, or the adapter file in a folder, is damaged; needs no backbone.

    `has_window`: the job gives a window, so that an external LoRA is accepted.
    """
    content = _read(path)
    if not isinstance(content, StoredAdapter):
        if _window_in(content, path) is None and not has_window:
            raise InputError(_NO_WINDOW.format(path=path))
    elif "." in content.about["method"]:
        check_allowed(content.about["method"], plugins, f"adapter={path}: method")


def _window_in(files: Sequence[ExternalFile], path: str | Path) -> Window | None:
    """The window that motionexp has written into files of other formats; None if they have none."""
    try:
        return _exported_window(files)
    except InputError as error:
        raise InputError(f"adapter={path}: {error}") from error


def _exported_window(files: Sequence[ExternalFile]) -> Window | None:
    texts = {text for file in files if (text := file.window) is not None}
    if len(texts) > 1:
        raise InputError(f"the files have different windows ({EXPORT_KEY}): {' and '.join(sorted(texts))}")
    return read_window(read_object(texts.pop(), EXPORT_KEY)) if texts else None


def read_window(stored: Mapping[str, Any]) -> Window:
    """A window as a file stores it. Raises InputError if it is none."""
    try:
        knots = tuple((t, weight) for t, weight in stored.get("knots", ()))
        return Window(stored["low"], stored["high"], knots)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"its settings have no window of this version ({error!r:.200})") from error


def window_of(path: str | Path) -> Window:
    """The window of an adapter of motionexp, in any of its formats, which acts as a LoRA does.

    Raises:
        InputError: as `load_adapter`; or the file has no window, or is of a method that is no plain LoRA.
    """
    content = _read(path)
    if isinstance(content, StoredAdapter):
        return plain_window(content, path)
    window = _window_in(content, path)
    if window is None:
        raise InputError(
            f"adapter={path}: the file has no window: give one, as in window_callback(Window(700))"
        )
    return window


def plain_window(adapter: StoredAdapter, path: str | Path) -> Window:
    """The window of a stored adapter that is one pair of matrices A and B, with one alpha, for each layer.

    Raises:
        InputError: its method is another one, or its settings are damaged.
    """
    name = METHODS.get(adapter.about["method"], adapter.about["method"])
    try:
        if "." in name or not getattr(find_method(name), "is_plain", False):
            raise InputError(f"its method is {name}, and only a plain LoRA can act outside motionexp")
        if not is_alpha(adapter.about["settings"].get("alpha")):
            raise InputError("its settings have no usable alpha")
        return read_window(adapter.about["window"])
    except InputError as error:
        raise InputError(f"adapter={path}: {error}") from error


def read_adapter(path: str | Path) -> StoredAdapter:
    """The content of an adapter that motionexp has saved. Raises InputError for anything else."""
    content = _read(path)
    if not isinstance(content, StoredAdapter):
        raise InputError(
            f"adapter={path}: not saved by motionexp, whose adapters alone this command takes; sample a LoRA"
            " of another trainer with run.py adapter=... sampling_tau=..., or give it a window in diffusers:"
            " motionexp.window_callback(motionexp.Window(700), pipe)"
        )
    return content


def _read(path: str | Path) -> StoredAdapter | list[ExternalFile]:
    """The content of an adapter: of motionexp, or of another trainer's file or files.

    Raises:
        InputError: a file is damaged, or holds no usable numbers.
    """
    contents = [_read_file(file) for file in adapter_files(path)]
    stored = next((content for content in contents if isinstance(content, StoredAdapter)), None)
    if stored is not None and len(contents) > 1:
        raise InputError(f"adapter={path}: two files, and one of them was saved by motionexp: name one")
    return stored or [content for content in contents if isinstance(content, ExternalFile)]


def _read_file(path: Path) -> StoredAdapter | ExternalFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"adapter={path}: damaged, or not a safetensors file ({error})") from error
    # safetensors checks the header alone: a changed byte of a tensor loads without an error.
    if METADATA_KEY in metadata and metadata.get(DIGEST_KEY) != _digest(metadata[METADATA_KEY], tensors):
        raise InputError(f"adapter={path}: damaged: its contents differ from what was saved")
    try:
        _check_numbers(tensors)
        if METADATA_KEY in metadata:
            return StoredAdapter(tensors, _read_about(metadata[METADATA_KEY]))
        config = peft_config_file(path)
        settings = None if config is None else _read_config(config)
        expert = EXPERTS.get(expert_of(path), "")
        return read_external(tensors, metadata, settings, expert, names_noise(path))
    except InputError as error:
        raise InputError(f"adapter={path}: {error}") from error


def _check_numbers(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise InputError(
                f"{name} has no numbers: its training saved one part of a tensor that was shared out"
                " (DeepSpeed's ZeRO-3 does); save the whole tensors"
            )
        if tensor.dtype not in _DTYPES and not name.endswith(".alpha"):
            raise InputError(
                f"{name} has numbers of {tensor.dtype}: save them as float32, float16 or bfloat16"
            )
        # Not all 8-bit types have isfinite.
        if not tensor.float().isfinite().all():
            raise InputError(f"{name} has numbers that are not finite: its training diverged")


def _read_about(text: str) -> dict[str, Any]:
    about = read_object(text, f"the metadata {METADATA_KEY}")
    for name, kind in _ABOUT.items():
        if not isinstance(about.get(name), kind):
            raise InputError(f"the metadata {METADATA_KEY} has no usable {name}: saved by another version")
    return about


def _read_config(file: Path) -> dict[str, Any]:
    """The content of peft's adapter_config.json."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file.name} cannot be read ({error})") from error
    return read_object(text, file.name)


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    # Sorted: the order of the tensors in a file is not part of its content.
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
