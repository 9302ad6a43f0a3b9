"""Latte (Ma et al. 2024, arXiv 2401.03048) in diffusers' layout: spatial and temporal attention in turns.

The text is laid out as `diffusers.LattePipeline` does it for a single prompt with `clean_caption=False`:
lower case, padded to 120 tokens for the encoder, and only the caption's own tokens go to the network. (Given
a list of prompts, that pipeline keeps all 120, with zeros for padding, so that a video depends on how many
are made at once; that is not followed here.)
"""

from typing import ClassVar

import torch
from diffusers import AutoencoderKL, LatteTransformer3DModel
from jaxtyping import Float
from torch import Tensor
from transformers import T5EncoderModel

from motionexp.backbones.flow import projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import stripped_lower_case
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.errors import InputError

ATTENTIONS: dict[ProjectionKind, tuple[str, str]] = {
    "motion": ("temporal_transformer_blocks", "attn1"),
    "spatial": ("transformer_blocks", "attn1"),
    "cross": ("transformer_blocks", "attn2"),
}


def attention_projections(network: LatteTransformer3DModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Latte-1 each list has 28 names. The network may be on `meta`."""
    blocks, attention = ATTENTIONS[kind]
    count = len(network.get_submodule(blocks))
    return projections_of([f"{blocks}.{block}.{attention}" for block in range(count)])


class LatteBackbone(PipelineBackbone):
    """Latte: `motion` attention is the temporal blocks' `attn1`, one block after each spatial one.

    Videos have the number of frames that the network was trained for, or one. On a single frame the temporal
    blocks are skipped, as in Latte's joint training on images and videos: what is
    learnt in them, an adapter in the motion attention too, changes no single frame.
    """

    pipeline = "LattePipeline"
    classes: ClassVar = {
        "transformer": LatteTransformer3DModel,
        "vae": AutoencoderKL,
        "text_encoder": T5EncoderModel,
    }
    find_projections = staticmethod(attention_projections)
    motion_layout = "time"
    caption_form = staticmethod(stripped_lower_case)
    caption_tokens = 120
    encoder_masks_padding = network_masks_padding = True

    @staticmethod
    def find_blocks(network: LatteTransformer3DModel) -> list[tuple[str, ...]]:
        """A spatial block and the temporal one after it."""
        count = len(network.transformer_blocks)
        return [(f"transformer_blocks.{i}", f"temporal_transformer_blocks.{i}") for i in range(count)]

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`: of the places of a frame, and of the frames."""
        return "pos_embed.pos_embed", "temp_pos_embed"

    def _trained_video(self) -> tuple[int, int, int]:
        side = self.config.sample_size * self.pixels_per_latent
        return self.config.video_length, side, side

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`.

        As in the stock pipeline, a negative caption fills as many columns as its row's caption has: it is cut
        where it is longer, and keeps embedded padding where it is shorter.
        """
        conditioning = conditioning.trimmed()
        length = conditioning.embeds.shape[1]
        if negative.embeds.shape[1] < length:
            raise ValueError(
                f"the negative caption has {negative.embeds.shape[1]} columns of {length}: do not trim it"
            )
        if len(negative) == 1:
            negative = negative.repeat(len(conditioning))
        # Cut to the caption's length, as LattePipeline does.
        return Conditioning(negative.embeds[:, :length], conditioning.mask), conditioning

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        videos, channels, frames, height, width = x_t.shape
        # Tokens of one frame, which attention within a frame takes as one sequence.
        tokens = height * width // self.config.patch_size**2
        with attention_kernels(self.device, self.dtype, tokens):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                timestep=torch.as_tensor(t, device=self.device).expand(videos),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                encoder_attention_mask=self._attention_bias(conditioning, frames),
                enable_temporal_attentions=frames > 1,
                return_dict=False,
            )[0]
        # (B, 2 C, F, h, w) where the network has learnt a variance: the noise is the first half.
        return output[:, :channels].to(x_t.dtype)

    def _attention_bias(self, conditioning: Conditioning, frames: int) -> Tensor | None:
        """The mask as what is added to the scores of every frame: diffusers' Latte does not convert it."""
        if conditioning.mask is None:
            return None
        # The lowest number of the dtype, not minus infinity: a row of these alone would be nan.
        bias = torch.zeros(conditioning.mask.shape, dtype=self.dtype)
        bias = bias.masked_fill(~conditioning.mask, torch.finfo(self.dtype).min)
        # (B, L) to (B F, 1, L): within frames, attention runs over B F rows.
        return bias.to(self.device)[:, None].repeat_interleave(frames, dim=0)

    def _latent_frames(self, frames: int) -> int:
        """The trained number of frames, or 1."""
        if frames not in (1, self.frames):
            raise InputError(f"frames={frames}: {self.name} makes videos of {self.frames} frames, or of 1")
        return frames

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate, for captions of the greatest length."""
        config = self.config
        heads, text = config.num_attention_heads, self.max_caption_tokens
        width = heads * config.attention_head_dim
        frames, tokens = shape[1], shape[2] * shape[3] // config.patch_size**2
        # The factors are measured peaks of one block, in activations of the network's width.
        held: int = frames * width * (14 * tokens + 3 * text) * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, tokens):
            return held
        return held + 4 * frames * (4 * width * (tokens + text) + 2 * heads * tokens * max(tokens, text))
