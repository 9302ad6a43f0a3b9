"""What the small denoisers' trainings share: noise, the loss of v, and their command line."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from motionexp.scripts.pretrain.loop import LearningRateSchedule, in_bf16, train
from motionexp.scripts.pretrain.videos import FOLDER


def noised(clean: Tensor, t: Tensor, alphas: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return latents (B, C, F, h, w) with noise at timesteps (B,), and their v (Salimans and Ho, 2022).

    Args:
        clean: latents.
        t: one timestep for each.
        alphas: cumulated, of every timestep.
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
        alphas: cumulated, of every timestep.
        video_power: of the share of the schedule at which videos are noised; below 1 they are noised more.
    """

    def loss(step: int) -> Tensor:
        clean, captions = batches(step)
        generator = torch.Generator().manual_seed(step)
        slices = torch.randperm(len(clean), generator=generator) + torch.rand(len(clean), generator=generator)
        power = video_power if clean.shape[2] > 1 else 1.0
        t = (len(alphas) * (slices / len(clean)) ** power).long()
        noisy, velocity = noised(clean, t, alphas, generator)
        return (in_bf16(model, noisy, t, captions).float() - velocity).square().mean()

    return loss


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the options that the trainings of `outputs/pretrain/NAME` have in common."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--steps", type=int, default=9_000, help="of both stages")
    options.add_argument("--rate", type=float, default=2e-3)
    options.add_argument("--videos", type=int, default=10_000)
    options.add_argument("--seconds", type=float, help="stop after this time; the next call goes on")
    options.add_argument("--output", type=Path, default=FOLDER / name)
    return options


def train_denoiser(
    model: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    loss: Callable[[int], Tensor],
    args: argparse.Namespace,
) -> None:
    """Train until the last step, or what time there is; the model then has the averaged parameters."""
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    schedule, folder = LearningRateSchedule(args.steps), args.output / "training"
    train(model, optimisers, loss, schedule, folder, ema=0.999, seconds=args.seconds).copy_to(model)
