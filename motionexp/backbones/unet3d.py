"""ModelScope's text-to-video U-Net (Wang et al. 2023, arXiv 2308.06571) in diffusers' layout.

A Stable Diffusion U-Net whose every convolution and attention within a frame is followed by one along time.
The text is laid out as `diffusers.TextToVideoSDPipeline` does it: padded to the tokenizer's full length, the
text encoder's last hidden state, no mask, and an empty caption for the unconditional branch.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel

from motionexp.backbones.blocks import levels
from motionexp.backbones.flow import projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import lower_case, refuse_mask
from motionexp.diffusion.backbone import Conditioning, ProjectionKind

Attentions = tuple[type[torch.nn.Module], tuple[str, ...]]
"""Of one kind: the class of the transformers, and the names of their attentions."""
ATTENTIONS: dict[ProjectionKind, Attentions] = {
    "motion": (TransformerTemporalModel, ("attn1", "attn2")),
    "spatial": (Transformer2DModel, ("attn1",)),
    "cross": (Transformer2DModel, ("attn2",)),
}


def attention_projections(network: torch.nn.Module, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections` and `UNet3DBackbone`. The network may be on `meta`."""
    return find_attentions(network, ATTENTIONS[kind])


def find_attentions(network: torch.nn.Module, attentions: Attentions) -> dict[str, list[str]]:
    """Names of the projections of these attentions, in the order of the network's modules."""
    transformer, names = attentions
    modules = [
        f"{name}.transformer_blocks.{block}.{attention}"
        for name, module in network.named_modules()
        if isinstance(module, transformer)
        for block, _ in module.get_submodule("transformer_blocks").named_children()
        for attention in names
    ]
    return projections_of(modules)


class UNet3DBackbone(PipelineBackbone):
    """ModelScope's U-Net, for any number of frames and any size, which may be set.

    `motion` attention is all attention of the temporal transformers: both self-attentions (`attn1`, `attn2`)
    of each, `transformer_in` at the network's entrance included, without the temporal convolutions, which mix
    frames too. That is 16 attentions in 8 transformers in the small bundled network, where a LoRA of rank 4
    on v and o trains 18,432 numbers, and 34 in 17 with 415,744 numbers in ModelScope's and Zeroscope's.
    Within frames there are 7 (there 16) each of `spatial` and `cross` attention.

    On a single frame the temporal layers run as they are: attention over one token gives its own value, and
    the convolutions see zeros before and after. An adapter in the motion attention changes single frames too.

    Dropout is off, in tuning too: diffusers gives it to the temporal convolutions, without a setting.
    """

    any_size = True
    pipeline = "TextToVideoSDPipeline"
    classes: ClassVar = {"unet": UNet3DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    recomputed: ClassVar[tuple[type[torch.nn.Module], ...]] = (
        ResnetBlock2D,
        TemporalConvLayer,
        Transformer2DModel,
        TransformerTemporalModel,
    )
    find_projections = staticmethod(attention_projections)
    find_blocks = staticmethod(levels)
    motion_layout = "time"
    caption_form = staticmethod(lower_case)

    def _trained_video(self) -> tuple[int, int, int]:
        side = self.config.sample_size * self.pixels_per_latent
        return 16, side, side

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        refuse_mask(conditioning)
        return denoise(self, x_t, t, conditioning.embeds)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate."""
        widths, head = self.config.block_out_channels, self.config.attention_head_dim
        # The factors are measured peaks: of `transformer_in`, or of the last block on the way up.
        return unet_bytes(
            self, shape, held=max(23 * 8 * head, 28 * widths[0]), heads=[width // head for width in widths]
        )


def denoise(
    backbone: PipelineBackbone,
    x_t: Float[Tensor, "b c f y x"],
    t: float | Tensor,
    captions: Float[Tensor, "rows l d"],
) -> Float[Tensor, "b c f y x"]:
    """The output of a U-Net whose attention runs along time or within a frame; see `Backbone.predict`."""
    # One kernel for all: it has to suit the longest sequence.
    with attention_kernels(backbone.device, backbone.dtype, _longest_sequence(backbone, *x_t.shape[2:])):
        output: Tensor = backbone.network(
            x_t.to(backbone.device, backbone.dtype),
            torch.as_tensor(t, device=backbone.device).expand(len(x_t)),
            captions.to(backbone.device, backbone.dtype),
            return_dict=False,
        )[0]
    return output.to(x_t.dtype)


def unet_bytes(
    backbone: PipelineBackbone, shape: tuple[int, int, int, int], held: int, heads: Sequence[int]
) -> int:
    """Upper estimate of the bytes that such a U-Net's forward pass of one video (C, F, h, w) takes.

    Args:
        backbone: the model.
        shape: the video's latents.
        held: numbers held for each position at the peak, measured.
        heads: heads of the attention within a frame, on each level.
    """
    _, frames, height, width = shape
    positions = frames * height * width
    total = positions * held * backbone.dtype.itemsize
    if not plain_attention(
        backbone.device, backbone.dtype, _longest_sequence(backbone, frames, height, width)
    ):
        return total
    # Without the fused kernel, the matrix of scores is written out.
    level, tokens = _first_attention(backbone, height, width)
    # Scores within frames: (F heads, tokens, tokens or caption columns).
    spatial = frames * tokens * heads[level] * max(tokens, backbone.max_caption_tokens)
    return total + 8 * max(spatial, positions * 8 * frames)


def _longest_sequence(backbone: PipelineBackbone, frames: int, height: int, width: int) -> int:
    """The most tokens of one attention: all frames of a position, or all positions of a frame."""
    return max(frames, _first_attention(backbone, height, width)[1])


def _first_attention(backbone: PipelineBackbone, height: int, width: int) -> tuple[int, int]:
    """How often latents are halved before attention within a frame, and its positions then."""
    # The first block with attention sees the most positions of all.
    level = [kind.startswith("CrossAttn") for kind in backbone.config.down_block_types].index(True)
    return level, math.ceil(height / 2**level) * math.ceil(width / 2**level)
