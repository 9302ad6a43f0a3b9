"""Train the small VAE: ``python -m motionexp.scripts.pretrain.vae``. Saved as diffusers' ``AutoencoderKL``.

The world's energies are chosen in pixels. An ordinary VAE whitens them: in its latents faint background
textures have as much energy as objects. So a term of the loss makes each patch of the latents
preserve the distances between frames that pixels have.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX
from torch import Tensor, nn

from motionexp.data.videos import psnr
from motionexp.scripts.pretrain.loop import in_bf16, options, train
from motionexp.scripts.pretrain.videos import PretrainingVideos

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
        floor: energy, in squared units of [-1, 1], below which differences hardly count.
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


def train_autoencoder(
    args: argparse.Namespace,
    vae: AutoencoderKL | AutoencoderKLCogVideoX,
    batch: Callable[[int], Tensor],
    as_frames: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Train encoder and decoder, with the posterior's noise and the pixels' distances.

    Args:
        args: of the command line.
        vae: what is trained.
        batch: pixels of a step, in [-1, 1].
        as_frames: lays pixels and latents out for `isometry`.
    """
    autoencoder = Autoencoder(vae)

    def loss(step: int) -> Tensor:
        values, generator = batch(step), torch.Generator().manual_seed(step)
        output, mean, kl = in_bf16(autoencoder, values.to(torch.bfloat16), generator)
        fidelity = (output.float() - values).square().mean()
        return fidelity + KL_WEIGHT * kl + ISOMETRY_WEIGHT * isometry(*as_frames(values, mean.float()))

    optimiser = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    train(args, vae, [optimiser], loss, ema=0.998, decay=0.5)


def set_scale(vae: AutoencoderKL | AutoencoderKLCogVideoX, values: Tensor) -> float:
    """Set and return the factor that gives the latents of these pixels a standard deviation of 1."""
    with torch.no_grad():
        scale: float = 1 / vae.encode(values).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=scale)
    return scale


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
        mode: Tensor = vae.encode(pixels(video).to(vae.dtype)).latent_dist.mode().float()
        return (mode * vae.config.scaling_factor).transpose(0, 1)

    return encode


def main() -> None:
    """Train and save."""
    args = options(__doc__, "vae", steps=6_000, rate=1.5e-3).parse_args()
    videos = PretrainingVideos(args.videos)
    torch.manual_seed(0)
    vae = build()

    def frames_of(step: int) -> Tensor:
        # The last 500 videos are held out.
        rng = np.random.default_rng([1, step])
        return pixels(
            videos.single_frames(
                rng.integers(len(videos) - 500, size=args.batch), rng.integers(16, size=args.batch)
            )
        )

    train_autoencoder(args, vae, frames_of, lambda values, latents: (values, latents))
    held_out = np.arange(len(videos) - 256, len(videos))
    frames = videos.single_frames(held_out, held_out % 16)
    scale = set_scale(vae, pixels(frames))
    print(
        f"PSNR {reconstruction_psnr(vae, frames):.2f} dB on 256 held-out frames, scaling factor {scale:.4f}"
    )
    vae.save_pretrained(args.output)


if __name__ == "__main__":
    main()
