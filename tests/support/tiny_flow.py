"""Flow-matching models of a few thousand random weights: their real classes, saved as on a hub."""

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SchedulerMixin,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.support.tiny_models import clip_text_encoder, louder, saved, tiny_pipeline, tiny_unet3d_pipeline

WAN_CHANNELS = 4
WAN_BOUNDARY = 0.875


def tiny_wan_pipeline(*, experts: bool = False, euler: bool = False, seed: int = 0) -> WanPipeline:
    """A random pipeline: 4 k + 1 frames in multiples of 16 pixels, two blocks, two experts if asked for.

    The scheduler is UniPC, as in the hub's folders, or Euler's, as they had it at first.
    """
    torch.manual_seed(seed)
    networks = {"transformer": wan_network()}
    if experts:
        networks["transformer_2"] = wan_network()
    pipeline = WanPipeline(
        tokenizer=tiny_pipeline(seed=seed).tokenizer,
        text_encoder=umt5().eval(),
        vae=wan_vae().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else unipc(),
        boundary_ratio=WAN_BOUNDARY if experts else None,
        **networks,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_wan(folder: Path, **settings: bool) -> Path:
    """Save `tiny_wan_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    return saved(tiny_wan_pipeline(**settings), folder)


def unipc(**settings: object) -> SchedulerMixin:
    """The scheduler of Wan's folders on the hub."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, **settings
    )


def first_order(steps: int) -> SchedulerMixin:
    """The same, without what makes it of second order: its steps are then Euler's."""
    return unipc(solver_order=1, disable_corrector=list(range(steps)))


def wan_network(*, in_channels: int = WAN_CHANNELS, image_dim: int | None = None) -> nn.Module:
    """A random network, with attention to images whose features have `image_dim` channels."""
    network = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=WAN_CHANNELS,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        image_dim=image_dim,
        added_kv_proj_dim=None if image_dim is None else 2 * 12,
    )
    return louder(network, 2, "attn", "text_embedder")


def wan_vae() -> AutoencoderKLWan:
    """A random VAE, whose latents have the statistics below."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=WAN_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 0.8, 1.2, 2.0],
    )


def umt5() -> UMT5EncoderModel:
    """A random text encoder."""
    config = UMT5Config(vocab_size=80, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return UMT5EncoderModel(config)


def save_tiny_ltx(folder: Path) -> Path:
    """Save an LTX-Video of 8 channels: 4 k + 1 frames in multiples of 4 pixels; two blocks."""
    torch.manual_seed(0)
    network = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=16,
    )
    louder(network, 2, "attn", "caption")
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
        patch_size_t=1,
    )
    vae.latents_mean += torch.linspace(-0.2, 0.2, 8)
    vae.latents_std *= torch.linspace(0.5, 1.5, 8)
    latte = tiny_pipeline()
    # The scheduler of Lightricks/LTX-Video on the hub, with fewer tokens.
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        shift_terminal=0.1,
        base_image_seq_len=4,
        max_image_seq_len=64,
        base_shift=0.95,
        max_shift=2.05,
    )
    pipeline = LTXPipeline(scheduler, vae.eval(), latte.text_encoder, latte.tokenizer, network.eval())
    return saved(pipeline, folder)


def save_tiny_mochi(folder: Path) -> Path:
    """Save a Mochi: 6 k + 1 frames in multiples of 16 pixels; two blocks."""
    torch.manual_seed(0)
    network = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=16,
        time_embed_dim=8,
    )
    louder(network, 2, "attn")
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    latte = tiny_pipeline()
    # The scheduler of genmo/mochi-1-preview on the hub.
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipeline = MochiPipeline(scheduler, vae.eval(), latte.text_encoder, latte.tokenizer, network.eval())
    return saved(pipeline, folder)


def save_tiny_hunyuan(folder: Path) -> Path:
    """Save a HunyuanVideo: 4 k + 1 frames in multiples of 16 pixels; one block of each kind."""
    torch.manual_seed(0)
    network = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=16,
        rope_axes_dim=(2, 4, 4),
    )
    louder(network, 2, "attn")
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    pipeline = HunyuanVideoPipeline(
        text_encoder=_llama().eval(),
        tokenizer=_llama_tokenizer(),
        transformer=network.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip_text_encoder(tokens=77),
        tokenizer_2=tiny_unet3d_pipeline().tokenizer,
    )
    return saved(pipeline, folder)


def _llama() -> LlamaModel:
    return LlamaModel(
        LlamaConfig(
            vocab_size=80,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            pad_token_id=3,
        )
    )


def _llama_tokenizer() -> LlamaTokenizer:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁", *string.ascii_letters, *string.digits]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return LlamaTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>", padding_side="right")
