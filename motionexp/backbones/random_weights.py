"""Random-weight checkpoints: real models' folders in the hub's layout and sizes, in files that are holes.

They load as the real checkpoints do. Every weight is then zero; `randomize` makes it random. They serve to
measure memory and speed, which depend on sizes alone. The tokenizer is the bundled one, so that captions have
to be in the words of the bundled world.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    LatteTransformer3DModel,
    ModelMixin,
    SchedulerMixin,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from torch import nn
from transformers import PreTrainedModel, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.wan import WanBackbone
from motionexp.config.schema import BUNDLED
from motionexp.hub import configuration

# The usual spread of a transformer's initial weights: outputs stay finite through all blocks.
STD = 0.02
BYTES = 2  # of a weight in bf16
# The encoders of T5 v1.1 XXL (Raffel et al. 2020) and of UMT5 XXL, but for the number of words.
XXL: Mapping[str, object] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
T5_WORDS, UMT5_WORDS = 32128, 256384
STABLE_DIFFUSION_VAE: Mapping[str, object] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
}


def network_of(name: str) -> dict[str, object]:
    """The stored configuration of a hub model's transformer, as its class takes it."""
    stored = configuration(name)
    assert stored is not None
    settings = stored.files["transformer/config.json"]
    return {key: value for key, value in settings.items() if not key.startswith("_")}


LATTE_1: Mapping[str, object] = network_of("maxin-cn/Latte-1")
WAN_1_3B: Mapping[str, object] = network_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
COGVIDEOX_5B: Mapping[str, object] = network_of("zai-org/CogVideoX-5b")


@dataclass(frozen=True)
class RandomCheckpoint:
    """The parts of a random-weight checkpoint.

    Attributes:
        kind: the backbone that reads it.
        parts: make each of its parts that has weights; called on the meta device.
        scheduler: as its pipeline has it.
    """

    kind: type[PipelineBackbone]
    parts: Mapping[str, Callable[[], nn.Module]]
    scheduler: Callable[[], SchedulerMixin]


def _t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=T5_WORDS, **XXL))


def _umt5() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=UMT5_WORDS, **XXL))


CHECKPOINTS = {
    "latte": RandomCheckpoint(
        LatteBackbone,
        {
            "transformer": partial(LatteTransformer3DModel, **LATTE_1),
            "vae": partial(AutoencoderKL, **STABLE_DIFFUSION_VAE),
            "text_encoder": _t5,
        },
        DDIMScheduler,
    ),
    "wan_1_3b": RandomCheckpoint(
        WanBackbone,
        {
            "transformer": partial(WanTransformer3DModel, **WAN_1_3B),
            "vae": AutoencoderKLWan,
            "text_encoder": _umt5,
        },
        partial(
            UniPCMultistepScheduler,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=3.0,
        ),
    ),
    "cogvideox_5b": RandomCheckpoint(
        CogVideoXBackbone,
        {
            "transformer": partial(CogVideoXTransformer3DModel, **COGVIDEOX_5B),
            "vae": partial(AutoencoderKLCogVideoX, scaling_factor=0.7),
            "text_encoder": _t5,
        },
        partial(CogVideoXDDIMScheduler, prediction_type="v_prediction", snr_shift_scale=1.0),
    ),
}


def write_checkpoint(model: RandomCheckpoint, folder: Path) -> Path:
    """Write a model's folder, a few kilobytes on a disk that keeps holes as such; return the folder."""
    # 1. Each part: its configuration, and a file of weights that is a hole on the disk.
    index: dict[str, object] = {"_class_name": model.kind.pipeline}
    for part, make in model.parts.items():
        with torch.device("meta"):
            network = make()
        if isinstance(network, PreTrainedModel):
            library, name = "transformers", "model.safetensors"
            network.config.save_pretrained(folder / part)
        else:
            assert isinstance(network, ModelMixin)
            library, name = "diffusers", "diffusion_pytorch_model.safetensors"
            network.save_config(folder / part)
        index[part] = [library, model.kind.hub_names.get(part, type(network).__name__)]
        (folder / part / name).symlink_to(_write_hole(network, folder / "blobs"))
    # 2. What makes a pipeline of the parts.
    (folder / "model_index.json").write_text(json.dumps(index))
    model.scheduler().save_config(folder / "scheduler")
    shutil.copytree(BUNDLED / "tiny_latte" / "tokenizer", folder / "tokenizer")
    return folder


def _write_hole(network: nn.Module, blobs: Path) -> Path:
    """A safetensors file of a network's weights in bf16 of which the header alone is there.

    It lies as in the hub's cache, named by the sha256 of what it is, which is its header: nothing then hashes
    gigabytes of zeros.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    tensors = network.state_dict(keep_vars=True)  # which shows what shares its memory: it is there once
    for tensor, name in {id(tensor): (tensor, name) for name, tensor in reversed(tensors.items())}.values():
        start, end = end, end + tensor.numel() * BYTES
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    blobs.mkdir(exist_ok=True)
    path = blobs.resolve() / hashlib.sha256(text).hexdigest()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        # The weights are a hole: it reads as zeros and takes no room on the disk.
        file.truncate(8 + len(text) + end)
    return path


@torch.no_grad()
def randomize(module: nn.Module) -> nn.Module:
    """Fill a module's weights with random numbers, where it is: products of zeros take less power."""
    for parameter in module.parameters():
        if parameter.dtype.itemsize == 1:  # of which nothing can be drawn
            parameter.copy_(torch.empty(parameter.shape, device=parameter.device).normal_(std=STD))
        else:
            parameter.normal_(std=STD)
    return module
