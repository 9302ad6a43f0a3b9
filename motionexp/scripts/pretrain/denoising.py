"""What the small denoisers' trainings share: noise and the loss of v."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from motionexp.scripts.pretrain.loop import in_bf16
from motionexp.scripts.pretrain.videos import Latents

EMPTY_SHARE = 0.1
"""Share of captions that are replaced by the empty one, for guidance."""


def single_frames(latents: Latents, rows: np.ndarray, frames: int, rng: np.random.Generator) -> Tensor:
    """Return one of the first ``frames`` latent frames of each video: (B, C, 1, h, w)."""
    chosen = torch.from_numpy(rng.integers(frames, size=len(rows)))
    return latents.batch(rows)[torch.arange(len(rows)), :, chosen][:, :, None]


def without_some(captions: Tensor, empty: Tensor, rng: np.random.Generator) -> Tensor:
    """Return captions (B, ...) with `EMPTY_SHARE` of them replaced by the empty one (...)."""
    replaced = torch.from_numpy(rng.random(len(captions)) < EMPTY_SHARE)
    return torch.where(replaced.view(-1, *[1] * empty.ndim), empty, captions)


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """Return shares (count,) in 0..1 in random order, one in each of ``count`` equal slices.

    Their mean varies less than that of ``count`` free draws.
    """
    slices = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return slices / count


def noised(clean: Tensor, t: Tensor, alphas: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return latents (B, C, F, h, w) with noise at timesteps (B,), and their v (Salimans and Ho, 2022).

    Args:
        clean: latents.
        t: a timestep for each video.
        alphas: cumulative, of every timestep.
        generator: of the noise.
    """
    noise = torch.randn(clean.shape, generator=generator)
    signal = alphas[t].sqrt()[:, None, None, None, None]
    sigma = (1 - alphas[t]).sqrt()[:, None, None, None, None]
    return (signal * clean + sigma * noise).bfloat16(), signal * noise - sigma * clean


def velocity_loss(
    model: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    alphas: Tensor,
    video_power: float = 1.0,
) -> Callable[[int], Tensor]:
    """Return the loss of a step: the squared error of v, one t in each of B slices of the schedule.

    Args:
        model: from noisy latents, timesteps and captions to v.
        batches: clean latents and captions of a step.
        alphas: cumulative, of every timestep.
        video_power: exponent on a video's share of the schedule; below 1, videos get more noise.
    """

    def loss(step: int) -> Tensor:
        clean, captions = batches(step)
        generator = torch.Generator().manual_seed(step)
        power = video_power if clean.shape[2] > 1 else 1.0
        # (B,): shares of the schedule, which the power bends, as timesteps.
        t = (len(alphas) * stratified(len(clean), generator) ** power).long()
        noisy, velocity = noised(clean, t, alphas, generator)
        return (in_bf16(model, noisy, t, captions).float() - velocity).square().mean()

    return loss
