"""What video transformers share: names of the attention's layers, and the memory of a block."""

from collections.abc import Sequence

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import plain_attention

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
Activations = tuple[float, float]
"""How many activations of the network's width a token holds: in fp32, and in the weights' precision."""


def projections_of(attentions: Sequence[str]) -> dict[str, list[str]]:
    """Names of the projections of the attention modules with these names, in their order."""
    return {letter: [f"{name}.{layer}" for name in attentions] for letter, layer in LAYERS.items()}


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
