"""The real models' networks from their configurations, without weights: for the meta device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LatteTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetMotionModel,
    WanTransformer3DModel,
)
from torch import nn

from motionexp.backbones import animatediff, cogvideox, hunyuan, latte, ltx, mochi, show1, unet3d, wan
from motionexp.backbones.show1_network import ShowOneUNet

Projections = Callable[[nn.Module], dict[str, list[str]]]


@dataclass(frozen=True)
class RealModel:
    """A model of `conf/model/`, without its weights.

    Attributes:
        name: there.
        build: makes the denoising network; called on the meta device.
        projections: names of its motion attention's layers, as `Backbone.projections("motion")`.
        source: where the configuration was looked up.
        verified: whether all of it is in files that the model's owner has on the hub.
        frames: in words.
        tau_is_placeholder: whether `default_tau` there waits for this model's own probe.
    """

    name: str
    build: Callable[[], nn.Module]
    projections: Projections
    source: str
    verified: bool
    frames: str
    tau_is_placeholder: bool = False


def _wan_experts() -> nn.Module:
    return wan.WanExperts(WanTransformer3DModel(), WanTransformer3DModel(), boundary=875)


def _projections_of_experts(network: nn.Module) -> dict[str, list[str]]:
    own = wan.attention_projections(network.get_submodule("transformer"), "motion")
    both = ("transformer", "transformer_2")
    return {letter: [f"{one}.{name}" for one in both for name in names] for letter, names in own.items()}


def _animatediff() -> nn.Module:
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNetMotionModel.from_unet2d(unet, MotionAdapter(use_motion_mid_block=False), load_weights=False)


SHOW_1: Mapping[str, object] = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
    "block_out_channels": (320, 640, 960, 1280),
    "layers_per_block": 3,
    "act_fn": "gelu",
    "cross_attention_dim": 1280,
    "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj",
    "attention_head_dim": 64,
    "addition_embed_type": "text",
    "resnet_time_scale_shift": "scale_shift",
    "cross_attention_norm": "group_norm",
}
LATTE_1: Mapping[str, object] = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 64,
}
COGVIDEOX: Mapping[str, object] = {
    "attention_head_dim": 64,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "max_text_seq_length": 226,
    "sample_height": 60,
    "sample_width": 90,
    "sample_frames": 49,
    "patch_size": 2,
}
COGVIDEOX_2B = {**COGVIDEOX, "num_attention_heads": 30, "num_layers": 30}
COGVIDEOX_5B = {
    **COGVIDEOX,
    "num_attention_heads": 48,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}
WAN_1_3B = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
DEFAULTS = "diffusers' defaults for the class, which its conversion script takes"
UNET3D = {"sample_size": 32, "cross_attention_dim": 1024, "attention_head_dim": 64}

MODELS = (
    RealModel(
        "modelscope",
        partial(UNet3DConditionModel, **UNET3D),
        partial(unet3d.attention_projections, kind="motion"),
        "hub, ali-vilab/text-to-video-ms-1.7b-legacy, unet/config.json (the same weights)",
        True,
        "16 (8 to 32)",
    ),
    RealModel(
        "zeroscope",
        partial(UNet3DConditionModel, **UNET3D),
        partial(unet3d.attention_projections, kind="motion"),
        "ModelScope's, and a copy of Zeroscope v2 XL (vdo/zeroscope_v2_XL); 576w's own file was not seen",
        False,
        "16 (16 to 24)",
    ),
    RealModel(
        "show1",
        partial(ShowOneUNet, **SHOW_1),
        partial(show1.attention_projections, kind="motion"),
        "hub, showlab/show-1-base, unet/config.json; the weights have that size (6.91 GB in fp32)",
        True,
        "8 (4 to 32)",
    ),
    RealModel(
        "latte",
        partial(LatteTransformer3DModel, **LATTE_1),
        partial(latte.attention_projections, kind="motion"),
        "hub, maxin-cn/Latte-1, transformer/config.json",
        True,
        "16",
    ),
    RealModel(
        "cogvideox_2b",
        partial(CogVideoXTransformer3DModel, **COGVIDEOX_2B),
        cogvideox.attention_projections,
        "THUDM/CogVideoX-2b's transformer/config.json as quoted elsewhere; diffusers' conversion script",
        False,
        "17 (9, 17, ... 49)",
    ),
    RealModel(
        "cogvideox_5b",
        partial(CogVideoXTransformer3DModel, **COGVIDEOX_5B),
        cogvideox.attention_projections,
        "a copy of THUDM/CogVideoX-5b's (thu-ml/CogVideoX-RIFLEx-diffusers); diffusers' conversion script",
        False,
        "17 (9, 17, ... 49)",
    ),
    RealModel(
        "animatediff",
        _animatediff,
        partial(unet3d.attention_projections, kind="motion", of=animatediff.ATTENTIONS),
        "copies of Stable Diffusion 1.5's unet/; hub, guoyww/animatediff-motion-adapter-v1-5-3, config.json",
        False,
        "16 (8 to 32)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "wan_1_3b",
        partial(WanTransformer3DModel, **WAN_1_3B),
        partial(wan.attention_projections, kind="motion"),
        "diffusers' conversion script",
        False,
        "81 (17, 21, ... 81)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "wan_14b",
        WanTransformer3DModel,
        partial(wan.attention_projections, kind="motion"),
        DEFAULTS,
        False,
        "81 (17, 21, ... 81)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "wan2_2_14b",
        _wan_experts,
        _projections_of_experts,
        f"{DEFAULTS}, twice",
        False,
        "81 (17, 21, ... 81)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "ltx",
        LTXVideoTransformer3DModel,
        partial(ltx.attention_projections, kind="motion"),
        DEFAULTS,
        False,
        "49 (9, 17, ... 161)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "hunyuan",
        HunyuanVideoTransformer3DModel,
        hunyuan.attention_projections,
        DEFAULTS,
        False,
        "61 (5, 9, ... 129)",
        tau_is_placeholder=True,
    ),
    RealModel(
        "mochi",
        MochiTransformer3DModel,
        mochi.attention_projections,
        DEFAULTS,
        False,
        "19 (7, 13, ... 163)",
        tau_is_placeholder=True,
    ),
)
