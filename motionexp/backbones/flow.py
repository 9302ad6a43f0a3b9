"""What video transformers share: their input, names of the attention's layers, and the memory of a block."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import plain_attention
from motionexp.diffusion.backbone import ImageCondition

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
Activations = tuple[float, float]
"""How many activations of the network's width a token holds: in fp32, and in the weights' precision."""


def projections_of(attentions: Sequence[str]) -> dict[str, list[str]]:
    """Names of the projections of the attention modules with these names, in their order."""
    return {letter: [f"{name}.{layer}" for name in attentions] for letter, layer in LAYERS.items()}


def network_input(backbone: PipelineBackbone, x_t: Tensor, image: ImageCondition | None) -> Tensor:
    """Noisy latents (B, C, F, h, w) and the channels of an image, if the network takes one, as it takes them.

    Raises ValueError where an image is missing, or there is one for a network that takes none.
    """
    if (image is not None) != backbone.takes_image:
        needed = "needs captions with an image" if backbone.takes_image else "takes no image"
        raise ValueError(f"{backbone.name} {needed}: see Conditioning.with_image and Backbone.encode_image")
    parts = [x_t, image.channels] if image is not None else [x_t]
    return torch.cat([part.to(backbone.device, backbone.dtype) for part in parts], dim=1)


def block_bytes(
    backbone: PipelineBackbone,
    shape: Sequence[int],
    video: Activations,
    caption: Activations,
    *,
    joint: bool = False,
) -> int:
    """Estimated peak of one block's forward pass, in bytes, for captions of the greatest length.

    Args:
        backbone: the model.
        shape: a video's latents (C, F, h, w).
        video: activations of a token of the video, measured.
        caption: activations of a caption's column, measured.
        joint: whether the tokens of video and caption attend to each other in one attention.
    """
    config, tokens, columns = backbone.config, backbone.video_tokens(shape), backbone.max_caption_tokens
    width = config.num_attention_heads * config.attention_head_dim
    # Numbers in fp32 (norms, rotary positions), and in the precision of the weights.
    full, half = (video[i] * tokens + caption[i] * columns for i in (0, 1))
    held = int(width * (4 * full + backbone.dtype.itemsize * half))
    if not plain_attention(backbone.device, backbone.dtype, tokens + columns if joint else tokens):
        return held
    # Without the fused kernel, the matrix of scores is written out.
    return held + 9 * config.num_attention_heads * tokens * max(tokens, columns)
