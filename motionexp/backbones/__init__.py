"""Pre-trained text-to-video models behind one interface."""

from pathlib import Path

from motionexp.backbones.base import Backbone, Conditioning
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision

__all__ = ["Backbone", "Conditioning", "load_backbone"]


def load_backbone(
    path: str | Path = "bundled:tiny_latte",
    *,
    device: str = "auto",
    precision: str = "auto",
    revision: str | None = None,
    name: str | None = None,
    fps: float = 8.0,
) -> Backbone:
    """A backbone, ready to use on the device and in the precision that suit this machine.

    Args:
        path: `bundled:NAME`, a folder in LattePipeline's layout, or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16; see `resolve_precision`.
        revision: the hub repository's commit.
        name: in rows and paths; the folder's name unless given.
        fps: frames a second of the videos that it makes.

    Raises:
        InputError: no such model, a damaged file, or a device that is not there.
    """
    where = resolve_device(device)
    dtype = DTYPES[resolve_precision(where, precision)]
    return LatteBackbone.from_pretrained(
        path, revision=revision, device=where, dtype=dtype, name=name, fps=fps
    )
