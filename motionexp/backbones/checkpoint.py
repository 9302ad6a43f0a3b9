"""A checkpoint's folder in the layout of a diffusers pipeline: checked before loading, and identified."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from diffusers import ModelMixin
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from motionexp import hub
from motionexp.backbones.memory import drop_encoder
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule, read_schedule
from motionexp.errors import DAMAGE, InputError
from motionexp.hub import no_loading_bars, shards

Part = TypeVar("Part", bound=ModelMixin | PreTrainedModel)
TextPrecision = Literal["auto", "8bit", "4bit"]
NetworkPrecision = Literal["auto", "fp8", "8bit", "4bit"]
Offload = Literal["none", "model", "group", "group_stream"]

WEIGHTS = (".safetensors",)
IDENTITY = (*WEIGHTS, ".json", ".model", "merges.txt")
BROKEN = (*DAMAGE, SafetensorError, StrictDataclassError)
"""What diffusers and transformers raise on a part of a pipeline that is damaged."""
# The same weights in another precision, or before averaging: never read, and no part of what a folder is.
VARIANT = re.compile(r"\.(fp16|bf16|non_ema)\b")
# Of CLIP's encoders in the hubs' files, which transformers takes off.
FORMER_PREFIX = re.compile(r"^(text|vision)_model\.")


@dataclass(frozen=True)
class Unsupported:
    """A setting in a checkpoint's JSON file with which the model cannot be used.

    Attributes:
        file: below the checkpoint's folder.
        key: of the setting.
        supported: the values that can be used; None stands for a missing key too.
        advice: which model has other values, and what to take instead.
    """

    file: str
    key: str
    supported: tuple[object, ...]
    advice: str

    def check(self, folder: Path) -> None:
        """Raise InputError where the folder's file has another value."""
        value = read_json(folder / self.file).get(self.key)
        if value not in self.supported:
            raise InputError(f"{folder / self.file}: {self.key}={value} cannot be used: {self.advice}")


def check_folder(
    folder: Path, classes: dict[str, str], weighted: Iterable[str], *, without_weights: bool = False
) -> None:
    """Whether a folder holds a pipeline of these classes, whole, from headers alone.

    Args:
        folder: has `model_index.json`.
        classes: expected class of each part in the index; of the pipeline itself under `_class_name`.
        weighted: the parts that have weights, in safetensors.
        without_weights: whether the configuration alone is checked.

    Raises:
        InputError: names the first file that is missing or broken.
    """
    index = read_json(folder / "model_index.json")
    for part, expected in classes.items():
        # The index names a part [library, class], and the pipeline by its class alone.
        entry = index.get(part)
        name = entry[-1] if isinstance(entry, list) else entry
        if name not in (expected, f"{expected}WithProjection"):  # a projection on top is not read
            raise InputError(f"{folder / 'model_index.json'}: {part} is {name}; this reader needs {expected}")
    for part in weighted:
        config = folder / part / "config.json"
        made_for = read_json(config).get("_class_name", classes[part])
        if made_for != classes[part]:
            raise InputError(f"{config}: of a {made_for}; this reader needs {classes[part]}")
        for file in () if without_weights else _weight_files(folder / part):
            _check_weights(file)


def has_weights(folder: Path) -> bool:
    """Whether any part of a folder has weights; else it is a configuration alone."""
    return any(folder.glob("*/*.safetensors"))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file's content. Raises InputError naming the file where it is missing or broken."""
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; the folder needs diffusers' pipeline layout, whole") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({_first_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no settings; fetch it again")
    return content


def read_scheduler(file: Path, settings: Mapping[str, Any], spacing: str | None) -> Schedule:
    """The noise schedule of a scheduler_config.json, in which `settings` replace what it says.

    Args:
        spacing: of flow matching, where the pipeline passes its own sigmas.

    Raises InputError naming the file.
    """
    config = {**read_json(file), **settings}
    try:
        return FlowSchedule.from_config(config, spacing) if spacing else read_schedule(config)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except DAMAGE as error:
        raise InputError(f"{file} cannot be used ({error!r:.200}); fetch it again") from error


def shape_of(kind: type[Part], folder: Path) -> Part:
    """One model of the pipeline as its configuration has it, without weights, on the meta device."""
    try:
        with torch.device("meta"), no_loading_bars():
            if issubclass(kind, PreTrainedModel):
                return kind(kind.config_class.from_pretrained(folder, local_files_only=True))
            model = kind.from_config(read_json(folder / "config.json"))
            # Of U-Nets its default is null, from which no size of a video follows.
            if not isinstance(size := model.config.get("sample_size", 1), int | list | tuple):
                raise ValueError(f"sample_size is {size!r:.80}; a whole number")
            return model
    except BROKEN as error:
        raise InputError(f"{folder / 'config.json'} cannot be used ({_first_line(error)})") from error


def check_shapes(model: nn.Module, folder: Path, *, all_named: bool) -> None:
    """Whether a folder's files have the weights of a model in its shapes, by their headers alone.

    Args:
        model: on the meta device, say.
        folder: of its files.
        all_named: whether the files call every weight as the model does. Else those that are not there are
            left to the loading: old files of a VAE call its attention otherwise, and of a text encoder's
            weights that are used twice one name is kept.

    Raises InputError naming the folder and the first weight that is not as it should be.
    """
    # 1. The shapes in the files, from headers of a few kilobytes.
    shapes: dict[str, list[int]] = {}
    for file in _weight_files(folder):
        with safe_open(file, framework="pt") as content:
            names = {FORMER_PREFIX.sub("", name): name for name in content.keys()}  # noqa: SIM118
            shapes |= {ours: content.get_slice(theirs).get_shape() for ours, theirs in names.items()}
    # 2. Against those of the model.
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(expected.keys() - shapes.keys())
    if missing and all_named:
        raise InputError(f"{folder}: the weights lack {missing[0]} ({len(missing)} in all); fetch it again")
    for name, shape in expected.items():
        if shapes.get(name, shape) != shape:
            raise InputError(
                f"{folder} does not load ({name} has shape {shapes[name]}, by its configuration {shape});"
                " fetch it again"
            )


