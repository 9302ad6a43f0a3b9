"""ModelScope's text-to-video U-Net (Wang et al. 2023, arXiv 2308.06571) in diffusers' layout.

A Stable Diffusion U-Net whose every convolution and attention within a frame is followed by one along time.
The text is laid out as `diffusers.TextToVideoSDPipeline` does it: padded to the tokenizer's full length, the
text encoder's last hidden state, no mask, and an empty caption for the unconditional branch.
"""

import math
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from motionexp.backbones import image_vae
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.errors import InputError

Attentions = dict[ProjectionKind, tuple[type[torch.nn.Module], tuple[str, ...]]]
"""Of each kind: the class of the transformers, and the names of their attentions."""
ATTENTIONS: Attentions = {
    "motion": (TransformerTemporalModel, ("attn1", "attn2")),
    "spatial": (Transformer2DModel, ("attn1",)),
    "cross": (Transformer2DModel, ("attn2",)),
}
LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def attention_projections(
    network: torch.nn.Module, kind: ProjectionKind, of: Attentions = ATTENTIONS
) -> dict[str, list[str]]:
    """See `Backbone.projections` and `UNet3DBackbone`. The network may be on `meta`."""
    model, attentions = of[kind]
    modules = [
        f"{name}.transformer_blocks.{block}.{attention}"
        for name, module in network.named_modules()
        if isinstance(module, model)
        for block, _ in module.get_submodule("transformer_blocks").named_children()
        for attention in attentions
    ]
    return {letter: [f"{module}.{layer}" for module in modules] for letter, layer in LAYERS.items()}


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

    def _set_sizes(self) -> None:
        self.frames = 16
        self.height = self.width = self._config.sample_size * self._vae_factor
        self.max_caption_tokens = self.tokenizer.model_max_length

    @classmethod
    def _longest_caption(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
        return tokenizer.model_max_length

    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.encode`."""
        self.latent_shape(*frames.shape[1:4])
        return image_vae.encode(self.vae, frames, self.device)

    def decode(self, latents: Float[Tensor, "b c f y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
        return image_vae.decode(self.vae, latents, self.device)

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        self._refuse_mask(conditioning)
        with attention_kernels(self.device, self.dtype, self._longest_sequence(*x_t.shape[2:])):
            output = self.network(
                x_t.to(self.device, self.dtype),
                torch.as_tensor(t, device=self.device).expand(len(x_t)),
                self._captions(conditioning, x_t.shape[2]).to(self.device, self.dtype),
                return_dict=False,
            )[0]
        return output.to(x_t.dtype)

    def _captions(self, conditioning: Conditioning, frames: int) -> Tensor:
        """Embedded captions as the network takes them."""
        return conditioning.embeds

    def _longest_sequence(self, frames: int, height: int, width: int) -> int:
        """The most tokens of one attention: all frames of a position, or all positions of a frame."""
        return max(frames, self._first_attention(height, width)[1])

    def _first_attention(self, height: int, width: int) -> tuple[int, int]:
        """How often latents are halved before attention within a frame, and its positions then."""
        level = [kind.startswith("CrossAttn") for kind in self._config.down_block_types].index(True)
        return level, math.ceil(height / 2**level) * math.ceil(width / 2**level)

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections` and `attention_projections`."""
        return attention_projections(self.network, kind)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: any number of frames from 1, sides in whole latents."""
        if frames < 1:
            raise InputError(f"frames={frames}: {self.name} makes videos of 1 frame or more")
        return self._config.in_channels, frames, *self._latent_sides(height, width)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate."""
        _, frames, height, width = shape
        positions = frames * height * width
        held = positions * self._held_widths() * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, self._longest_sequence(frames, height, width)):
            return held
        level, tokens = self._first_attention(height, width)
        heads = self._heads(level)
        spatial = frames * tokens * heads * max(tokens, self.max_caption_tokens)
        return held + 8 * max(spatial, positions * 8 * frames)

    def _held_widths(self) -> int:
        """Numbers held for each position at the peak: of `transformer_in`, or of the last block of all.

        The factors are measured.
        """
        return max(23 * 8 * self._config.attention_head_dim, 28 * self._config.block_out_channels[0])

    def _heads(self, level: int) -> int:
        """Of an attention within a frame."""
        heads: int = self._config.block_out_channels[level] // self._config.attention_head_dim
        return heads
