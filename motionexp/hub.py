"""Where a model's weights are: in a folder, in the hub's cache, or still on the hub."""

import atexit
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shlex import quote
from tempfile import mkdtemp
from typing import Any

from huggingface_hub import constants, errors, snapshot_download
from transformers.utils import logging as transformers_logging

from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError
from motionexp.files import user_path


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
CONFIGURATIONS = BUNDLED / "configurations"
INDEX, WEIGHTS = "model_index.json", "*.safetensors"
# The files of a motion adapter, which is a repository of its own.
ADAPTER = ("config.json", "diffusion_pytorch_model.safetensors")
MOTION_ADAPTER = "motion_adapter"
ANY = ("*",)  # in place of the names of parts, where they are not known
# The same weights in another precision, or before averaging.
UNREAD = ("*.fp16*", "*.non_ema*")
VARIANT = "bf16"


def find_folder(
    path: str | Path, revision: str | None, local_files_only: bool, parts: Sequence[str] = ()
) -> Path:
    """The folder that `bundled:NAME`, a folder's path or a hub id stands for; a hub id is downloaded once.

    Args:
        path: see above; or IMAGE_MODEL+MOTION_ADAPTER, each of them a folder or a hub id.
        revision: of the hub's repository: a commit, branch or tag; None: its main branch. Two repositories'
            have a + between them.
        local_files_only: never ask the hub, as with HF_HUB_OFFLINE=1.
        parts: the parts of the pipeline that are read, beside its `model_index.json`.

    Raises:
        InputError: there is no such thing, or it cannot be had: with the command that fetches a hub id.
    """
    name = str(path)
    is_bundled = name.startswith(BUNDLED_PREFIX)
    folder = BUNDLED / name.removeprefix(BUNDLED_PREFIX) if is_bundled else user_path(path)
    if folder.is_dir():
        return folder
    if "+" in name:
        model, adapter = _pair(name, revision)
        image_parts = [part for part in parts if part != MOTION_ADAPTER]
        return _together(
            find_folder(*model, local_files_only, image_parts), _find_adapter(*adapter, local_files_only)
        )
    if not is_hub_id(name):
        raise InputError(f"model {name}: no folder {folder}; give a folder, bundled:NAME or a hub id")
    settings = settings_patterns(parts)
    try:
        folder = _snapshot(name, revision, local_files_only, settings)
        # The index of a part in shards names its files: there may be others beside them.
        weights = [pattern for part in parts for pattern in _weights_patterns(folder, part)]
        return _snapshot(name, revision, local_files_only, [*settings, *weights]) if weights else folder
    except (OSError, ValueError) as error:
        raise InputError(_why(name, revision, parts, error)) from error


def _find_adapter(path: str, revision: str | None, local_files_only: bool) -> Path:
    """The folder of a motion adapter: a folder, or a hub id."""
    if (folder := user_path(path)).is_dir():
        return folder
    if not is_hub_id(path):
        raise InputError(f"model {path}: no folder {folder}; give a folder or a hub id")
    try:
        return _snapshot(path, revision, local_files_only, ADAPTER)
    except (OSError, ValueError) as error:
        raise InputError(_why(path, revision, (MOTION_ADAPTER,), error)) from error