def load_part(
    kind: type[Part],
    folder: Path,
    dtype: torch.dtype,
    bits: TextPrecision = "auto",
    device: torch.device | None = None,
) -> Part:
    """One model of the pipeline, on the CPU, or quantized and on the device.

    Args:
        kind: its class.
        folder: of its weights.
        dtype: of its weights and its activations.
        bits: of the weights of its linear layers: `auto` as `dtype` says, `8bit` (LLM.int8(), Dettmers et al.
            2022, arXiv 2208.07339) or `4bit` (NF4, Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.
        device: where a quantized model computes, and stays.

    Raises InputError where the file does not hold all that the configuration says: the libraries would fill
    what is missing with random numbers.
    """
    # 1. Quantization happens while weights are read: the full model might not fit.
    settings: dict[str, Any] = {}
    if bits != "auto":
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        quantization = BitsAndBytesConfig(**{f"load_in_{bits}": True}, **(four if bits == "4bit" else {}))
        settings = {"quantization_config": quantization, "device_map": {"": device}}
    before = torch.get_default_dtype()
    try:
        # 2. The weights, from the folder alone: the libraries would look for missing files on the hub.
        with no_loading_bars():
            loaded: tuple[Part, dict[str, Any]] = kind.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                variant=variant_of(folder),
                **settings,
            )
    except BROKEN as error:
        torch.set_default_dtype(before)  # which diffusers leaves as it was while loading
        raise InputError(f"{folder} does not load ({_first_line(error)}); fetch it again") from error
    model, info = loaded
    # The libraries warn of these, and go on with random numbers.
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(f"{folder}: the weights lack {missing[0]} ({len(missing)} in all); fetch it again")
    return model


def load_decoder(kind: type[Part], folder: Path, dtype: torch.dtype) -> Part:
    """A VAE on the CPU without what only encoding needs, whose weights are not read.

    Files that call weights otherwise than the model does are read as a whole, as `load_part` does it.
    Raises InputError as `load_part`.
    """
    vae: Any = shape_of(kind, folder)
    drop_encoder(vae)
    tensors: dict[str, Tensor] = {}
    try:
        for file in _weight_files(folder):
            with safe_open(file, framework="pt") as content:
                names = vae.state_dict().keys() & {*content.keys()}
                tensors |= {name: content.get_tensor(name).to(dtype) for name in names}
    except BROKEN as error:
        raise InputError(f"{folder} does not load ({_first_line(error)}); fetch it again") from error
    vae.load_state_dict(tensors, strict=False, assign=True)
    if any(tensor.is_meta for tensor in (*vae.parameters(), *vae.buffers())):
        vae = load_part(kind, folder, dtype)
        drop_encoder(vae)
    return vae


def weights_hash(folder: Path, parts: Iterable[str]) -> str:
    """sha256 (64 hex digits) of the weights and configuration of these parts, wherever the folder lies."""
    # Names relative to the folder: a copy elsewhere has the same hash.
    total = hashlib.sha256()
    # By names within the folder and contents: a copy of the folder has the same hash.
    for part in sorted(parts):
        for file in sorted(path for path in _read_files(folder / part) if path.name.endswith(IDENTITY)):
            total.update(f"{part}/{file.name} {_file_hash(file)}\n".encode())
    return total.hexdigest()


def _file_hash(file: Path) -> str:
    target = file.resolve()
    # The hub's cache names a large file by its sha256: nothing to compute, for the largest that there are.
    if target.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", target.name):
        return target.name
    status = target.stat()
    return _content_hash(target, status.st_size, status.st_mtime_ns)


@lru_cache
def _content_hash(file: Path, size: int, changed: int) -> str:
    """sha256 of a file; size and time of change are there for the cache."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def variant_of(folder: Path) -> str | None:
    """The variant of a part's weights that is read: bf16, in shards, where those in fp32 are not there."""
    has_index = any(folder.glob(f"*.safetensors.index.{hub.VARIANT}.json"))
    has_others = any(file.suffix in WEIGHTS for file in _files(folder))
    return hub.VARIANT if has_index and not has_others else None


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part: all of its shards where it is sharded."""
    if variant := variant_of(folder):
        (index,) = folder.glob(f"*.safetensors.index.{variant}.json")
        return [folder / name for name in shards(index)]
    # A shard that is not there is listed too, so that `_check_weights` names it. Beside the shards may be the
    # same weights once more, in other shards.
    for index in (file for file in _files(folder) if file.name.endswith(".safetensors.index.json")):
        return [folder / name for name in shards(index)]
    files = sorted(file for file in _files(folder) if file.suffix in WEIGHTS)
    if not files:
        raise InputError(f"{folder} has no .safetensors file; fetch it again (.bin files are not read)")
    return files


def _read_files(folder: Path) -> list[Path]:
    """The files of one part without weights beside its shards, which are not read."""
    files = _files(folder)
    if not any(file.name.endswith(".safetensors.index.json") for file in files) and not variant_of(folder):
        return files
    return [file for file in files if file.suffix not in WEIGHTS] + [
        file for file in _weight_files(folder) if file.exists()
    ]


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not VARIANT.search(file.name)]


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as content:
            content.keys()
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; fetch it again") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is damaged or cut short ({_first_line(error)}); fetch it again") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
