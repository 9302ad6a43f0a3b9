"""The checked settings of `python run.py export`. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.config.adapter_files import adapter_files
from motionexp.config.command_line import CONFIG_DIR, override_key
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.schema import ModelConfig
from motionexp.errors import InputError, one_of
from motionexp.files import user_path

FORMATS = ("diffusers", "comfyui", "kohya", "peft")
SAMPLING = ("recipe", "sampler", "shift", "timestep_spacing", "steps", "frames")
SETTINGS = ("adapter", "format", "folder", *SAMPLING, "model")
NEEDED = ("adapter", "format", "folder")


@dataclass(frozen=True)
class ExportConfig:
    """What to export.

    Attributes:
        adapter: a file or folder of an adapter that motionexp has saved.
        format: one of `FORMATS`.
        folder: new or empty; the files are named after it.
        model: that the adapter was tuned on.
        sampler, shift, timestep_spacing, steps, frames: of the videos that will be sampled, as for a job;
            unless given those of the model's recipe. Some shifts grow with the size of videos.
    """

    adapter: str
    format: str
    folder: Path
    model: ModelConfig
    sampler: str
    shift: float | None
    timestep_spacing: str | None
    steps: int
    frames: int


def load_export(words: Sequence[str]) -> ExportConfig:
    """The checked settings of `python run.py export WORDS`.

    Raises:
        InputError: a setting is missing, unknown or out of range; there is no such adapter or model; or the
            folder holds something.
    """
    for word in words:
        name = override_key(word).partition(".")[0]
        if name not in SETTINGS and not word.startswith(CONFIG_DIR):
            raise InputError(f"{word}: export takes {', '.join(f'{setting}=' for setting in SETTINGS)}")
    of_export = ("adapter", "format", "folder")
    values = {key: value for key, _, value in (word.partition("=") for word in words) if key in of_export}
    for name in NEEDED:
        if name not in values:
            raise InputError(f"export: {name}= is missing; it takes adapter=FOLDER format=FORMAT folder=NEW")
    if values["format"] not in FORMATS:
        raise InputError(f"format={values['format']}: {one_of(values['format'], FORMATS)}")
    folder = user_path(values["folder"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder={folder}: it is not empty; name a new folder")
    rest = [word for word in words if override_key(word) not in of_export]
    if not any(override_key(word) == "model" for word in rest):
        rest.append(f"model={_model_of(values['adapter'])}")
    cfg = load(rest)
    sampling = {name: getattr(cfg, name) for name in SAMPLING if name != "recipe"}
    return ExportConfig(values["adapter"], values["format"], folder, cfg.model, **sampling)


def _model_of(adapter: str) -> str:
    """The option of `model=` that an adapter's file names."""
    name = stored_model(adapter_files(adapter)[0])
    if name not in options("model"):
        reason = "names no model" if name is None else f"was tuned on {name}, which is no option of model="
        raise InputError(f"adapter={adapter}: it {reason}: give model=NAME (and model.path=FOLDER)")
    return name


def stored_model(file: Path) -> str | None:
    """The model's name in the metadata of an adapter of motionexp; None in another file."""
    try:
        with file.open("rb") as content:
            # safetensors: the header's length in eight bytes, then the header as JSON.
            header = json.loads(content.read(min(int.from_bytes(content.read(8), "little"), 100_000_000)))
        name = json.loads(header["__metadata__"]["motionexp"])["model"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None
