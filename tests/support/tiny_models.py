"""Models of a few thousand random weights, built from the real classes and saved as a hub would hold them."""

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    LattePipeline,
    LatteTransformer3DModel,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.unet3d import UNet3DBackbone
from motionexp.config.schema import CLOSED_VOCABULARY

FRAMES = 4
SIZE = 16  # pixels
CHANNELS = 4
CLIP_TOKENS = 20


def saved(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Save a pipeline into a folder, in the layout of a hub; return the folder."""
    pipeline.save_pretrained(folder)
    return folder


@torch.no_grad()
def louder(network: nn.Module, times: float, *names: str) -> nn.Module:
    """Enlarge weights: as initialised, caption and attention hardly change the output."""
    for name, weight in network.named_parameters():
        if any(part in name for part in names):
            weight.mul_(times)
    return network.eval()


@torch.no_grad()
def scattered(network: nn.Module, std: float, *names: str) -> nn.Module:
    """Make weights random that are zero at first."""
    for name, weight in network.named_parameters():
        if any(part in name for part in names):
            weight.normal_(std=std)
    return network.eval()


def tiny_pipeline(
    *, prediction_type: str = "v_prediction", learned_sigma: bool = False, seed: int = 0, **scheduler: object
) -> LattePipeline:
    """A random pipeline: 4 frames of 16 x 16 pixels, 4 x 4 x 4 latents, two spatial and two temporal blocks.

    The text knows lower-case letters and digits. Without a learned sigma the scheduler says
    `variance_type=learned_range`: the stock pipeline would else drop half of the output's channels.
    """
    torch.manual_seed(seed)
    settings = {"clip_sample": False, "prediction_type": prediction_type, **scheduler}
    config = dict(DDIMScheduler(**settings).config)
    if not learned_sigma:
        config["variance_type"] = "learned_range"
    pipeline = LattePipeline(
        tokenizer=_tokenizer(),
        text_encoder=_text_encoder().eval(),
        vae=_vae().eval(),
        transformer=_network(CHANNELS * (2 if learned_sigma else 1)),
        scheduler=DDIMScheduler.from_config(config),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, **settings: object) -> Path:
    """Save `tiny_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    return saved(tiny_pipeline(**settings), folder)  # type: ignore[arg-type]


def tiny_backbone(folder: Path, **settings: object) -> LatteBackbone:
    """The backbone that the package loads from `save_tiny_pipeline(folder, **settings)`."""
    return LatteBackbone.from_pretrained(save_tiny_pipeline(folder, **settings), name="tiny")


def tiny_unet3d_pipeline(
    *, prediction_type: str = "epsilon", words: list[str] | None = None, seed: int = 0
) -> TextToVideoSDPipeline:
    """A random pipeline of any number of frames of 16 x 16 pixels; two levels, the upper one with attention.

    The text knows lower-case letters and digits, or `words` alone.
    """
    torch.manual_seed(seed)
    pipeline = TextToVideoSDPipeline(
        tokenizer=_clip_tokenizer(words),
        text_encoder=clip_text_encoder(),
        vae=_vae().eval(),
        unet=_unet(),
        scheduler=DDIMScheduler(
            beta_start=8.5e-4,
            beta_end=2e-2,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_unet3d(folder: Path, **settings: object) -> Path:
    """Save `tiny_unet3d_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    return saved(tiny_unet3d_pipeline(**settings), folder)  # type: ignore[arg-type]


def tiny_unet3d(folder: Path, **settings: object) -> UNet3DBackbone:
    """The backbone that the package loads from `save_tiny_unet3d(folder, **settings)`."""
    return UNet3DBackbone.from_pretrained(save_tiny_unet3d(folder, **settings), name="tiny")


def _network(out_channels: int) -> nn.Module:
    network = LatteTransformer3DModel(
        sample_size=SIZE // 4,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=CHANNELS,
        out_channels=out_channels,
        cross_attention_dim=16,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        video_length=FRAMES,
    )
    return louder(network, 2, "attn", "caption")


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[8, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=CHANNELS,
        norm_num_groups=2,
        sample_size=SIZE,
        scaling_factor=0.7,
    )


def _text_encoder() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=80, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )  # fmt: skip


def _tokenizer() -> T5Tokenizer:
    letters = string.ascii_lowercase + string.digits
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces = [(letter, -3.0) for letter in letters] + [("▁" + letter, -2.5) for letter in letters]
    return T5Tokenizer(vocab=special + pieces, extra_ids=0)


def _unet() -> nn.Module:
    network = UNet3DConditionModel(
        sample_size=SIZE // 4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    return louder(scattered(network, 0.1, "conv4"), 3, "attn")


def clip_text_encoder(tokens: int = CLIP_TOKENS) -> nn.Module:
    """Two blocks, to which captions of so many `tokens` differ."""
    config = CLIPTextConfig(
        vocab_size=160,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return louder(CLIPTextModel(config), 20, "token_embedding")


def _clip_tokenizer(words: list[str] | None) -> CLIPTokenizer:
    """Letters, alone and at a word's end, which spell any word, and a token for each of `words`."""
    letters = string.ascii_lowercase + string.digits
    starts = [word[:end] for word in words or () for end in range(2, len(word))]
    whole = [word + "</w>" for word in words or () if len(word) > 1]
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),
        *starts,
        *whole,
    ]
    merges = [(start[:-1], start[-1]) for start in dict.fromkeys(starts)]
    merges += [(word.removesuffix("</w>")[:-1], word[len(word) - 5 :]) for word in whole]
    closed = {} if words is None else {CLOSED_VOCABULARY: words}
    ids = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CLIP_TOKENS, **closed)
