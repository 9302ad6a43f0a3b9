"""Pre-trained text-to-video models behind one interface."""

from collections.abc import Callable
from pathlib import Path

from hydra.utils import get_object

from motionexp.backbones.base import Backbone, Conditioning
from motionexp.backbones.checkpoint import find_folder, read_json
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision
from motionexp.config import InputError

__all__ = ["Backbone", "Conditioning", "load_backbone"]

FAMILIES = {
    "LattePipeline": "motionexp.backbones.latte.LatteBackbone",
    "TextToVideoSDPipeline": "motionexp.backbones.unet3d.UNet3DBackbone",
    "CogVideoXPipeline": "motionexp.backbones.cogvideox.CogVideoXBackbone",
}
"""The class behind our interface, by `_class_name` of a folder's model_index.json."""


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
        path: `bundled:NAME`, a folder in the layout of a pipeline of `FAMILIES`, or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16; see `resolve_precision`.
        revision: the hub repository's commit.
        name: in rows and paths; the folder's name unless given.
        fps: frames a second of the videos that it makes.

    Raises:
        InputError: no such model, one of another family, a damaged file, or a device that is not there.
    """
    where = resolve_device(device)
    dtype = DTYPES[resolve_precision(where, precision)]
    index = find_folder(path, revision, local_files_only=False) / "model_index.json"
    family = read_json(index).get("_class_name")
    if family not in FAMILIES:
        raise InputError(f"{index}: a {family} cannot be used; what can: {', '.join(FAMILIES)}")
    load: Callable[..., Backbone] = get_object(f"{FAMILIES[family]}.from_pretrained")
    return load(path, revision=revision, device=where, dtype=dtype, name=name, fps=fps)
