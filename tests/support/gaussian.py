"""A perfect network of Gaussian data, whose probability flow has a closed form."""

from functools import cache

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents

NO_CAPTION = Conditioning(torch.zeros(1, 1, 1))


class GaussianBackbone(Backbone):
    """The expected output for data from N(mean, diag(std^2)), in the schedule's prediction type."""

    def __init__(self, mean: Tensor, std: Tensor, schedule: Schedule) -> None:
        self.mean, self.std, self.schedule = mean.double(), std.double(), schedule
        self.device, self.name = torch.device("cpu"), "gaussian"
        self.scales = cache(self._scales)

    def _scales(self, t: float) -> tuple[float, float, float, float]:
        """The factors of x_0 and of the noise, in x_t and in the target."""
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        mix, target = self.schedule.add_noise, self.schedule.target
        signal, sigma = mix(one, zero, t).item(), mix(zero, one, t).item()
        return signal, sigma, target(one, zero, t).item(), target(zero, one, t).item()

    def predict(self, x_t: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor:
        signal, sigma, of_x0, of_noise = self.scales(float(t))
        away = (x_t - signal * self.mean) / (signal**2 * self.std**2 + sigma**2)
        return (of_x0 * (self.mean + signal * self.std**2 * away) + of_noise * sigma * away).float()

    def flow(self, x0: Tensor, t: float) -> Tensor:
        """The point at t of the probability flow through x0: marginals are Gaussian, quantiles stay."""
        signal, sigma, *_ = self.scales(float(t))
        std_t = (signal**2 * self.std**2 + sigma**2).sqrt()
        return signal * self.mean + std_t / self.std * (x0 - self.mean)


GaussianBackbone.__abstractmethods__ = frozenset()  # sampling and inversion need no more of a backbone


def gaussian(schedule: Schedule) -> tuple[GaussianBackbone, Tensor]:
    """The backbone, and a clean video of its data, (1, 2, 3, 4, 4)."""
    stream = torch.Generator().manual_seed(1)
    mean, spread, unit = (torch.randn(1, 2, 3, 4, 4, generator=stream) for _ in range(3))
    std = 0.5 + spread.abs().clamp(max=1)
    return GaussianBackbone(mean, std, schedule), mean + std * unit


def rms(difference: Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


def errors(backbone: GaussianBackbone, x0: Tensor, steps: int) -> tuple[float, float]:
    """The error of x0 after inversion and sampling, and the largest of inverted latents to the exact flow."""
    settings = SamplerSettings(steps, guidance_scale=1.0)
    inverted = invert(backbone, x0, NO_CAPTION, None, settings)
    assert list(inverted) == backbone.schedule.timesteps(steps)[::-1]
    back = sample_latents(backbone, NO_CAPTION, None, inverted[max(inverted)], settings)
    return rms(back - x0), max(rms(x_t - backbone.flow(x0, t)) for t, x_t in inverted.items())


def tensors(count: int) -> list[Tensor]:
    """Random tensors (3, 4, 2, 5, 5)."""
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, 2, 5, 5, generator=stream) for _ in range(count)]
