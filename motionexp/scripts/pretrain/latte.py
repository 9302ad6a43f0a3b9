"""Train the small Latte; ``pretrain.bundle`` will then assemble ``bundled/tiny_latte``.

First come single frames alone, which teach appearance at a sixteenth of the cost. Then come videos and some
single frames. The network predicts v (Salimans and Ho, 2022), well scaled at both ends of the schedule.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from motionexp.data.shapes.scenes import Scene
from motionexp.scripts.pretrain.denoising import EMPTY_SHARE, noised, single_frames
from motionexp.scripts.pretrain.loop import in_bf16, muon_and_adamw, options, train
from motionexp.scripts.pretrain.text_encoder import embedded
from motionexp.scripts.pretrain.vae import frame_latents
from motionexp.scripts.pretrain.videos import FOLDER, Latents, PretrainingVideos

FRAMES = 16
# diffusers' own betas: linear, from 1e-4 to 2e-2.
SCHEDULER = {"prediction_type": "v_prediction", "clip_sample": False}


def build(caption_channels: int) -> LatteTransformer3DModel:
    """Return an untrained network: 4 spatial and 4 temporal blocks of width 192, 16 tokens a frame."""
    return LatteTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        cross_attention_dim=192,
        attention_bias=True,
        sample_size=16,
        patch_size=4,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=caption_channels,
        video_length=FRAMES,
    )


class Denoiser(nn.Module):
    """The v-prediction loss of one batch, with the caption's padding masked out of cross-attention."""

    def __init__(self, network: LatteTransformer3DModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor, lengths: Tensor) -> Tensor:
        # Cross-attention runs on the frames of all videos as one batch: (B, 1, L) to (B * F, 1, L).
        frames = noisy.shape[2]
        # (B, L), then (B F, 1, L): the network folds frames into the batch.
        padding = torch.arange(embeds.shape[1])[None] >= lengths[:, None]
        bias = (padding.to(noisy.dtype) * -10_000.0)[:, None].repeat_interleave(frames, 0)
        output: Tensor = self.network(
            noisy,
            t,
            embeds,
            encoder_attention_mask=bias,
            enable_temporal_attentions=frames > 1,
            return_dict=False,
        )[0]
        return output


def parser_of(description: str | None, name: str) -> argparse.ArgumentParser:
    """The options of a training of this network; `name` is that of its folder."""
    parser = options(description, name, steps=14_000)
    parser.add_argument("--image-steps", type=int, default=4_000, help="steps on single frames alone")
    parser.add_argument("--image-batch", type=int, default=192, help="single frames in a step without videos")
    return parser


def train_latte(
    args: argparse.Namespace,
    model: Denoiser,
    latents: Latents,
    captions: tuple[Tensor, Tensor],
    alphas: Tensor,
    empty_share: float = EMPTY_SHARE,
) -> None:
    """Train the network; it then has the averaged parameters.

    Args:
        args: of `parser_of`.
        model: what is trained.
        latents: of N videos.
        captions: embedded captions of the N videos, of their N single frames, and the empty one; their mask.
        alphas: cumulative, of every timestep.
        empty_share: of captions that are replaced by the empty one.
    """
    embeds, mask = captions
    count = (len(embeds) - 1) // 2

    def loss(step: int) -> Tensor:
        rng, generator = np.random.default_rng([2, step]), torch.Generator().manual_seed(step)
        images = step < args.image_steps or step % 4 != 0
        rows = rng.integers(count, size=args.image_batch if images else args.batch)
        clean = single_frames(latents, rows, FRAMES, rng) if images else latents.batch(rows)
        empty = torch.rand(len(rows), generator=generator) < empty_share
        # The captions of single frames follow those of videos. The stock pipeline crops the padding and the
        # empty caption to the longest caption.
        captioned = rows + count * images
        lengths = mask[captioned].sum(1)
        texts = torch.where(empty[:, None, None], embeds[-1], embeds[captioned])[:, : int(lengths.max())]
        # One t in each of B equal slices of the schedule: the loss varies less between steps. Once videos are
        # trained on, single frames mainly teach surfaces, which are set at low t.
        top = 800 if images and step >= args.image_steps else 1000
        t = ((torch.arange(len(rows)) + torch.rand(len(rows), generator=generator)) * top / len(rows)).long()
        noisy, velocity = noised(clean, t, alphas, generator)
        with sdpa_kernel(SDPBackend.MATH):
            output = in_bf16(model, noisy, t, texts.bfloat16(), lengths)
        return (output.float() - velocity).square().mean()

    # Muon for the blocks' matrices, AdamW for the rest.
    optimisers = muon_and_adamw(model, args.rate, lambda name: "blocks" in name and "table" not in name)
    train(args, model, optimisers, loss, ema=0.9995)


def captions_of(scenes: list[Scene], text: Path) -> tuple[Tensor, Tensor]:
    """Embedded captions as `train_latte` takes them, and their mask, from the text encoder in a folder."""
    captions = [scene.caption for scene in scenes] + [scene.still_caption for scene in scenes]
    return embedded([*captions, ""], text, mask_padding=True)


def main() -> None:
    """Train and save the network."""
    parser = parser_of(__doc__, "latte")
    parser.add_argument(
        "--start", type=Path, help="continue from this pipeline, such as motionexp/bundled/tiny_latte"
    )
    args = parser.parse_args()
    videos = PretrainingVideos(args.videos)
    vae = AutoencoderKL.from_pretrained((args.start or FOLDER) / "vae").to(torch.bfloat16)
    latents = Latents(videos, frame_latents(vae), FOLDER / "latents")
    captions = captions_of(videos.scenes(), args.start or FOLDER / "text_encoder")
    torch.manual_seed(0)
    network = build(captions[0].shape[-1])
    if args.start:
        network = LatteTransformer3DModel.from_pretrained(args.start / "transformer", dtype=torch.float32)
    model = Denoiser(network)
    train_latte(args, model, latents, captions, DDIMScheduler(**SCHEDULER).alphas_cumprod)
    model.network.save_pretrained(args.output / "transformer")


if __name__ == "__main__":
    main()
