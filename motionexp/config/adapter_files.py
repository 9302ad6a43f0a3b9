"""Where the weights of a saved adapter lie: in a cell's folder, in that of another trainer, or in a file."""

import os
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import user_path

FILE_NAME = "adapter.safetensors"
PEFT_FILE_NAME = "adapter_model.safetensors"
FILE_NAMES = (FILE_NAME, PEFT_FILE_NAME, "pytorch_lora_weights.safetensors")
"""Of motionexp, peft and diffusers."""
PEFT_CONFIG_NAME = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def adapter_file(adapter: str | Path) -> Path:
    """Return the file that `adapter=` names, or the one in the folder that it names.

    Raises:
        InputError: there is no such file, the folder has none of `FILE_NAMES` or several of them, or the file
            is a pickle, which runs code when it is read.
    """
    path = user_path(adapter)
    file = _only_file(path) if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise InputError(f"adapter={adapter}: there is no such file or folder")
    if file.suffix in PICKLES:
        raise InputError(
            f"adapter={adapter}: {file.name} is a pickle, which can run any code: save the adapter as"
            " .safetensors"
        )
    return file


def peft_config_file(file: Path) -> Path | None:
    """The settings that belong to an adapter file: peft's, which lie beside its weights, if they exist."""
    config = file.with_name(PEFT_CONFIG_NAME)
    return config if file.name == PEFT_FILE_NAME and config.exists() else None


def _only_file(folder: Path) -> Path:
    files = [folder / name for name in FILE_NAMES if (folder / name).exists()]
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InputError(f"adapter={folder}: the folder has {names}: name one of the files")
    # A pickle of the same name is the file's reason for an error.
    pickles = [folder / name for name in ("adapter_model.bin", "pytorch_lora_weights.bin")]
    files += [file for file in pickles if file.exists()]
    if not files:
        raise InputError(
            f"adapter={folder}: the folder has no {', '.join(FILE_NAMES)}: name a cell's adapter/ or a"
            " .safetensors file"
        )
    return files[0]
