"""Videos through a VAE that is causal in time.

The first frame alone becomes the first latent frame; after it, a fixed number of frames becomes one.
"""

from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from jaxtyping import Float, UInt8
from torch import Tensor


def compression(vae: Any) -> tuple[int, int]:
    """Frames for one latent frame after the first, and pixels of a side for one latent."""
    match vae:
        case AutoencoderKLCogVideoX():
            return vae.config.temporal_compression_ratio, 2 ** (len(vae.config.block_out_channels) - 1)
        case AutoencoderKLWan():
            return vae.config.scale_factor_temporal, vae.config.scale_factor_spatial
    return vae.temporal_compression_ratio, vae.spatial_compression_ratio


@torch.no_grad()
def encode(vae: Any, frames: UInt8[Tensor, "b f h w 3"], device: torch.device) -> Float[Tensor, "b c l y x"]:
    """See `Backbone.encode`. One video at a time, scaled by the VAE's own statistics of its channels."""
    pixels = (video.to(device, vae.dtype) / 127.5 - 1 for video in frames.movedim(-1, 1).split(1))
    return torch.cat([encode_pixels(vae, video) for video in pixels])


@torch.no_grad()
def encode_pixels(vae: Any, video: Float[Tensor, "1 3 f h w"]) -> Float[Tensor, "1 c l y x"]:
    """As `encode`, of one video in [-1, 1] on the VAE's device."""
    if vae.encoder is None:
        raise RuntimeError("release_vae_encoder() was called: encode before it, or load the backbone again")
    # The mode, not a draw: encoding has no noise of its own.
    # (1, C, l, y, x) before the scale of the network's inputs.
    raw = vae.encode(video).latent_dist.mode().float()
    mean, std, scale = _statistics(vae, video.device)
    return raw * scale if mean is None else (raw - mean) / (std / scale)


@torch.no_grad()
def decode(vae: Any, latents: Float[Tensor, "b c l y x"], device: torch.device) -> UInt8[Tensor, "b f h w 3"]:
    """See `Backbone.decode`. One video at a time."""
    latents = latents.to(device, torch.float32)
    mean, std, scale = _statistics(vae, device)
    raw = latents / scale if mean is None else latents * (std / scale) + mean
    frames = []
    for video in raw.split(1):
        # One video at a time: a causal VAE of videos needs most of the memory.
        decoded = vae.decode(video.to(vae.dtype)).sample.float()
        frames.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(frames).movedim(1, -1)


def _statistics(vae: Any, device: torch.device) -> tuple[Tensor | None, Tensor, float]:
    """Mean and standard deviation of raw latents, (1, C, 1, 1, 1) each, and `scaling_factor`.

    LTX has them as buffers, the others in the configuration. The mean is None where there are none: raw
    latents are then multiplied by the factor alone.
    """
    # The configuration wins where both have a name.
    settings = {**dict(vae.named_buffers(recurse=False)), **vae.config}
    scale = settings.get("scaling_factor") or 1.0
    if settings.get("latents_mean") is None:
        return None, torch.ones(1), scale
    mean, std = (
        torch.as_tensor(settings[f"latents_{name}"], device=device, dtype=torch.float32).reshape(
            1, -1, 1, 1, 1
        )
        for name in ("mean", "std")
    )
    return mean, std, scale
