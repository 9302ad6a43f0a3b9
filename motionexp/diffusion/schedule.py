"""Windows, discrete noise schedules, targets and the DDIM step: pure functions of tensors.

The convention everywhere is x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, with t from 0 (almost
clean) to 999, and 1000 for pure noise. Formulas are of DDPM (Ho et al. 2020, arXiv 2006.11239), DDIM (Song et
al. 2021, arXiv 2010.02502) and, for v, Salimans and Ho 2022 (arXiv 2202.00512, appendix D).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from motionexp.errors import InputError

TIMESTEPS = 1000
FINAL = -1
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# These alone heed `snr_shift_scale`; others carry the key along unread.
SHIFTED_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
SHIFTED_DEFAULTS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 8.5e-4,
    "beta_end": 1.2e-2,
    "snr_shift_scale": 3.0,
}


def generator(purpose: str, *keys: int | str) -> torch.Generator:
    """Random numbers for one named purpose: a generator on the CPU, seeded from `purpose` and `keys` alone.

    The numbers depend neither on the device nor on what else was drawn, so that two runs that differ in one
    setting share all other noise.
    """
    digest = hashlib.sha256(json.dumps([purpose, *keys]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


@dataclass(frozen=True)
class Window:
    """The timesteps in which a method acts: low <= t <= high; `Window(1000)` is empty, t = 1000 included.

    `low` is the papers' tau. Both ends are from 0 to 1000, in the scheduler's own t (integers for discrete
    schedules, 1000 sigma for flow matching). `knots` make it soft: (t, weight) in ascending t, the first at
    `low`, weights from 0 to 1, linear between and the last one's beyond. Training then draws t in proportion
    to the weight, and sampling scales the method by it. Raises InputError for other values.
    """

    low: float
    high: float = float(TIMESTEPS)
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= TIMESTEPS:
            raise InputError(f"window [{self.low}, {self.high}]: needs 0 <= low <= high <= {TIMESTEPS}")
        times = [t for t, _ in self.knots]
        weights = [weight for _, weight in self.knots]
        if self.knots and not (
            times[0] == self.low
            and all(before < after for before, after in pairwise(times))
            and times[-1] <= self.high
            and all(0 <= weight <= 1 for weight in weights)
            and max(weights) > 0
        ):
            shown = ", ".join(f"[{t:g}, {weight:g}]" for t, weight in self.knots)
            raise InputError(
                f"soft window [{shown}]: needs pairs of timestep and weight, timesteps ascending from"
                f" {self.low:g} (the window's lower end) to {self.high:g} at most, weights from 0 to 1 and"
                " not all 0"
            )

    @property
    def is_empty(self) -> bool:
        """True for tau = 1000, the base model."""
        return self.low == TIMESTEPS

    def contains(self, t: float) -> bool:
        """Whether the method acts at timestep t."""
        return self.weight(t) > 0

    def weight(self, t: float) -> float:
        """How strongly the method acts at timestep t: 0 outside; inside 1, or what the knots say."""
        if self.is_empty or not self.low <= t <= self.high:
            return 0.0
        if not self.knots:
            return 1.0
        times, weights = zip(*self.knots, strict=True)
        return float(np.interp(t, times, weights))

    def count(self, timesteps: Iterable[float]) -> int:
        """How many of these timesteps are inside, for instance of `NoiseSchedule.timesteps(50)`."""
        return sum(self.contains(t) for t in timesteps)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete noise schedule and what the network predicts under it.

    Attributes:
        alphas_cumprod: (1000,) fp32 on the CPU, alpha_bar of t = 0 to 999.
        final_alpha_cumprod: alpha_bar that the last sampling step goes to, 1 or alphas_cumprod[0].
        prediction_type: `epsilon`, `v_prediction` or `sample` (x_0).
        timestep_spacing: `leading`, `trailing` or `linspace` (Lin et al. 2024, arXiv 2305.08891, table 2).
        steps_offset: added to the timesteps of `leading`.
        clip_sample_range: in sampling, predicted x_0 is clipped to +-this; None: not clipped.
    """

    alphas_cumprod: Float[Tensor, "1000"]
    final_alpha_cumprod: float = 1.0
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    clip_sample_range: float | None = None

    def __post_init__(self) -> None:
        for name, value, options in (
            ("prediction_type", self.prediction_type, PREDICTION_TYPES),
            ("timestep_spacing", self.timestep_spacing, SPACINGS),
        ):
            if value not in options:
                raise InputError(f"scheduler's {name}={value!r}: one of {', '.join(options)}")
        if self.prediction_type == "epsilon" and self.alphas_cumprod[-1] == 0:
            raise InputError(
                "scheduler: at zero terminal SNR the noise does not tell x_0: prediction_type must be"
                " v_prediction or sample, not epsilon"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """The schedule that a diffusers scheduler's config describes (`scheduler_config.json`).

        Missing keys have DDIMScheduler's defaults. CogVideoX's schedulers have defaults of their own, divide
        the SNR by `snr_shift_scale` and never clip x_0, whatever `clip_sample` says. Raises InputError for
        what this class does not compute: flow matching, thresholding, training timesteps other than 1000, an
        unknown beta schedule.
        """
        if (count := config.get("num_train_timesteps", TIMESTEPS)) != TIMESTEPS:
            raise InputError(f"scheduler's num_train_timesteps must be {TIMESTEPS}, not {count}")
        if config.get("thresholding"):
            raise InputError("scheduler's thresholding=true: not for latents; set it to false")
        shifted = config.get("_class_name") in SHIFTED_SCHEDULERS
        alphas_cumprod = (_shifted_alphas_cumprod if shifted else _alphas_cumprod)(config)
        clipped = config.get("clip_sample", True) and not shifted
        return cls(
            alphas_cumprod=alphas_cumprod,
            final_alpha_cumprod=1.0 if config.get("set_alpha_to_one", True) else alphas_cumprod[0].item(),
            prediction_type=config.get("prediction_type", "epsilon"),
            timestep_spacing=config.get("timestep_spacing", "leading"),
            steps_offset=config.get("steps_offset", 0),
            clip_sample_range=config.get("clip_sample_range", 1.0) if clipped else None,
        )

    def alpha_bar(self, t: float | Tensor) -> Tensor:
        """Share of the signal's variance at t, fp32, with t's shape and device (a number gives shape ()).

        t = 1000 is pure noise (0) and `FINAL` (-1) the end of sampling; between integers, linear.
        Raises InputError outside -1..1000.
        """
        t = torch.as_tensor(t)
        index = t.double() + 1
        table = nn.functional.pad(self.alphas_cumprod, (1, 1)).to(t.device)
        table[0] = self.final_alpha_cumprod
        below, above = index.floor().long(), index.ceil().long()
        if bool((below < 0).any()) or bool((above >= len(table)).any()):
            raise InputError(f"timestep {t.tolist()}: from {FINAL} to {TIMESTEPS}")
        return torch.lerp(table[below], table[above], (index - below).to(table.dtype))

    def log_snr(self, t: float | Tensor) -> Tensor:
        """ln(alpha_bar / (1 - alpha_bar)) at t, in nats: minus infinity at pure noise. See `alpha_bar`."""
        return torch.logit(self.alpha_bar(t).double()).float()

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of `steps` sampling steps, descending, as DDIMScheduler.set_timesteps gives them.

        Raises InputError unless 1 <= steps <= 1000, and where `steps_offset` leads outside 0..999.
        """
        if not 1 <= steps <= TIMESTEPS:
            raise InputError(f"steps={steps}: a whole number from 1 to {TIMESTEPS}")
        if self.timestep_spacing == "linspace":
            values = np.linspace(0, TIMESTEPS - 1, steps).round()[::-1]
        elif self.timestep_spacing == "leading":
            values = np.arange(0.0, steps)[::-1] * (TIMESTEPS // steps) + self.steps_offset
        else:
            values = np.round(np.arange(TIMESTEPS, 0, -TIMESTEPS / steps)) - 1
        timesteps = [int(value) for value in values]
        if timesteps[0] >= TIMESTEPS:
            raise InputError(
                f"steps={steps} with steps_offset={self.steps_offset} in the scheduler: t reaches 1000"
            )
        return timesteps

    def step_pairs(self, steps: int) -> list[tuple[int, int]]:
        """(t, t_prev) of every sampling step, t_prev = FINAL (-1) for the last.

        t_prev is t - 1000 // steps, as in diffusers: with `trailing` and `linspace` and steps that do not
        divide 1000, this is near the next t, not equal to it.
        """
        stride = TIMESTEPS // steps if steps > 0 else 0
        return [(t, max(t - stride, FINAL)) for t in self.timesteps(steps)]

    def add_noise(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """x_t for clean x0 and unit noise (B, ...); t is a number or (B,). DDPM eq. 4."""
        signal, sigma = self._scales(t, x0)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """What the network should output at x_t: noise, v = sqrt(ab) noise - sqrt(1 - ab) x0, or x0."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        signal, sigma = self._scales(t, x0)
        return signal * noise - sigma * x0

    def to_x0(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The clean x_0 that an output at x_t stands for (not clipped)."""
        if self.prediction_type == "sample":
            return output
        signal, sigma = self._scales(t, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - sigma * output) / signal
        return signal * x_t - sigma * output

    def to_epsilon(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The noise that an output at x_t stands for."""
        if self.prediction_type == "epsilon":
            return output
        signal, sigma = self._scales(t, x_t)
        if self.prediction_type == "sample":
            return (x_t - signal * output) / sigma
        return signal * output + sigma * x_t

    def step(
        self,
        x_t: Tensor,
        output: Tensor,
        t: float,
        t_prev: float,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One DDIM step from x_t at t to t_prev, DDIM eqs. 12 and 16; `FINAL` as t_prev ends the sampling.

        With t_prev > t and eta = 0 the same formula is DDIM inversion.

        Args:
            x_t: (B, ...).
            output: the network's output at x_t, same shape.
            t: timestep of x_t, of all the batch.
            t_prev: timestep to go to.
            eta: 0 is deterministic, 1 as random as DDPM.
            noise: unit noise of x_t's shape; needed where eta > 0.

        Raises:
            ValueError: eta > 0 without noise.
        """
        x0 = self.to_x0(x_t, output, t)
        if self.clip_sample_range is not None:
            x0 = x0.clamp(-self.clip_sample_range, self.clip_sample_range)
        here, there = self.alpha_bar(t), self.alpha_bar(t_prev)
        variance = eta**2 * (1 - there) / (1 - here) * (1 - here / there) if eta > 0 else torch.zeros(())
        direction = (1 - there - variance).sqrt() * self.to_epsilon(x_t, output, t)
        x_prev = there.sqrt() * x0 + direction
        if eta > 0:
            if noise is None:
                raise ValueError("a step with eta > 0 needs noise")
            x_prev = x_prev + variance.sqrt() * noise
        return x_prev

    def training_timesteps(self, window: Window, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """n timesteps, uniform on the integers of the window (0 to 999), on the generator's device.

        Of a soft window they are drawn in proportion to its weight. Raises InputError where the window holds
        no integer below 1000, or none of any weight.
        """
        low, high = math.ceil(window.low), min(math.floor(window.high), TIMESTEPS - 1)
        if window.is_empty or low > high:
            raise InputError(
                f"window [{window.low}, {window.high}]: no timestep from 0 to 999 in it to train at"
            )
        if window.knots:
            return weighted_draw(window, range(low, high + 1), n, generator) + low
        return torch.randint(low, high + 1, (n,), generator=generator, device=generator.device)

    def _scales(self, t: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar), fp32, ready to multiply (B, ...)."""
        alpha_bar = self.alpha_bar(t).to(like.device)
        if alpha_bar.ndim:
            alpha_bar = alpha_bar.reshape(-1, *(1,) * (like.ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def weighted_draw(
    window: Window, timesteps: Iterable[float], n: int, generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """Indices of n of the timesteps, drawn in proportion to the window's weight at each.

    Raises InputError where all weights are 0.
    """
    weights = torch.tensor([window.weight(t) for t in timesteps], dtype=torch.float64)
    if not bool((weights > 0).any()):
        raise InputError(
            f"soft window [{window.low:g}, {window.high:g}]: no timestep from 0 to 999 in it has a weight"
        )
    weights = weights.to(generator.device)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


def _alphas_cumprod(config: Mapping[str, Any]) -> Float[Tensor, "1000"]:
    """alpha_bar of t = 0 to 999, in the arithmetic of DDIMScheduler.__init__."""
    alphas_cumprod = torch.cumprod(1.0 - _betas(config, torch.float32), dim=0)
    if config.get("rescale_betas_zero_snr"):
        rescaled = _zero_terminal_snr(alphas_cumprod)
        # That scheduler goes back to betas, which costs the last bits.
        betas = 1 - torch.cat([rescaled[:1], rescaled[1:] / rescaled[:-1]])
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    return alphas_cumprod


def _shifted_alphas_cumprod(config: Mapping[str, Any]) -> Float[Tensor, "1000"]:
    """alpha_bar with the SNR divided by a number, in the arithmetic of CogVideoXDDIMScheduler.__init__."""
    config = {**SHIFTED_DEFAULTS, **config}
    alphas_cumprod = torch.cumprod(1.0 - _betas(config, torch.float64), dim=0)
    shift = config["snr_shift_scale"]
    alphas_cumprod = alphas_cumprod / (shift + (1 - shift) * alphas_cumprod)
    if config.get("rescale_betas_zero_snr"):
        alphas_cumprod = _zero_terminal_snr(alphas_cumprod)
    return alphas_cumprod.float()


def _betas(config: Mapping[str, Any], dtype: torch.dtype) -> Float[Tensor, "1000"]:
    """The noise variance added at each timestep, before any rescaling."""
    kind = config.get("beta_schedule")
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 2e-2)
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=dtype)
    if kind == "linear":
        return torch.linspace(start, end, TIMESTEPS, dtype=dtype)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=dtype) ** 2
    if kind == "squaredcos_cap_v2":
        return _cosine_betas()
    raise InputError(
        f"scheduler's beta_schedule={kind!r}: needs linear, scaled_linear or squaredcos_cap_v2 (flow"
        " matching has none: see FlowSchedule)"
    )


def _cosine_betas() -> Float[Tensor, "1000"]:
    """The cosine schedule of Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17, with betas up to 0.999."""
    ends = [math.cos((i / TIMESTEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(TIMESTEPS + 1)]
    return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(ends)])


def _zero_terminal_snr(alphas_cumprod: Float[Tensor, "1000"]) -> Float[Tensor, "1000"]:
    """alpha_bar rescaled so that it ends at 0: Lin et al. 2024, arXiv 2305.08891, algorithm 1."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
