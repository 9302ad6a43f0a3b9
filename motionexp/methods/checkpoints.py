"""The files of interrupted trainings: written whole, sealed, and read once for all ranks."""

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from motionexp.config.imports import without
from motionexp.diffusion import ranks
from motionexp.errors import DAMAGE, InputError
from motionexp.files import BLANK_SEAL, read_sealed, seal, write_whole

with without("matplotlib", "torchvision", "scipy"):  # torchmetrics imports them, for metrics and pictures
    from lightning.pytorch.plugins.io import TorchCheckpointIO


class SealedFile(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and read only if no bit has changed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, with its seal after the end of PyTorch's file. Lightning calls it on rank 0."""
        # Lightning's own version passes through the system's folder of temporary files.
        memory = io.BytesIO()
        torch.save(checkpoint, memory)
        memory.write(BLANK_SEAL.encode())
        write_whole(Path(path), seal(memory.getvalue()))

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """The checkpoint, on the CPU, as rank 0 reads it; all ranks call it.

        Raises:
            InputError: it is damaged.
        """
        # Another node may not see the file yet.
        return ranks.of_first(_read(Path(path)) if ranks.is_first() else {})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = io.BytesIO(read_sealed(path) or b"")  # without a seal it is as good as empty
        return dict(torch.load(content, map_location="cpu", weights_only=True))
    except (*DAMAGE, UnpicklingError) as error:
        raise InputError(f"{path}: damaged: delete it to train from the start") from error
