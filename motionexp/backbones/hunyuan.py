"""HunyuanVideo (Kong et al. 2024, arXiv 2412.03603) in diffusers' layout: flow matching, one 3D attention.

The text is laid out as `diffusers.HunyuanVideoPipeline` does it: Llama reads the caption in a template, whose
columns are cut off again, and the third last of its hidden states goes to the network, with a mask. So does
CLIP's pooled vector. The network is distilled: it takes the strength of guidance as an input, and needs no
unconditional branch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, LlamaModel

from motionexp.backbones import original_names, video_vae
from motionexp.backbones.blocks import numbered
from motionexp.backbones.checkpoint import Unsupported
from motionexp.backbones.flow import block_bytes, projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels
from motionexp.backbones.text import Tokenizer, load_tokenizer
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule

# The length of the captions that CLIP was trained with.
CLIP_TOKENS = 77
# The pipeline skips the last two layers of Llama (`num_hidden_layers_to_skip=2`).
HIDDEN_STATE = -3


def attention_projections(
    network: HunyuanVideoTransformer3DModel, kind: ProjectionKind = "motion"
) -> dict[str, list[str]]:
    """See `Backbone.projections`; for HunyuanVideo 60 names of q, k and v, 20 of o. It may be on `meta`.

    In blocks of two streams those of the video's tokens alone: the caption's have projections of their own.
    Blocks of one stream have no `o` by itself: it is one layer with the block's feed-forward output.
    """
    two = [f"transformer_blocks.{i}.attn" for i in range(network.config.num_layers)]
    one = [f"single_transformer_blocks.{i}.attn" for i in range(network.config.num_single_layers)]
    # In one stream, o is part of a larger layer and cannot be tuned by itself.
    return projections_of(two + one) | {"o": projections_of(two)["o"]}


class HunyuanText(nn.Module):
    """Both text encoders, and CLIP's tokenizer."""

    def __init__(self, llama: LlamaModel, clip: CLIPTextModel, clip_tokenizer: Tokenizer) -> None:
        super().__init__()
        self.llama, self.clip, self.clip_tokenizer = llama, clip, clip_tokenizer


class HunyuanBackbone(PipelineBackbone):
    """HunyuanVideo: `motion` attention is the one full 3D attention of every block.

    Its VAE puts a first frame alone and then every four frames into one latent frame. `guidance_scale` in our
    settings is that of an unconditional branch, the stock pipeline's `true_cfg_scale`: 1 is what the model is
    made for. The guidance that the network takes as an input is always 6, the stock pipeline's default. CLIP
    reads the first 77 tokens of a caption.
    """

    any_size = True
    flow_matching = True
    attentions = ("motion",)
    pipeline = "HunyuanVideoPipeline"
    classes: ClassVar = {
        "transformer": HunyuanVideoTransformer3DModel,
        "vae": AutoencoderKLHunyuanVideo,
        "text_encoder": LlamaModel,
        "text_encoder_2": CLIPTextModel,
    }
    parts = (*classes, "tokenizer", "tokenizer_2", "scheduler")
    unsupported: ClassVar = (
        Unsupported(
            "transformer/config.json",
            "image_condition_type",
            (None,),
            "it is a model of images to video; take one of text to video",
        ),
        Unsupported("transformer/config.json", "patch_size_t", (None, 1), "it must be 1"),
    )
    codec: ClassVar = video_vae
    find_projections = staticmethod(attention_projections)
    find_originals = staticmethod(original_names.hunyuan)
    caption_tokens = 256
    embedded_guidance = 6.0  # `HunyuanVideoPipeline.__call__`'s own `guidance_scale`
    spacing = "even"
    schedule: FlowSchedule
    template: ClassVar[dict[str, Any]] = DEFAULT_PROMPT_TEMPLATE

    @staticmethod
    def find_blocks(network: HunyuanVideoTransformer3DModel) -> list[tuple[str, ...]]:
        """The blocks of two streams, then those of one."""
        return numbered(network, "transformer_blocks", "single_transformer_blocks")

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`."""
        return ("rope",)

    def _trained_video(self) -> tuple[int, int, int]:
        return 129, 720, 1280

    @classmethod
    def _assemble_text(cls, folder: Path, parts: Mapping[str, Any]) -> HunyuanText:
        clip_tokenizer = load_tokenizer(folder, "tokenizer_2")
        return HunyuanText(parts["text_encoder"], parts["text_encoder_2"], clip_tokenizer)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`."""
        self._ready_to_embed(captions)
        text: HunyuanText = self.text_encoder
        # 1. Llama reads the template and the caption; the template's columns are cut off below.
        start: int = self.template["crop_start"]
        tokens = self.tokenizer(
            [self.template["template"].format(caption) for caption in captions],
            max_length=self.max_caption_tokens + start,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        hidden = text.llama(
            input_ids=tokens.input_ids.to(self.device),
            attention_mask=tokens.attention_mask.to(self.device),
            output_hidden_states=True,
        ).hidden_states[HIDDEN_STATE]
        # 2. CLIP gives one vector (B, P) for the whole caption.
        clip = text.clip_tokenizer(
            list(captions), padding="max_length", max_length=CLIP_TOKENS, truncation=True, return_tensors="pt"
        )
        pooled = text.clip(clip.input_ids.to(self.device)).pooler_output
        return Conditioning(hidden[:, start:], tokens.attention_mask[:, start:].bool(), pooled)

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        if conditioning.pooled is None:
            raise ValueError("this network needs a pooled vector beside each caption's columns")
        # (B,). The distilled network takes the guidance scale as an input, in thousandths.
        guidance = torch.full(
            (len(x_t),), 1000 * self.embedded_guidance, dtype=self.dtype, device=self.device
        )
        # Video and caption are one sequence in the attention.
        tokens = self.video_tokens(x_t.shape[1:]) + conditioning.embeds.shape[1]
        with attention_kernels(self.device, self.dtype, tokens):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                timestep=self.schedule.label(t).to(self.device).expand(len(x_t)),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                encoder_attention_mask=conditioning.attended().to(self.device, self.dtype),
                pooled_projections=conditioning.pooled.to(self.device, self.dtype),
                guidance=guidance if self.config.guidance_embeds else None,
                return_dict=False,
            )[0]
        return output.to(x_t.dtype)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`; the refiner of captions writes its mask out, column by column."""
        held = block_bytes(self, shape, video=(8, 9), caption=(8, 9), joint=True)
        return held + 10 * self.max_caption_tokens**2
