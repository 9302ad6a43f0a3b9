"""Show-1's base model (Zhang et al. 2023, arXiv 2309.15818): keyframes, in pixels.

diffusers has no pipeline for it; the steps are those of the authors' `TextToVideoIFPipeline`, with a DDIM
sampler. The text is laid out as there with `clean_caption=False`: lower case, padded to 77 tokens; the
encoder masks the padding, and the network hears it.
"""

from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float
from torch import Tensor
from transformers import T5EncoderModel

from motionexp.backbones import pixels
from motionexp.backbones.blocks import levels
from motionexp.backbones.flow import projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.show1_network import ShowOneUNet, attention_layers
from motionexp.backbones.text import refuse_mask, stripped_lower_case
from motionexp.diffusion.backbone import Conditioning, ProjectionKind

# The hub's scheduler clips x_0 frame by frame at a quantile of it (dynamic thresholding), in DPM-Solver++'s
# steps. Here x_0 is clipped to the pictures' range.
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "thresholding": False,
    "clip_sample": True,
    "clip_sample_range": 1.0,
}


def attention_projections(network: torch.nn.Module, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections` and `Show1Backbone`. The network may be on `meta`."""
    modules = attention_layers(network, kind)
    if kind != "cross":
        return projections_of(modules)
    # One attention takes space and caption; the caption's keys and values have layers of their own.
    caption = {letter: [f"{name}.add_{letter}_proj" for name in modules] for letter in "kv"}
    return projections_of(modules) | caption


class Show1Backbone(PipelineBackbone):
    """Show-1's base model, for any number of frames and any size; latents are the pixels, in [-1, 1].

    `motion` attention is both self-attentions along time (`attn1`, `attn2`) of every temporal transformer, 44
    in 22, without the convolutions along time. Within a frame one attention hears space and caption together:
    `spatial` and `cross` share its q and o, and have keys and values of their own.

    There is no VAE: `release_vae_encoder` has nothing to give back.
    """

    any_size = True
    pipeline = "TextToVideoIFPipeline"
    classes: ClassVar = {"unet": ShowOneUNet, "text_encoder": T5EncoderModel}
    hub_names: ClassVar = {"unet": "UNet3DConditionModel"}
    recomputed: ClassVar = (ResnetBlock2D, TemporalConvLayer, Attention, TransformerTemporalModel)
    codec: ClassVar = pixels
    find_projections = staticmethod(attention_projections)
    find_blocks = staticmethod(levels)
    motion_layout = "time"
    caption_first = True
    caption_form = staticmethod(stripped_lower_case)
    caption_tokens = 77  # that IF's text encoder was used with, whatever it can take
    encoder_masks_padding = True
    scheduler = SCHEDULER

    def _trained_video(self) -> tuple[int, int, int]:
        # The authors' keyframes are 8 frames of 40 x 64 pixels.
        return 8, 5 * self.config.sample_size // 8, self.config.sample_size

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        refuse_mask(conditioning)
        # Latents are pixels here: (B, 3, F, H, W).
        tokens = self._attended(*x_t.shape[3:])
        with attention_kernels(self.device, self.dtype, max(tokens, x_t.shape[2])):
            output = self.network(
                x_t.to(self.device, self.dtype),
                torch.as_tensor(t, device=self.device).expand(len(x_t)),
                conditioning.embeds.to(self.device, self.dtype),
            )
        # The other half of the channels is the learnt variance.
        return output[:, : x_t.shape[1]].to(x_t.dtype)

    def _attended(self, height: int, width: int) -> int:
        """The most that an attention within a frame hears: the second level's positions, and the caption."""
        return height * width // 4 + self.max_caption_tokens

    def _patch(self) -> int:
        """Every level of the network halves the sides once more."""
        return int(2 ** (len(self.config.block_out_channels) - 1))

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate."""
        config, (_, frames, height, width) = self.config, shape
        # The factors are measured peaks, of the last block on the way up and of one attention.
        held: int = 13 * frames * height * width * config.block_out_channels[0] * self.dtype.itemsize
        tokens = self._attended(height, width)
        if not plain_attention(self.device, self.dtype, max(tokens, frames)):
            return held
        heads: int = config.block_out_channels[1] // config.attention_head_dim
        return held + 14 * frames * heads * (height * width // 4) * tokens
