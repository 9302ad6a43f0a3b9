"""Latents of a probe's unit of work that is not finished, so that an interrupted run continues from them."""

import shutil
from collections.abc import Collection

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell
from motionexp.jobs.encoding_cache import read_tensors, write_tensors
from motionexp.jobs.probe_units import Progress, counting


class Unfinished:
    """The folder `unfinished/` of a cell.

    Args:
        cell: of the unit.
        device: that tensors are read to.
    """

    def __init__(self, cell: Cell, device: torch.device) -> None:
        self.folder, self.device = cell.folder / "unfinished", device

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of a name; empty if none are stored. Raises InputError for a damaged file."""
        return read_tensors(self.folder / f"{name}.safetensors", self.device) or {}

    def write(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Store tensors in place of those of this name."""
        write_tensors(self.folder / f"{name}.safetensors", tensors, self.device)

    def blocks(self) -> tuple[int, Tensor] | None:
        """The last block of a tree that is stored, and the (N, C, F, h, w) latents of its branches."""
        for block, latents in self.read("tree").items():
            if not block.isdecimal():
                raise InputError(f"{self.folder}: {block!r:.80} is no block; delete the folder")
            return int(block), latents
        return None

    def add_block(self, block: int, latents: Tensor) -> None:
        """Store the latents at the end of a block of a tree."""
        self.write("tree", {f"{block}": latents})

    def remove(self) -> None:
        """Remove the folder: the unit's results are stored."""
        shutil.rmtree(self.folder, ignore_errors=True)


def invert_or_read(
    unfinished: Unfinished,
    backbone: Backbone,
    latents: Tensor,
    conditioning: Conditioning,
    negative: Conditioning | None,
    settings: SamplerSettings,
    timesteps: Collection[float],
    progress: Progress,
    name: str = "inverted",
) -> dict[float, Tensor]:
    """Inverted latents at some timesteps, stored under a name; see `diffusion.inversion.invert`.

    Args:
        unfinished: holds them.
        timesteps: of the sampling, that are needed.
        progress: counts the steps of the inversion; all pass at once where the latents are stored.
    """
    stored = {float(t): tensor for t, tensor in unfinished.read(name).items()}
    if stored.keys() >= set(timesteps):
        progress(settings.steps)
        return stored
    inverted = invert(backbone, latents, conditioning, negative, settings, progress=counting(progress))
    # Only what is needed: all timesteps of a large model are a gigabyte.
    inverted = {t: inverted[t] for t in sorted(timesteps)}
    unfinished.write(name, {f"{t!r}": tensor for t, tensor in inverted.items()})
    return inverted
