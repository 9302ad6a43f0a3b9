"""CogVideoX 1.0 that is conditioned on an image, as `diffusers.CogVideoXImageToVideoPipeline` has it.

Beside the 16 channels of the noisy latents the network gets those of the image's latents in the first latent
frame, and zeros in the others. diffusers draws the image's latents from the VAE's posterior; here they are
the mode.
"""

from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from motionexp.backbones.checkpoint import Unsupported
from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.diffusion.backbone import ImageCondition
from motionexp.errors import InputError


class CogVideoXImageBackbone(CogVideoXBackbone):
    """CogVideoX-5B-I2V. Its learnt positions are of one number of frames and one size."""

    takes_image = True
    pipeline = "CogVideoXImageToVideoPipeline"
    unsupported: ClassVar = (
        *CogVideoXBackbone.unsupported,
        Unsupported(
            "transformer/config.json", "ofs_embed_dim", (None,), "CogVideoX 1.5 has it; take a CogVideoX 1.0"
        ),
    )

    def encode_image(self, image: UInt8[Tensor, "h w 3"]) -> ImageCondition:
        """See `Backbone.encode_image`."""
        _, count, *_ = self.latent_shape(self.frames, *image.shape[:2])
        latents = self.encode(image[None, None])  # (1, C, 1, h, w)
        config = self.vae.config
        if config.invert_scale_latents:  # such a network was trained on latents that were divided by it
            latents = latents / config.scaling_factor**2
        return ImageCondition(torch.nn.functional.pad(latents, (0, 0, 0, 0, 0, count - 1)))

    def _latent_frames(self, frames: int) -> int:
        """See `CogVideoXBackbone`; positions that were learnt are of one number of frames."""
        count = super()._latent_frames(frames)
        if self.config.use_learned_positional_embeddings and frames not in (1, self.config.sample_frames):
            raise InputError(
                f"frames={frames}: {self.name} has learnt positions, for {self.config.sample_frames} frames"
            )
        return count
