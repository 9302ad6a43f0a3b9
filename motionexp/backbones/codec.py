"""The interface between a pipeline and its VAE."""

from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


class VideoCodec(Protocol):
    """How frames become latents: one of the modules `image_vae`, `video_vae` and `pixels`."""

    def compression(self, vae: Any, /) -> tuple[int, int]:
        """Frames for one latent frame after the first, and pixels of a side for one latent."""

    def encode(
        self, vae: Any, frames: UInt8[Tensor, "b f h w 3"], device: torch.device
    ) -> Float[Tensor, "b c l y x"]:
        """See `Backbone.encode`."""

    def decode(
        self, vae: Any, latents: Float[Tensor, "b c l y x"], device: torch.device
    ) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
