"""Where the weights of a saved adapter lie: in a cell's folder, in that of another trainer, or in a file."""

import os
import re
from pathlib import Path

from motionexp.config.command_line import choice_hint
from motionexp.errors import InputError
from motionexp.files import user_path

FILE_NAME = "adapter.safetensors"
PEFT_FILE_NAME = "adapter_model.safetensors"
FILE_NAMES = (FILE_NAME, PEFT_FILE_NAME, "pytorch_lora_weights.safetensors")
"""Of motionexp, peft and diffusers."""
PEFT_CONFIG_NAME = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

NOISE = re.compile(r"(?<![a-z])(high|low)[-_. ]?noise")
BARE = re.compile(r"(?<![a-z])(high|low)(?![a-z])")
"""In the name of a LoRA's file: the one of two experts that it is for; a bare word may mean another thing."""


def adapter_files(adapter: str | Path) -> tuple[Path, ...]:
    """Return the file that `adapter=` names, or that of the folder that it names, or both experts' files.

    Raises:
        InputError: there is no such file, the folder has none of `FILE_NAMES` or several of them, or the file
            is a pickle, which runs code when it is read.
    """
    path = user_path(adapter)
    files = _files(path) if os.path.isdir(path) else (path,)
    for file in files:
        if not os.path.exists(file):
            hint = choice_hint("adapter", str(adapter))
            raise InputError(f"adapter={adapter}: there is no such file or folder{hint}")
        if file.suffix in PICKLES:
            raise InputError(
                f"adapter={adapter}: {file.name} is a pickle, which can run any code: save the adapter as"
                " .safetensors"
            )
    return files


def adapter_file(adapter: str | Path) -> Path:
    """The one file of `adapter=`. Raises InputError as `adapter_files`, or for the files of two experts."""
    files = adapter_files(adapter)
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InputError(f"adapter={adapter}: the folder has {names}, of two experts: name one of the files")
    return files[0]


def expert_of(file: Path) -> str:
    """`high` or `low`: the one expert that a file's or its folder's name names; empty: none, or both."""
    name = _own_name(file)
    words = set(NOISE.findall(name)) or set(BARE.findall(name))
    return words.pop() if len(words) == 1 else ""


def names_noise(file: Path) -> bool:
    """Whether that name has the expert as high_noise or low_noise, and not as a bare word."""
    return NOISE.search(_own_name(file)) is not None


def _own_name(file: Path) -> str:
    return (file.parent if file.name in FILE_NAMES else file).name.lower()


def peft_config_file(file: Path) -> Path | None:
    """The settings that belong to an adapter file: peft's, which lie beside its weights, if they exist."""
    config = file.with_name(PEFT_CONFIG_NAME)
    return config if file.name == PEFT_FILE_NAME and config.exists() else None


def _files(folder: Path) -> tuple[Path, ...]:
    files = [folder / name for name in FILE_NAMES if (folder / name).exists()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InputError(f"adapter={folder}: the folder has {names}: name one of the files")
    if not files and (of_experts := _of_experts(folder)):
        return of_experts
    # A pickle of the same name is the file's reason for an error.
    pickles = [folder / name for name in ("adapter_model.bin", "pytorch_lora_weights.bin")]
    files += [file for file in pickles if file.exists()]
    if not files:
        raise InputError(
            f"adapter={folder}: the folder has no {', '.join(FILE_NAMES)}, and no file named high or low:"
            " name a cell's adapter/ or a .safetensors file"
        )
    return (files[0],)


def _of_experts(folder: Path) -> tuple[Path, ...]:
    """The files for high and low noise of a folder, or of its folders of peft: one of each, one, or none.

    An adapter whose window lies in one expert has one.
    """
    files = [*folder.glob("*.safetensors"), *folder.glob(f"*/{PEFT_FILE_NAME}")]
    by_expert = {expert_of(file): file for file in files}
    if len(by_expert) < len(files) or not by_expert.keys() <= {"high", "low"}:
        return ()
    return tuple(by_expert[expert] for expert in ("high", "low") if expert in by_expert)
