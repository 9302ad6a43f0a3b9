"""Image-to-video models of a few thousand random weights, and what diffusers' pipelines make of an image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from motionexp.backbones import load_backbone
from motionexp.backbones.cogvideox_image import CogVideoXImageBackbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.wan_image import WanImageBackbone, WanImageExpertsBackbone
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.sampling import SamplerSettings
from tests.support import tiny_cogvideox, tiny_flow
from tests.support.tiny_families import NEGATIVE, Latents
from tests.support.tiny_models import louder, saved, tiny_pipeline

CAPTION = "a cat 7"


@dataclass(frozen=True)
class ImageModel:
    """A tiny model: how it is made, its class, and what it takes.

    Attributes:
        video: frames, height, width. latents: of such a video.
        arguments: of the pipeline's call, beside those of `stock`.
    """

    save: Callable[[Path], Path]
    kind: type[PipelineBackbone]
    pipeline: type[DiffusionPipeline]
    video: tuple[int, int, int]
    latents: Latents
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> Tensor:
        """(H, W, 3) uint8: a square on another colour, of the video's size."""
        image = torch.full((*self.video[1:], 3), 40, dtype=torch.uint8)
        image[2:9, 4:15] = torch.tensor([250, 200, 30], dtype=torch.uint8)
        return image

    def load(self, folder: Path) -> Backbone:
        """The backbone, of the video's size."""
        backbone = load_backbone(folder, device="cpu", precision="fp32", fps=24)
        backbone.frames, backbone.height, backbone.width = self.video
        return backbone

    def captions(self, backbone: Backbone, image: Tensor | None = None) -> tuple[Conditioning, Conditioning]:
        """The caption with the image, and the negative caption."""
        condition = backbone.encode_image(self.image if image is None else image)
        return backbone.embed([CAPTION]).with_image(condition), backbone.embed([NEGATIVE])

    def stock(
        self,
        folder: Path,
        start: Tensor,
        settings: SamplerSettings,
        run: Callable[[Any, dict[str, Any]], Any] | None = None,
        image: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """What the pipeline, which `run` may call, makes of the noise `start`: latents (1, C, F, h, w)."""
        pipeline = self.pipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        if isinstance(pipeline.scheduler, UniPCMultistepScheduler):
            pipeline.scheduler = tiny_flow.first_order(settings.steps)
        is_cog = self.pipeline is CogVideoXImageToVideoPipeline
        frames, height, width = self.video
        arguments = dict(
            image=Image.fromarray((self.image if image is None else image).numpy()),
            prompt=CAPTION,
            negative_prompt=NEGATIVE,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            latents=start.transpose(1, 2).clone() if is_cog else start.clone(),
            output_type="latent",
            **self.arguments,
            **more,
        )
        sampled = (run(pipeline, arguments) if run else pipeline(**arguments)).frames
        return sampled.transpose(1, 2) if is_cog else sampled


def tiny_wan_image_pipeline(
    *, experts: bool = False, projected: bool = False, seed: int = 0
) -> WanImageToVideoPipeline:
    """Wan 2.1's form with an image encoder of 5 columns, or Wan 2.2's with two experts and without one.

    With `projected` the image encoder is of the class that the hub's index names for some revisions.
    """
    torch.manual_seed(seed)
    names = ("transformer", "transformer_2") if experts else ("transformer",)
    # 4 channels of noisy latents, 4 of the mask and 4 of the image's latents.
    channels, image_dim = 3 * tiny_flow.WAN_CHANNELS, None if experts else 16
    networks = {name: tiny_flow.wan_network(in_channels=channels, image_dim=image_dim) for name in names}
    return WanImageToVideoPipeline(
        tokenizer=tiny_pipeline(seed=seed).tokenizer,
        text_encoder=tiny_flow.umt5().eval(),
        vae=tiny_flow.wan_vae().eval(),
        scheduler=tiny_flow.unipc(),
        image_processor=None if experts else _processor(),
        image_encoder=None if experts else _image_encoder(projected),
        boundary_ratio=tiny_flow.WAN_BOUNDARY if experts else None,
        **networks,
    )


def _image_encoder(projected: bool) -> nn.Module:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=4,
    )
    encoder = (CLIPVisionModelWithProjection if projected else CLIPVisionModel)(config)
    return louder(encoder, 5, "patch_embedding").eval()


def _processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


def tiny_cogvideox_image_pipeline(*, inverted: bool = True, seed: int = 0) -> CogVideoXImageToVideoPipeline:
    """CogVideoX 5B I2V's form; `inverted`: its VAE says `invert_scale_latents`."""
    latte = tiny_pipeline(seed=seed)
    vae = tiny_cogvideox.vae(invert_scale_latents=inverted).eval()
    with torch.no_grad():
        # The pipeline draws from the posterior, which real VAEs make as narrow.
        vae.encoder.conv_out.conv.bias[tiny_cogvideox.CHANNELS :] = -30
    return CogVideoXImageToVideoPipeline(
        tokenizer=latte.tokenizer,
        text_encoder=latte.text_encoder,
        vae=vae,
        transformer=tiny_cogvideox.network(
            True, in_channels=2 * tiny_cogvideox.CHANNELS, use_learned_positional_embeddings=True
        ),
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
    )


def save_tiny_wan_image(folder: Path, **settings: bool) -> Path:
    """Save `tiny_wan_image_pipeline(**settings)` into a folder, in the layout of a hub; return the folder."""
    return saved(tiny_wan_image_pipeline(**settings), folder)


def save_tiny_cogvideox_image(folder: Path, **settings: bool) -> Path:
    """Save `tiny_cogvideox_image_pipeline(**settings)` likewise."""
    return saved(tiny_cogvideox_image_pipeline(**settings), folder)


WAN_IMAGE = ImageModel(
    save_tiny_wan_image, WanImageBackbone, WanImageToVideoPipeline, (5, 16, 32), (4, 2, 2, 4)
)
IMAGE_MODELS = {
    "wan": WAN_IMAGE,
    "wan-experts": ImageModel(
        partial(save_tiny_wan_image, experts=True),
        WanImageExpertsBackbone,
        WanImageToVideoPipeline,
        (5, 16, 32),
        (4, 2, 2, 4),
    ),
    "cogvideox": ImageModel(
        save_tiny_cogvideox_image,
        CogVideoXImageBackbone,
        CogVideoXImageToVideoPipeline,
        (9, 16, 24),
        (4, 3, 4, 6),
        arguments={"max_sequence_length": tiny_cogvideox.TEXT_TOKENS},
    ),
}
