"""A Latte of a few thousand random weights, built from the real classes and saved as a hub would hold it."""

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LattePipeline, LatteTransformer3DModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from motionexp.backbones.latte import LatteBackbone

FRAMES = 4
SIZE = 16  # pixels
CHANNELS = 4


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
        transformer=_network(CHANNELS * (2 if learned_sigma else 1)).eval(),
        scheduler=DDIMScheduler.from_config(config),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, **settings: object) -> Path:
    """Save `tiny_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    tiny_pipeline(**settings).save_pretrained(folder)  # type: ignore[arg-type]
    return folder


def tiny_backbone(folder: Path, **settings: object) -> LatteBackbone:
    """The backbone that the package loads from `save_tiny_pipeline(folder, **settings)`."""
    return LatteBackbone.from_pretrained(save_tiny_pipeline(folder, **settings), name="tiny")


def _network(out_channels: int) -> LatteTransformer3DModel:
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
    # As initialised, the caption hardly changes the output and a test of conditioning could not fail.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "attn" in name or "caption" in name:
                weight.mul_(2)
    return network


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
