"""Where a model's weights are: in a folder, in the hub's cache, or still on the hub."""

import atexit
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from huggingface_hub import constants, errors, snapshot_download
from transformers.utils import logging as transformers_logging

from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError


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


BUNDLED_PREFIX = "bundled:"
# What is read of a repository in the layout of a diffusers pipeline, and what of it is not: weights in other
# formats and the networks beside the ones that make videos.
ADAPTER = ("config.json", "diffusion_pytorch_model.safetensors")
PIPELINE = ("model_index.json", "*/*.safetensors", "*/*.json", "*/*.model", "*/merges.txt")
UNREAD = ("*.fp16*", "*.bf16*", "*.non_ema*", "safety_checker/*", "image_encoder/*", "feature_extractor/*")


def find_folder(
    path: str | Path, revision: str | None, local_files_only: bool, patterns: Sequence[str] = PIPELINE
) -> Path:
    """The folder that `bundled:NAME`, a folder's path or a hub id stands for; a hub id is downloaded once.

    Args:
        path: see above; or IMAGE_MODEL+MOTION_ADAPTER, each of them a folder or a hub id.
        revision: of the hub's repository: a commit, branch or tag; None: its main branch. Two repositories'
            have a + between them.
        local_files_only: never ask the hub, as with HF_HUB_OFFLINE=1.
        patterns: of the files that are read.

    Raises:
        InputError: there is no such thing, or it cannot be had: with the command that fetches a hub id.
    """
    name = str(path)
    is_bundled = name.startswith(BUNDLED_PREFIX)
    folder = BUNDLED / name.removeprefix(BUNDLED_PREFIX) if is_bundled else Path(path).expanduser()
    if folder.is_dir():
        return folder
    if "+" in name:
        model, adapter = _pair(name, revision)
        return _together(
            find_folder(*model, local_files_only, patterns), find_folder(*adapter, local_files_only, ADAPTER)
        )
    if not is_hub_id(name):
        raise InputError(f"model {name}: no folder {folder}; give a folder, bundled:NAME or a hub id")
    files: Any = {"allow_patterns": list(patterns), "ignore_patterns": list(UNREAD)}
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=local_files_only, **files))
    except (OSError, ValueError) as error:
        raise InputError(_why(name, revision, error)) from error


def _pair(path: str, revision: str | None) -> list[tuple[str, str | None]]:
    """(path, revision) of an image model and of its motion adapter, which a + joins."""
    revisions = [*(revision or "").split("+", 1), ""]
    return [(part, at or None) for part, at in zip(path.split("+", 1), revisions, strict=False)]


def is_hub_id(path: str | Path) -> bool:
    """Whether a path that is no folder can be OWNER/NAME on the hub."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)) is not None


def is_to_fetch(path: str | Path, revision: str | None) -> bool:
    """Whether a path stands for a model of the hub of which something is not on this machine; asks no hub."""
    try:
        find_folder(path, revision, local_files_only=True)
    except InputError:
        return "+" in str(path) or is_hub_id(path)
    return False


def name_of(path: str | Path) -> str:
    """A model's name unless it is given one: the last part of `bundled:NAME`, a folder's path or a hub id."""
    return str(path).rstrip("/").rpartition("/")[-1].rpartition(":")[-1]


@lru_cache
def _together(model: Path, adapter: Path) -> Path:
    """A folder of links, for this process, that is the pipeline of an image model and a motion adapter."""
    # An image model and an adapter have separate repositories; diffusers loads one folder.
    index = model / "model_index.json"
    try:
        parts = json.loads(index.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{index}: cannot be read, an image model's folder is wanted ({error})") from error
    if parts.get("_class_name") != "StableDiffusionPipeline":
        raise InputError(f"{index}: a {parts.get('_class_name')}; a StableDiffusionPipeline is wanted")
    folder = Path(mkdtemp(prefix="motionexp-"))
    # The links are of no use to another process.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shared = {part: parts.get(part) for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    for part in shared:
        (folder / part).symlink_to((model / part).resolve())
    (folder / "motion_adapter").symlink_to(adapter.resolve())
    added = {"_class_name": "AnimateDiffPipeline", "motion_adapter": ["diffusers", "MotionAdapter"]}
    (folder / "model_index.json").write_text(json.dumps(shared | added))
    return folder


def fetch_command(path: str | Path, revision: str | None) -> str:
    """The command that downloads a hub id; two with ` && ` between them for two of them."""
    if "+" in str(path):
        return " && ".join(fetch_command(*part) for part in _pair(str(path), revision) if is_hub_id(part[0]))
    return f"hf download {path}" + (f" --revision {revision}" if revision else "")


@contextmanager
def naming_the_model(path: str | Path, revision: str | None) -> Iterator[None]:
    """Add a hub id, and the command that fetches it, to what is wrong with its files."""
    try:
        yield
    except InputError as error:
        command = fetch_command(path, revision) if "+" in str(path) or is_hub_id(path) else ""
        if Path(path).expanduser().is_dir() or not command:
            raise
        raise InputError(f"model {path}: {error}: {command}") from error


def _why(name: str, revision: str | None, error: Exception) -> str:
    """What keeps a hub id from being had, and what to do."""
    command = fetch_command(name, revision)
    if isinstance(error, errors.GatedRepoError):
        terms = "it is gated, by terms on its page: agree there"
        return f"model {name}: {terms}, then `hf auth login`, then `{command}`"
    if isinstance(error, errors.RepositoryNotFoundError):
        right = f"check the spelling, or give a local folder{_namesakes(name)}"
        return f"model {name}: the hub has no such model, or it is private; {right}; then `{command}`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"model {name}: it has no revision {revision}; see `hf models info {name}`, then `{command}`"
    if isinstance(error, errors.IncompleteSnapshotError):
        # The error's text lists the missing files in parentheses; the first is enough.
        missing = re.search(r"\((\S+?\.\w+)", str(error))
        file = missing[1] if missing else "a file"
        return f"model {name}: {file} is missing in {error.snapshot_path}: it came only in part; `{command}`"
    if isinstance(error, errors.LocalEntryNotFoundError):
        where = f"not in the hub's cache ({constants.HF_HUB_CACHE})"
        why = "the hub cannot be reached (no network, or HF_HUB_OFFLINE=1)"
        return f"model {name}: {where}, and {why}; `{command}`, or give a local folder{_namesakes(name)}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"model {name}: it could not be fetched ({reason}); try again: `{command}`, or give a local folder"


def _namesakes(name: str) -> str:
    """Models of the same name under other owners in the cache: a repository may have moved."""
    owner, _, model = name.partition("/")
    cached = [folder.name.split("--") for folder in Path(constants.HF_HUB_CACHE).glob(f"models--*--{model}")]
    namesakes = sorted(f"{parts[1]}/{model}" for parts in cached if parts[1] != owner)
    return f" (the cache has {', '.join(namesakes)}: another owner's, or moved)" if namesakes else ""
