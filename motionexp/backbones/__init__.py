"""Pre-trained text-to-video models behind one interface."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from motionexp.backbones.checkpoint import NetworkPrecision, Offload, TextPrecision, read_json
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.errors import InputError
from motionexp.hub import find_folder, naming_the_model

__all__ = ["Backbone", "Conditioning", "load_backbone"]

WAN = "motionexp.backbones.wan.WanBackbone"
WAN_IMAGE = "motionexp.backbones.wan_image.WanImageBackbone"
EXPERTS = {
    WAN: "motionexp.backbones.wan.WanExpertsBackbone",
    WAN_IMAGE: "motionexp.backbones.wan_image.WanImageExpertsBackbone",
}
"""The class of a Wan whose model_index.json names a second network, by that of one with one network."""
FRAMES = "motionexp.backbones.wan.WanFramesBackbone"
"""The class of a Wan with the VAE of an image model."""
FAMILIES = {
    "LattePipeline": "motionexp.backbones.latte.LatteBackbone",
    "TextToVideoSDPipeline": "motionexp.backbones.unet3d.UNet3DBackbone",
    "AnimateDiffPipeline": "motionexp.backbones.animatediff.AnimateDiffBackbone",
    "TextToVideoIFPipeline": "motionexp.backbones.show1.Show1Backbone",
    "CogVideoXPipeline": "motionexp.backbones.cogvideox.CogVideoXBackbone",
    "CogVideoXImageToVideoPipeline": "motionexp.backbones.cogvideox_image.CogVideoXImageBackbone",
    "WanPipeline": WAN,
    "WanImageToVideoPipeline": WAN_IMAGE,
    "LTXPipeline": "motionexp.backbones.ltx.LTXBackbone",
    "HunyuanVideoPipeline": "motionexp.backbones.hunyuan.HunyuanBackbone",
    "MochiPipeline": "motionexp.backbones.mochi.MochiBackbone",
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
    checkpointing: bool = False,
    offload: Offload = "none",
    tiling: bool = False,
    text_precision: TextPrecision = "auto",
    network_precision: NetworkPrecision = "auto",
) -> Backbone:
    """A backbone, ready to use on the device and in the precision that suit this machine.

    Args:
        path: `bundled:NAME`, a folder in the layout of a pipeline of `FAMILIES`, or a hub id; or
            IMAGE_MODEL+MOTION_ADAPTER, each a folder or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16; see `resolve_precision`.
        revision: the hub repository's commit.
        name: in rows and paths; the folder's name unless given.
        fps: frames a second of the videos that it makes.
        checkpointing: compute activations again in the backward pass in place of keeping them.
        offload: none, model, group or group_stream: what waits in main memory; not on a CPU.
        tiling: run the VAE in tiles whose seams are blended.
        text_precision: auto, 8bit or 4bit: of the text encoder's weights.
        network_precision: auto, fp8, 8bit or 4bit: of the weights in the network's blocks.

    Raises:
        InputError: no such model, one of another family, a damaged file, or a device that is not there.
    """
    where = resolve_device(device)
    dtype = DTYPES[resolve_precision(where, precision)]
    folder = find_folder(path, revision, local_files_only=False)
    index = folder / "model_index.json"
    with naming_the_model(path, revision, ()):
        about = read_json(index)
    family = about.get("_class_name")
    if family not in FAMILIES:
        raise InputError(f"{index}: a {family} cannot be used; what can: {', '.join(FAMILIES)}")
    load: Callable[..., Backbone] = get_object(f"{_backbone_of(about)}.from_pretrained")
    memory = {"checkpointing": checkpointing, "offload": offload, "tiling": tiling}
    settings = {**memory, "text_precision": text_precision, "network_precision": network_precision}
    return load(path, revision=revision, device=where, dtype=dtype, name=name, fps=fps, **settings)


def _backbone_of(index: Mapping[str, Any]) -> str:
    """The class behind our interface for a folder's model_index.json, which is of one of `FAMILIES`."""
    kind = FAMILIES[index["_class_name"]]
    if kind not in EXPERTS:
        return kind
    # All kinds of Wan have one class name in the index: the second network and the VAE tell them apart.
    if (index.get("transformer_2") or [None])[-1] is not None:
        return EXPERTS[kind]
    if kind == WAN_IMAGE:
        return kind
    return FRAMES if (index.get("vae") or [None])[-1] == "AutoencoderKL" else WAN
