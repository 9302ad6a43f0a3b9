"""A Show-1 of a few thousand random weights, saved as its hub holds it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from motionexp.backbones.show1_network import ShowOneUNet
from tests.support.tiny_models import scattered, tiny_pipeline

# The configuration of the hub's network, showlab/show-1-base, unet/config.json.
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
WIDTH = 32  # of all levels, and of the text in the attention: its norms have 32 groups
# Of the hub's scheduler, what is not DDIM's default, and what is replaced in reading it.
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "thresholding": True,
    "timestep_spacing": "linspace",
    "variance_type": "learned_range",
}
INDEX = {
    "_class_name": "TextToVideoIFPipeline",
    "text_encoder": ["transformers", "T5EncoderModel"],
    "unet": ["showone.models.unet_3d_condition", "UNet3DConditionModel"],
}


def tiny_network(seed: int = 0) -> ShowOneUNet:
    """Two levels, the lower one with attention; what is zero at first along time is not."""
    torch.manual_seed(seed)
    tiny = {
        "sample_size": 16,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "block_out_channels": (WIDTH, WIDTH),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "encoder_hid_dim": 16,
        "attention_head_dim": 8,
        "addition_embed_type_num_heads": 2,
    }
    network = ShowOneUNet(**{**SHOW_1, **tiny})
    scattered(network, 0.05, "conv4")
    return network


def save_tiny_show1(folder: Path) -> Path:
    """Save it into a folder, in the layout of the hub; return the folder."""
    tiny_network().save_pretrained(folder / "unet")
    config = folder / "unet" / "config.json"
    settings = json.loads(config.read_text().replace("2D", "3D"))
    named = {"_class_name": "UNet3DConditionModel", "transfromer_in_opt": False}
    config.write_text(json.dumps(settings | named))
    latte = tiny_pipeline()
    latte.text_encoder.save_pretrained(folder / "text_encoder")
    latte.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder
