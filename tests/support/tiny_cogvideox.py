"""A CogVideoX of a few thousand random weights: its real classes, saved as a hub would hold it."""

from pathlib import Path

from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from torch import nn

from motionexp.backbones.cogvideox import CogVideoXBackbone
from tests.support.tiny_models import louder, saved, tiny_pipeline

FRAMES = 9
HEIGHT, WIDTH = 16, 24  # pixels
CHANNELS = 4
TEXT_TOKENS = 12


def tiny_cogvideox_pipeline(*, rotary: bool = False, seed: int = 0) -> CogVideoXPipeline:
    """A random pipeline: 9 frames of 16 x 24 pixels, 4 x 3 x 4 x 6 latents, two blocks, 12 text tokens.

    The text knows lower-case letters and digits. The schedule is that of CogVideoX-2b's hub; with rotary
    positions it is CogVideoX-5b's, which does not shift the SNR.
    """
    latte = tiny_pipeline(seed=seed)
    pipeline = CogVideoXPipeline(
        tokenizer=latte.tokenizer,
        text_encoder=latte.text_encoder,
        vae=vae().eval(),
        transformer=network(rotary),
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0 if rotary else 3.0,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_cogvideox(folder: Path, **settings: object) -> Path:
    """Save `tiny_cogvideox_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    return saved(tiny_cogvideox_pipeline(**settings), folder)  # type: ignore[arg-type]


def tiny_cogvideox(folder: Path, **settings: object) -> CogVideoXBackbone:
    """The backbone that the package loads from `save_tiny_cogvideox(folder, **settings)`."""
    return CogVideoXBackbone.from_pretrained(save_tiny_cogvideox(folder, **settings), name="tiny")


def network(rotary: bool, *, in_channels: int = CHANNELS, **settings: bool) -> nn.Module:
    """A random network; `settings` are further ones of its class."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=in_channels,
        out_channels=CHANNELS,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=2,
        sample_width=WIDTH // 4,
        sample_height=HEIGHT // 4,
        sample_frames=FRAMES,
        patch_size=2,
        max_text_seq_length=TEXT_TOKENS,
        use_rotary_positional_embeddings=rotary,
        **settings,
    )
    louder(transformer, 3, "norm1.linear", "norm2.linear", "norm_out.linear")
    return louder(transformer, 2, "attn", "text_proj")


def vae(**settings: bool) -> AutoencoderKLCogVideoX:
    """A random VAE; `settings` are further ones of its class."""
    return AutoencoderKLCogVideoX(
        down_block_types=["CogVideoXDownBlock3D"] * 3,
        up_block_types=["CogVideoXUpBlock3D"] * 3,
        block_out_channels=[8, 8, 8],
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=HEIGHT,
        sample_width=WIDTH,
        scaling_factor=0.7,
        **settings,
    )
