"""Videos through the VAE of an image model, frame by frame, in bounded memory."""

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor

# 16 pictures of 256 x 256: the memory of a call does not depend on the video's length.
PIXELS_PER_CALL = 2**20


def compression(vae: AutoencoderKL) -> tuple[int, int]:
    """Frames for one latent frame, always 1, and pixels of a side for one latent."""
    return 1, int(2 ** (len(vae.config.block_out_channels) - 1))


@torch.no_grad()
def encode(
    vae: AutoencoderKL, frames: UInt8[Tensor, "b f h w 3"], device: torch.device
) -> Float[Tensor, "b c f y x"]:
    """See `Backbone.encode`; sides have to be multiples of what `compression` says."""
    if vae.encoder is None:
        raise RuntimeError("release_vae_encoder() was called: encode before it, or load the backbone again")
    # (B, F, H, W, 3) to (B F, 3, H, W).
    pictures = frames.flatten(0, 1).movedim(-1, 1)
    latents = [
        vae.encode(part.to(device, vae.dtype) / 127.5 - 1).latent_dist.mode()
        for part in pictures.split(_at_once(*frames.shape[2:4]))
    ]
    # (B F, C, h, w) back to (B, C, F, h, w) below.
    scaled = torch.cat(latents).float() * vae.config.scaling_factor
    return scaled.unflatten(0, frames.shape[:2]).transpose(1, 2)


@torch.no_grad()
def decode(
    vae: AutoencoderKL, latents: Float[Tensor, "b c f y x"], device: torch.device
) -> UInt8[Tensor, "b f h w 3"]:
    """See `Backbone.decode`."""
    videos, _, count, height, width = latents.shape
    _, factor = compression(vae)
    # (B, C, F, h, w) to (B F, C, h, w).
    pictures = latents.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor
    frames = []
    for part in pictures.split(_at_once(height * factor, width * factor)):
        decoded = vae.decode(part.to(device, vae.dtype)).sample
        frames.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(frames).movedim(1, -1).unflatten(0, (videos, count))


def _at_once(height: int, width: int) -> int:
    """How many pictures of this size go through the VAE in one call."""
    return max(1, PIXELS_PER_CALL // (height * width))
