"""Train the small 3D VAE, diffusers' ``AutoencoderKLCogVideoX``.

The first frame becomes one latent frame, then every four frames become one. It is trained on clips cut out of
the videos, and preserves the distances between frames as the VAE of single frames does.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

from motionexp.data.videos import psnr
from motionexp.scripts.pretrain.loop import in_bf16, options, train
from motionexp.scripts.pretrain.vae import grey_levels, pixels, set_scale, train_autoencoder
from motionexp.scripts.pretrain.videos import PretrainingVideos

FRAMES = 17
CLIP = 32
RATIO = 4


def build() -> AutoencoderKLCogVideoX:
    """Return an untrained VAE: 17 frames of 64 x 64 pixels to 5 latent frames of 16 x 16 x 16."""
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        temporal_compression_ratio=RATIO,
        sample_height=64,
        sample_width=64,
    )


def as_video(frames: np.ndarray) -> Tensor:
    """Turn uint8 (B, F, H, W, 3) into float (B, 3, F, H, W) in [-1, 1]."""
    values = pixels(frames.reshape(-1, *frames.shape[2:])).unflatten(0, frames.shape[:2])
    return values.transpose(1, 2).contiguous()


def grouped(values: Tensor) -> Tensor:
    """Lay frames that share a latent frame side by side as channels: (B, C, 1 + 4k, H, W) to (Bk, 4C, H, W).

    The lone first frame is left out.
    """
    groups = values[:, :, 1:].unflatten(2, (-1, RATIO))
    return groups.movedim(2, 1).flatten(2, 3).flatten(0, 1)


def latent_groups(latents: Tensor) -> Tensor:
    """Lay latent frames after the first one after the other: (B, C, 1 + k, h, w) to (N, C, h, w)."""
    return latents[:, :, 1:].transpose(1, 2).flatten(0, 1)


class Clips:
    """Clips of 32 x 32 pixels and 9 or 17 frames, drawn by the step's index."""

    def __init__(self, videos: PretrainingVideos, batch: int) -> None:
        self.videos, self.batch = videos, batch

    def __call__(self, step: int) -> Tensor:
        """Return (B, 3, F, 32, 32); half as many of 17 frames as of 9."""
        rng = np.random.default_rng([11, step])
        frames, count = (FRAMES, self.batch // 2) if step % 4 == 3 else (9, self.batch)
        clips = []
        for row in rng.integers(len(self.videos) - 500, size=count):
            first = int(rng.integers(FRAMES - frames + 1))
            top, left = rng.integers(64 - CLIP + 1, size=2)
            clips.append(
                self.videos.video(int(row))[first : first + frames, top : top + CLIP, left : left + CLIP]
            )
        return as_video(np.stack(clips))


def reconstruction_psnr(vae: AutoencoderKLCogVideoX, videos: np.ndarray) -> float:
    """Return the mean PSNR in dB over the frames of uint8 videos (B, F, H, W, 3), by the posterior's mode."""
    values = []
    for video in videos:
        with torch.no_grad():
            output = vae.decode(vae.encode(as_video(video[None])).latent_dist.mode()).sample
        values.append(psnr(grey_levels(output[0].transpose(0, 1)), video))
    return float(np.mean(values))


def video_latents(vae: AutoencoderKLCogVideoX) -> Callable[[np.ndarray], Tensor]:
    """Return what encodes a video (1 + 4k, H, W, 3) uint8: scaled latents (C, 1 + k, H/4, W/4)."""

    def encode(video: np.ndarray) -> Tensor:
        mode: Tensor = vae.encode(as_video(video[None]).to(vae.dtype)).latent_dist.mode()[0].float()
        return mode * vae.config.scaling_factor

    return encode


class Decoder(nn.Module):
    """Decodes latents of a frozen encoder, as they are."""

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self._vae = [vae]  # in a list, so that the encoder is no part of this module

    def forward(self, values: Tensor) -> Tensor:
        """Return clips (B, 3, F, H, W) through the VAE and back."""
        with torch.no_grad():
            latents = self._vae[0].encode(values).latent_dist.mode()
        output: Tensor = self._vae[0].decode(latents).sample
        return output


def train_decoder(vae: AutoencoderKLCogVideoX, clips: Clips, args: argparse.Namespace) -> None:
    """Second stage: the decoder alone, on latents of the frozen encoder in bf16, as denoisers see them."""
    model = Decoder(vae)
    unrounded = {name: tensor.clone() for name, tensor in vae.encoder.state_dict().items()}
    vae.encoder.to(torch.bfloat16)

    def loss(step: int) -> Tensor:
        values = clips(args.steps + step)
        output: Tensor = in_bf16(model, values.to(torch.bfloat16))
        return (output.float() - values).square().mean()

    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    stage = argparse.Namespace(steps=args.decoder_steps, seconds=args.seconds)
    train(stage, model, [optimiser], loss, ema=0.998, decay=0.5, folder=args.output / "training-decoder")
    vae.encoder.to(torch.float32).load_state_dict(unrounded)


def main() -> None:
    """Train and save."""
    parser = options(__doc__, "vae3d", steps=3_000, batch=16, videos=10_000)
    parser.add_argument("--decoder-steps", type=int, default=3_000, help="of the decoder alone, afterwards")
    args = parser.parse_args()
    videos = PretrainingVideos(args.videos, FRAMES)
    torch.manual_seed(0)
    vae, clips = build(), Clips(videos, args.batch)
    # First stage: encoder and decoder. Second stage: the decoder alone.
    train_autoencoder(args, vae, clips, lambda values, latents: (grouped(values), latent_groups(latents)))
    held_out = np.stack([videos.video(index) for index in range(len(videos) - 64, len(videos))])
    scale = set_scale(vae, as_video(held_out[:16]))
    vae.save_pretrained(args.output)
    if args.decoder_steps:
        train_decoder(vae, clips, args)
        vae.save_pretrained(args.output)
    print(
        f"PSNR {reconstruction_psnr(vae, held_out):.2f} dB on 64 held-out videos, scaling factor {scale:.4f}"
    )


if __name__ == "__main__":
    main()
