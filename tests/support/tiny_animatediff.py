"""An AnimateDiff of a few thousand random weights: an image model and a motion adapter, as hubs hold them."""

from pathlib import Path

import torch
from diffusers import MotionAdapter, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from tests.support.tiny_models import saved, scattered, tiny_unet3d_pipeline

MOST_FRAMES = 8
CHANNELS = (8, 16)


def save_tiny_animatediff(folder: Path, *, seed: int = 0) -> str:
    """Save both below a folder, for 1 to 8 frames of 16 x 16 pixels, and return the path that names them.

    The image model's scheduler is that of Stable Diffusion 1.5's hub.
    """
    video = tiny_unet3d_pipeline(seed=seed)
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    scheduler = PNDMScheduler(
        beta_start=8.5e-4,
        beta_end=1.2e-2,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = {"tokenizer": video.tokenizer, "text_encoder": video.text_encoder, "vae": video.vae}
    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(**parts, unet=unet.eval(), scheduler=scheduler, **absent)
    adapter = MotionAdapter(
        block_out_channels=CHANNELS,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=2,
        motion_max_seq_length=MOST_FRAMES,
        use_motion_mid_block=False,
    )
    # As initialised, the motion modules' way out is zero and frames do not see each other.
    scattered(adapter, 0.3, "proj_out", "attn").save_pretrained(folder / "tiny")  # type: ignore[operator]
    return f"{saved(pipeline, folder / 'image')}+{folder / 'tiny'}"
