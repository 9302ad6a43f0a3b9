"""Wan 2.1 and 2.2 that are conditioned on an image, as `diffusers.WanImageToVideoPipeline` has them.

The network gets 4 + 16 channels beside the 16 of the noisy latents: a mask that is 1 in the first frame, for
each of the four frames that one latent frame holds, and the latents of a video whose first frame is the image
and whose other frames are grey. Wan 2.1 attends to the image's CLIP features too.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

from motionexp.backbones import video_vae
from motionexp.backbones.checkpoint import BROKEN, Unsupported, read_json
from motionexp.backbones.memory import frozen, give_memory_back
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.wan import WanBackbone, WanExpertsBackbone
from motionexp.diffusion.backbone import ImageCondition
from motionexp.errors import InputError

PIPELINE = "WanImageToVideoPipeline"
LAST_FRAME = Unsupported(
    "transformer/config.json",
    "pos_embed_seq_len",
    (None,),
    "Wan 2.1's FLF2V has it, which needs the last frame too; take an I2V model",
)


def image_channels(backbone: PipelineBackbone, image: UInt8[Tensor, "h w 3"]) -> Float[Tensor, "1 e f y x"]:
    """The mask of the first frame, and the latents of the image with grey frames after it.

    Raises InputError for a size that the network does not take.
    """
    frames, ratio = backbone.frames, backbone.frames_per_latent
    _, count, *sides = backbone.latent_shape(frames, *image.shape[:2])
    device = backbone.device
    video = torch.zeros(1, 3, frames, *image.shape[:2], device=device)  # grey, in [-1, 1]
    video[0, :, 0] = image.to(device).movedim(-1, 0) / 127.5 - 1
    latents = video_vae.encode_pixels(backbone.vae, video)
    mask = torch.zeros(1, ratio, count, *sides, device=device)
    mask[:, :, 0] = 1  # the first latent frame is of the first frame alone, which counts `ratio` times
    return torch.cat([mask, latents], dim=1)


class WanImageBackbone(WanBackbone):
    """Wan 2.1 I2V: one network, which attends to 257 columns of a CLIP image encoder beside the caption's."""

    takes_image = True
    pipeline = PIPELINE
    classes: ClassVar = {
        "transformer": WanTransformer3DModel,
        "vae": AutoencoderKLWan,
        "text_encoder": UMT5EncoderModel,
        "image_encoder": CLIPVisionModel,
    }
    parts = (*classes, "tokenizer", "scheduler", "image_processor")
    unsupported: ClassVar = (*WanBackbone.unsupported, LAST_FRAME)

    @classmethod
    def _check(cls, folder: Path, *, without_weights: bool = False) -> None:
        super()._check(folder, without_weights=without_weights)
        if not without_weights:
            load_processor(folder)

    @cached_property
    def image_encoder(self) -> Any:
        """CLIP's image encoder; None once it is released."""
        return frozen(self._load("image_encoder").to(self.device)) if self._encodes else None

    @torch.no_grad()
    def encode_image(self, image: UInt8[Tensor, "h w 3"]) -> ImageCondition:
        """See `Backbone.encode_image`."""
        channels = self._vae_back(image_channels(self, image))
        pixels = self._processed(image).to(self.device)  # (1, 3, S, S)
        hidden = self.image_encoder(pixels, output_hidden_states=True).hidden_states
        return ImageCondition(channels, hidden[-2])

    def _processed(self, image: UInt8[Tensor, "h w 3"]) -> Tensor:
        side = self.image_encoder.config.image_size
        if self.device.type == "meta":
            return torch.empty(1, 3, side, side, device="meta")
        pixels: Tensor = load_processor(self._folder)(images=image.numpy(), return_tensors="pt").pixel_values
        return pixels

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        self.image_encoder = None
        super().release_vae_encoder()
        give_memory_back()

    def unload(self) -> None:
        """See `Backbone.unload`."""
        vars(self).pop("image_encoder", None)
        super().unload()


def load_processor(folder: Path) -> CLIPImageProcessor:
    """What makes an image encoder's input of images. Raises InputError where its settings are damaged."""
    part = folder / "image_processor"
    read_json(part / "preprocessor_config.json")
    try:
        return CLIPImageProcessor.from_pretrained(part, local_files_only=True)
    except BROKEN as error:
        raise InputError(f"{part} cannot be read ({error!r:.200}); fetch it again") from error


class WanImageExpertsBackbone(WanExpertsBackbone):
    """Wan 2.2 I2V-A14B: two experts of one shape, without an image encoder."""

    takes_image = True
    pipeline = PIPELINE
    unsupported: ClassVar = (*WanExpertsBackbone.unsupported, LAST_FRAME)

    def encode_image(self, image: UInt8[Tensor, "h w 3"]) -> ImageCondition:
        """See `Backbone.encode_image`."""
        return ImageCondition(self._vae_back(image_channels(self, image)))
