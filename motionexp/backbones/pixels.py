"""Videos as they are, for models that denoise pixels: the codec of a pipeline without a VAE."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def compression(vae: None) -> tuple[int, int]:
    """Frames for one latent frame, and pixels of a side for one latent: 1 and 1."""
    return 1, 1


def encode(vae: None, frames: UInt8[Tensor, "b f h w 3"], device: torch.device) -> Float[Tensor, "b 3 f h w"]:
    """The frames themselves, in [-1, 1]."""
    return frames.movedim(-1, 1).to(device, torch.float32) / 127.5 - 1


def decode(
    vae: None, latents: Float[Tensor, "b 3 f h w"], device: torch.device
) -> UInt8[Tensor, "b f h w 3"]:
    """The nearest levels of pixels in [-1, 1], on the CPU."""
    frames = ((latents.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return frames.to("cpu", torch.uint8).movedim(1, -1)
