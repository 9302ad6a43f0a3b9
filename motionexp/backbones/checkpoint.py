"""A checkpoint's folder in the layout of a diffusers pipeline: found, checked before loading, identified."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from motionexp.config import BUNDLED, InputError

Part = TypeVar("Part", bound=ModelMixin | PreTrainedModel)

BUNDLED_PREFIX = "bundled:"
WEIGHTS = (".safetensors",)
IDENTITY = (*WEIGHTS, ".json", ".model", "merges.txt")


def find_folder(path: str | Path, revision: str | None, local_files_only: bool) -> Path:
    """The folder that `bundled:NAME`, a folder's path or a hub id stands for; a hub id is downloaded once.

    Raises InputError where there is no such thing.
    """
    name = str(path)
    if name.startswith(BUNDLED_PREFIX):
        folder = BUNDLED / name.removeprefix(BUNDLED_PREFIX)
    else:
        folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise InputError(
            f"model {name}: there is no folder {folder}; give a folder, bundled:NAME or a hub id"
        )
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=["model_index.json", *(f"*/*{suffix}" for suffix in IDENTITY)],
            )
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name}: there is no such folder here, and as a hub id it could not be fetched"
            f" ({_first_line(error)}); check the name, the revision and the network, or give a local folder"
        ) from error


def name_of(path: str | Path) -> str:
    """A model's name unless it is given one: the last part of `bundled:NAME`, a folder's path or a hub id."""
    return str(path).rstrip("/").rpartition("/")[-1].rpartition(":")[-1]


def check_folder(folder: Path, classes: dict[str, str], weighted: Iterable[str]) -> None:
    """Whether a folder holds a pipeline of these classes, whole, from headers alone.

    Args:
        folder: has `model_index.json`.
        classes: wanted class of each part in the index; of the pipeline itself under `_class_name`.
        weighted: the parts that have weights, in safetensors.

    Raises:
        InputError: names the first file that is missing or broken.
    """
    index = read_json(folder / "model_index.json")
    for part, wanted in classes.items():
        found = index.get(part)
        found = found[-1] if isinstance(found, list) else found
        if found != wanted:
            raise InputError(f"{folder / 'model_index.json'}: {part} is {found}; this reader needs {wanted}")
    for part in weighted:
        read_json(folder / part / "config.json")
        for file in _weight_files(folder / part):
            _check_weights(file)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file's content. Raises InputError naming the file where it is missing or broken."""
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; the folder needs diffusers' pipeline layout, whole") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({_first_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no settings; fetch it again")
    return content


def load_part(kind: type[Part], folder: Path, dtype: torch.dtype) -> Part:
    """One model of the pipeline, on the CPU.

    Raises InputError where the file does not hold all that the configuration says: the libraries would fill
    what is missing with random numbers.
    """
    try:
        with no_loading_bars():
            loaded: tuple[Part, dict[str, Any]] = kind.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder} does not load ({_first_line(error)}); fetch it again") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(f"{folder}: the weights lack {missing[0]} ({len(missing)} in all); fetch it again")
    return model


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Keep back transformers' bars: for weights on the disk, since downloads lose theirs too."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def weights_hash(folder: Path, parts: Iterable[str]) -> str:
    """sha256 (64 hex digits) of the weights and configuration of these parts, wherever the folder lies."""
    total = hashlib.sha256()
    for part in sorted(parts):
        for file in sorted(file for file in (folder / part).iterdir() if file.name.endswith(IDENTITY)):
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


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part: all of its shards where it is sharded."""
    files = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    for index in folder.glob("*.safetensors.index.json"):
        shards = read_json(index).get("weight_map", {}).values()
        files += [folder / name for name in sorted(set(shards)) if not (folder / name).exists()]
    if not files:
        raise InputError(f"{folder} has no .safetensors file; fetch it again (.bin files are not read)")
    return files


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
