"""Train the small VAE: ``python -m motionexp.scripts.pretrain.vae``. Saved as diffusers' ``AutoencoderKL``.

The world's energies are chosen in pixels, and a VAE left to itself whitens them: faint ground patterns come
out as loud as objects. So each patch of its latents is asked to keep the pixels' distances between frames.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX
from torch import Tensor, nn

from motionexp.data.videos import psnr
from motionexp.scripts.pretrain.loop import LearningRateSchedule, in_bf16, train
from motionexp.scripts.pretrain.videos import FOLDER, PretrainingVideos

KL_WEIGHT = 1e-5
ISOMETRY_WEIGHT = 2e-3
PATCH = 16


def build() -> AutoencoderKL:
    """Return an untrained VAE: 64 x 64 frames to 16 x 16 x 4 latents."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def pixels(frames: np.ndarray) -> Tensor:
    """Turn uint8 (N, H, W, 3) into float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def patch_energy(difference: Tensor, patch: int) -> Tensor:
    """Return the sum of squares in every ``patch`` x ``patch`` square of (N, C, H, W)."""
    return (
        nn.functional.avg_pool2d(difference.square().sum(1, keepdim=True), patch, stride=patch // 2)
        * patch**2
    )


def isometry(first: Tensor, second: Tensor, floor: float = 0.3) -> Tensor:
    """Return how far distances in latents are from distances in pixels: mean squared log ratio over patches.

    Args:
        first: pixels (N, 3, H, W); each is compared with its neighbour in the batch.
        second: latents (N, C, H/4, W/4).
        floor: energy, in squared units of [-1, 1], below which a difference is not looked at closely.
    """
    pixel = patch_energy(first - first.roll(1, 0), PATCH)
    latent = patch_energy(second - second.roll(1, 0), PATCH * second.shape[-1] // first.shape[-1])
    return ((latent + floor).log() - (pixel + floor).log()).square().mean()


class Autoencoder(nn.Module):
    """Encode, sample, decode; returns the output, the mean, and the KL divergence per latent number."""

    def __init__(self, vae: AutoencoderKL | AutoencoderKLCogVideoX) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, values: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.vae.encode(values).latent_dist
        output: Tensor = self.vae.decode(posterior.sample(generator=generator)).sample
        return output, posterior.mean, posterior.kl().float().mean() / posterior.mean[0].numel()


def grey_levels(values: Tensor) -> np.ndarray:
    """Turn float (N, 3, H, W), clamped to [-1, 1], into grey levels (N, H, W, 3), not rounded."""
    return (127.5 * (values.clamp(-1, 1) + 1)).permute(0, 2, 3, 1).numpy()


def reconstruction_psnr(vae: AutoencoderKL, frames: np.ndarray) -> float:
    """Return the reconstruction's mean PSNR in dB over uint8 frames (N, H, W, 3), by the posterior's mode."""
    with torch.no_grad():
        output = vae.decode(vae.encode(pixels(frames)).latent_dist.mode()).sample
    return float(psnr(grey_levels(output), frames).mean())


def frame_latents(vae: AutoencoderKL) -> Callable[[np.ndarray], Tensor]:
    """Return what encodes a video (F, H, W, 3) uint8 frame by frame: scaled latents (C, F, H/4, W/4)."""

    def encode(video: np.ndarray) -> Tensor:
        mode = vae.encode(pixels(video).to(vae.dtype)).latent_dist.mode().float()
        scaled: Tensor = mode * vae.config.scaling_factor
        return scaled.transpose(0, 1)

    return encode


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--batch", type=int, default=32, help="frames a step")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, help="stop after this time; the next call goes on")
    parser.add_argument("--output", type=Path, default=FOLDER / "vae")
    args = parser.parse_args()
    videos = PretrainingVideos(args.videos)
    torch.manual_seed(0)
    vae = build()
    autoencoder = Autoencoder(vae)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([1, step])
        frames = videos.single_frames(
            rng.integers(len(videos) - 500, size=args.batch), rng.integers(16, size=args.batch)
        )
        generator = torch.Generator().manual_seed(step)
        values = pixels(frames)
        output, mean, kl = in_bf16(autoencoder, values.to(torch.bfloat16), generator)
        fidelity = (output.float() - values).square().mean()
        return fidelity + KL_WEIGHT * kl + ISOMETRY_WEIGHT * isometry(values, mean.float())

    optimiser = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = LearningRateSchedule(args.steps, decay=0.5)
    averaged = train(
        vae, [optimiser], loss, schedule, args.output / "training", ema=0.998, seconds=args.seconds
    )
    averaged.copy_to(vae)
    held_out = np.arange(len(videos) - 256, len(videos))
    frames = videos.single_frames(held_out, held_out % 16)
    with torch.no_grad():
        scale = 1 / vae.encode(pixels(frames)).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=scale)
    print(
        f"PSNR {reconstruction_psnr(vae, frames):.2f} dB on 256 held-out frames, scaling factor {scale:.4f}"
    )
    vae.save_pretrained(args.output)


if __name__ == "__main__":
    main()
