"""The checked settings of `python run.py export`. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from motionexp.config.adapter_files import adapter_files
from motionexp.config.command_line import CONFIG_DIR, override_key
from motionexp.config.commands import command_settings
from motionexp.config.compose import load
from motionexp.config.options import method_defaults, options
from motionexp.config.schema import RECIPE_SETTINGS, ModelConfig
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
        frames: of the videos that will be sampled. Some shifts grow with the size of videos.
        sampling: of the videos that will be sampled, {setting of a job: value}: `RECIPE_SETTINGS`, unless
            given those of the model's recipe, and `inverted_noise`, that of the adapter's method.
    """

    adapter: str
    format: str
    folder: Path
    model: ModelConfig
    frames: int
    sampling: Mapping[str, Any]


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
    sampling = {name: getattr(cfg, name) for name in RECIPE_SETTINGS}
    sampling["inverted_noise"] = method_inverted_noise(_stored(adapter_files(export.adapter)[0], "method"))
    return ExportConfig(export.adapter, export.format, folder, cfg.model, cfg.frames, sampling)


def _model_of(adapter: str) -> str:
    """The option of `model=` that an adapter's file names."""
    name = _stored(adapter_files(adapter)[0], "model")
    if name is None:
        raise InputError(
            f"adapter={adapter}: not saved by motionexp, whose adapters alone can be exported; name the"
            " folder of a cell, as a run prints it"
        )
    if name not in options("model"):
        raise InputError(
            f"adapter={adapter}: it was tuned on {name}, which is no option of model=: give model=NAME (and"
            " model.path=FOLDER)"
        )
    return name


def method_inverted_noise(method: str | None) -> float:
    """The `inverted_noise=` with which jobs of a method sample unless told otherwise; 0 of an unknown one."""
    if method is None or method not in options("method"):
        return 0.0
    return float(method_defaults(method).get("inverted_noise", 0.0))


def _stored(file: Path, name: str) -> str | None:
    """A text in the metadata of an adapter of motionexp, as its model's name; None in another file."""
    try:
        with file.open("rb") as content:
            # safetensors: the header's length in eight bytes, then the header as JSON.
            header = json.loads(content.read(min(int.from_bytes(content.read(8), "little"), 100_000_000)))
        value = json.loads(header["__metadata__"]["motionexp"])[name]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else None