def _snapshot(name: str, revision: str | None, local_files_only: bool, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache, with the files of these patterns."""
    files: Any = {"allow_patterns": list(patterns), "ignore_patterns": _unread(name, patterns)}
    return Path(snapshot_download(name, revision=revision, local_files_only=local_files_only, **files))


def _unread(name: str, patterns: Iterable[str]) -> list[str]:
    """Patterns of files that match one of `patterns` and are not read."""
    stored = configuration(name)
    folders = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns if "/" in pattern)
    if stored is None or not stored.variants:
        return [*UNREAD, f"*.{VARIANT}*"]
    return [*UNREAD, *(f"{part}/*.{VARIANT}*" for part in folders if part not in stored.variants)]


def _is_weighted(part: str) -> bool:
    return not part.startswith(("tokenizer", "scheduler", "image_processor"))


def settings_patterns(parts: Sequence[str]) -> list[str]:
    """Patterns of the files that are read of these parts of a pipeline, beside their weights."""
    patterns = [INDEX]
    for part in parts:
        has_words = part.startswith(("tokenizer", *ANY))
        endings = ("*.json", "*.model", "merges.txt") if has_words else ("*.json",)
        patterns += [f"{part}/{ending}" for ending in endings]
    return patterns


def _weights_patterns(folder: Path, part: str) -> list[str]:
    """Patterns of the weights of a part, whose index, if it has one, is in the folder."""
    if not _is_weighted(part):
        return []
    # Of a variant there is an index only where its weights are read.
    for index in (folder / part).glob(f"*.safetensors.index.{VARIANT}.json"):
        return [f"{part}/{name}" for name in shards(index)]
    for index in (folder / part).glob("*.safetensors.index.json"):
        if index.name.count(".") == 3:  # of no variant, as `model.fp16.safetensors.index.json` is
            return [f"{part}/{name}" for name in shards(index)]
    return [f"{part}/{WEIGHTS}"]


def shards(index: Path) -> list[str]:
    """The files that the index of a part in shards names. Raises InputError where it is broken."""
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"{index} cannot be read ({error}); fetch it again") from error


def _pair(path: str, revision: str | None) -> list[tuple[str, str | None]]:
    """(path, revision) of an image model and of its motion adapter, which a + joins."""
    revisions = [*(revision or "").split("+", 1), ""]
    return [(part, at or None) for part, at in zip(path.split("+", 1), revisions, strict=False)]


def is_hub_id(path: str | Path) -> bool:
    """Whether a path that is no folder can be OWNER/NAME on the hub."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)) is not None


def is_to_fetch(path: str | Path, revision: str | None, parts: Sequence[str]) -> bool:
    """Whether a path stands for a model of the hub of which something is not on this machine; asks no hub."""
    try:
        folder = find_folder(path, revision, local_files_only=True, parts=parts)
    except InputError:
        return "+" in str(path) or is_hub_id(path)
    if user_path(path).is_dir() or str(path).startswith(BUNDLED_PREFIX):
        return False
    # The cache lists what a download lacks only if it has the repository's list of files.
    weights = [pattern for part in parts for pattern in _weights_patterns(folder, part)]
    return not all(any(folder.glob(pattern)) for pattern in weights)


def find_shapes(path: str | Path, revision: str | None, parts: Sequence[str]) -> Path:
    """A folder that has at least a model's configuration; asks no hub. Raises as `find_configuration`."""
    if is_to_fetch(path, revision, parts):
        return find_configuration(path, revision, parts)
    return find_folder(path, revision, local_files_only=True, parts=parts)


@dataclass(frozen=True)
class Configuration:
    """What is stored here of a model of the hub: all but its weights and its tokenizer.

    Attributes:
        source: where the files are from, and which of them are unverified.
        bytes: {part: size of its weights on the hub}; the part of a motion adapter is "".
        files: {path below the repository: its content}.
        shards: {part: number of its shards}, where other weights lie beside them.
        variants: parts of which the weights in bf16 are read, half as large, and those in fp32 are not.
        listed: {path of a file of weights: its size}, of the parts whose files are known one by one.
    """

    source: str
    bytes: Mapping[str, int]
    files: Mapping[str, Mapping[str, Any]]
    shards: Mapping[str, int] = field(default_factory=dict)
    variants: Sequence[str] = ()
    listed: Mapping[str, int] = field(default_factory=dict)

    def files_of(self, part: str) -> dict[str, int]:
        """{name of a file of a part's weights: its size}; empty where they are not known one by one."""
        return {
            name.rpartition("/")[2]: size for name, size in self.listed.items() if name.startswith(f"{part}/")
        }


@lru_cache
def configuration(name: str) -> Configuration | None:
    """What is stored here of the hub's model OWNER/NAME; None where nothing is."""
    file = CONFIGURATIONS / f"{name.replace('/', '--')}.json"
    return Configuration(**json.loads(file.read_text())) if file.is_file() else None


def configurations(path: str | Path) -> list[Configuration]:
    """What is stored here of a model, or of an image model and a motion adapter."""
    return [stored for name in str(path).split("+") if (stored := configuration(name))]


def find_configuration(path: str | Path, revision: str | None, parts: Sequence[str]) -> Path:
    """A folder, for this process, of a hub model's configuration without weights and tokenizer; asks no hub.

    Args:
        path: a hub id, or IMAGE_MODEL+MOTION_ADAPTER.
        revision: see `find_folder`.
        parts: of the pipeline.

    Raises:
        InputError: it is not stored here and not in the hub's cache: with the command that fetches it alone.
    """
    if "+" in str(path):
        model, adapter = _pair(str(path), revision)
        image_parts = [part for part in parts if part != MOTION_ADAPTER]
        return _together(
            find_configuration(*model, image_parts), find_configuration(*adapter, (MOTION_ADAPTER,))
        )
    name = str(path)
    if (folder := user_path(path)).is_dir():
        return folder
    if configuration(name) is not None:
        return _written(name)
    names = _configuration_files(parts)
    try:
        folder = _snapshot(name, revision, True, names)
        return _copied(tuple(folder / file for file in names), folder)
    except (OSError, ValueError) as error:
        files = " ".join(names)
        raise InputError(
            f"model {name}: a plan needs its configuration, which is not on this machine: fetch it alone, a"
            f" few kB, by `{_download(name, revision)} {files}`"
        ) from error


def _configuration_files(parts: Sequence[str]) -> list[str]:
    """The files that a plan reads."""
    if list(parts) == [MOTION_ADAPTER]:
        return [ADAPTER[0]]
    weighted = [f"{part}/config.json" for part in parts if _is_weighted(part)]
    return [INDEX, *weighted, "scheduler/scheduler_config.json"]


@lru_cache
def _written(name: str) -> Path:
    """A folder, for this process, of what is stored here of a hub's model."""
    stored, folder = configuration(name), _temporary_folder()
    assert stored is not None
    for path, content in stored.files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    return folder


@lru_cache
def _copied(files: tuple[Path, ...], root: Path) -> Path:
    """A folder, for this process, of these files alone: there may be some of the weights beside them."""
    folder = _temporary_folder()
    for file in files:
        copy = folder / file.relative_to(root)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return folder


def _temporary_folder() -> Path:
    folder = Path(mkdtemp(prefix="motionexp-"))
    # It is of no use to another process.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


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
    folder = _temporary_folder()
    shared = {part: parts.get(part) for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    for part in shared:
        (folder / part).symlink_to((model / part).resolve())
    (folder / MOTION_ADAPTER).symlink_to(adapter.resolve())
    added = {"_class_name": "AnimateDiffPipeline", MOTION_ADAPTER: ["diffusers", "MotionAdapter"]}
    (folder / "model_index.json").write_text(json.dumps(shared | added))
    return folder


def fetch_command(path: str | Path, revision: str | None, parts: Sequence[str] = ()) -> str:
    """The command that downloads what is read of a hub id; two with ` && ` between them for two of them.

    Without `parts` it downloads the whole repository.
    """
    name = str(path)
    if "+" in name:
        model, adapter = _pair(name, revision)
        image_parts = [part for part in parts if part != MOTION_ADAPTER]
        commands = [(model, image_parts), (adapter, [MOTION_ADAPTER])]
        return " && ".join(fetch_command(*pair, needed) for pair, needed in commands if is_hub_id(pair[0]))
    command = _download(name, revision)
    if not parts:
        return command
    if list(parts) == [MOTION_ADAPTER]:
        return " ".join([command, *ADAPTER])
    stored = configuration(name)
    counts = stored.shards if stored else {}
    patterns = settings_patterns(parts)
    variants = stored.variants if stored else ()
    for part in filter(_is_weighted, parts):
        ending = f"*-of-{counts[part]:05}.safetensors" if part in counts else WEIGHTS
        patterns.append(f"{part}/*.{VARIANT}*" if part in variants else f"{part}/{ending}")
    options = [f"--include {quote(pattern)}" for pattern in patterns]
    return " ".join([command, *options, *(f"--exclude {quote(item)}" for item in _unread(name, patterns))])


def _download(name: str, revision: str | None) -> str:
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


@contextmanager
def naming_the_model(path: str | Path, revision: str | None, parts: Sequence[str]) -> Iterator[None]:
    """Add a hub id, and the command that fetches it, to what is wrong with its files."""
    try:
        yield
    except InputError as error:
        is_remote = "+" in str(path) or is_hub_id(path)
        command = fetch_command(path, revision, parts or ANY) if is_remote else ""
        if user_path(path).is_dir() or not command:
            raise
        raise InputError(f"model {path}: {error}: {command}") from error


def _why(name: str, revision: str | None, parts: Sequence[str], error: Exception) -> str:
    """What keeps a hub id from being had, and what to do."""
    command = fetch_command(name, revision, parts or ANY)
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
