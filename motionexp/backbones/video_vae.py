"""Videos through a VAE that is causal in time: the first frame alone, then so many frames a latent frame."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from motionexp.errors import InputError


def latent_frames(frames: int, ratio: int, name: str) -> int:
    """Latent frames of a video, of which a first frame alone and then each `ratio` make one.

    Raises InputError where that leaves a rest; `name` is the model's.
    """
    if frames < 1 or frames % ratio != 1 % ratio:
        raise InputError(f"frames={frames}: {name} needs 1 frame and a multiple of {ratio}")
    return (frames - 1) // ratio + 1


@torch.no_grad()
def encode(vae: Any, frames: UInt8[Tensor, "b f h w 3"], device: torch.device) -> Float[Tensor, "b c l y x"]:
    """See `Backbone.encode`. One video at a time, scaled by the VAE's own mean and deviation of channels."""
    if vae.encoder is None:
        raise RuntimeError("release_vae_encoder() was called: encode before it, or load the backbone again")
    latents = [
        vae.encode(video.to(device, vae.dtype) / 127.5 - 1).latent_dist.mode()
        for video in frames.movedim(-1, 1).split(1)
    ]
    mean, std = _channels(vae, device)
    return (torch.cat(latents).float() - mean) / std


@torch.no_grad()
def decode(vae: Any, latents: Float[Tensor, "b c l y x"], device: torch.device) -> UInt8[Tensor, "b f h w 3"]:
    """See `Backbone.decode`. One video at a time."""
    mean, std = _channels(vae, device)
    frames = []
    for video in (latents.to(device, torch.float32) * std + mean).split(1):
        decoded = vae.decode(video.to(vae.dtype)).sample.float()
        frames.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(frames).movedim(1, -1)


def _channels(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of raw latents, (1, C, 1, 1, 1) each: of the config, of LTX's buffers, or 0 and 1.

    Some configs divide the deviation by a `scaling_factor` beside.
    """
    known = {**dict(vae.named_buffers(recurse=False)), **vae.config}
    scale = known.get("scaling_factor") or 1.0
    mean, std = (known.get(f"latents_{name}") for name in ("mean", "std"))
    if mean is None:
        mean, std = [0.0], [1.0]
    tensors = (torch.as_tensor(each, device=device, dtype=torch.float32) for each in (mean, std))
    means, stds = (each.reshape(1, -1, 1, 1, 1) for each in tensors)
    return means, stds / scale
