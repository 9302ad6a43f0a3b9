"""The checked settings of `python run.py export`. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from motionexp.config.adapter_files import adapter_files
from motionexp.config.command_line import CONFIG_DIR, override_key
from motionexp.config.commands import command_settings
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.sampling import beside_pipelines
from motionexp.config.schema import ModelConfig
from motionexp.config.settings import setting, settings_in
from motionexp.errors import InputError
from motionexp.files import user_path

FORMATS = ("diffusers", "comfyui", "kohya", "peft")
SAMPLING = ("recipe", "sampler", "shift", "timestep_spacing", "steps", "frames")
OF_JOBS = (*SAMPLING, "model")
"""The settings of a job on which an export depends."""


@dataclass
class ExportSettings:
    """The settings of `python run.py export`; beside them it takes some of a job's."""

    adapter: str = setting(MISSING, "folder or file of an adapter of motionexp", text=True)
    format: str = setting(MISSING, "the tool that reads it (docs/adapters.md)", choices=FORMATS)
    folder: str = setting(MISSING, "new folder, which is written to", text=True)


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
        guidance: what of the recipe's guidance the tool has to be given by hand, as words.
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
    guidance: tuple[str, ...] = ()


def load_export(words: Sequence[str]) -> ExportConfig:
    """The checked settings of `python run.py export WORDS`.

    Raises:
        InputError: a setting is missing, unknown or out of range; there is no such adapter or model; or the
            folder holds something.
    """
    of_export = settings_in(ExportSettings)
    rest = [word for word in words if override_key(word) not in of_export]
    for word in rest:
        if override_key(word).partition(".")[0] not in OF_JOBS and not word.startswith(CONFIG_DIR):
            names = ", ".join(f"{name}=" for name in (*of_export, *OF_JOBS))
            raise InputError(f"{word}: export takes {names}")
    export, _ = command_settings("export", ExportSettings, [word for word in words if word not in rest])
    folder = user_path(export.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder={folder}: it is not empty; name a new folder")
    if not any(override_key(word) == "model" for word in rest):
        rest.append(f"model={_model_of(export.adapter)}")
    cfg = load(rest)
    sampling = {name: getattr(cfg, name) for name in SAMPLING if name != "recipe"}
    guidance = tuple(beside_pipelines(vars(cfg)))
    return ExportConfig(export.adapter, export.format, folder, cfg.model, **sampling, guidance=guidance)


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
