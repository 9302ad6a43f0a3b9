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

# All checkpoints that are read were trained with 1000 timesteps; FINAL is the end of sampling, clean data.
TIMESTEPS = 1000
FINAL = -1
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# Only these schedulers use `snr_shift_scale`; the configs of others may hold the key without effect.
SHIFTED_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
SHIFTED_DEFAULTS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 8.5e-4,
    "beta_end": 1.2e-2,
    "snr_shift_scale": 3.0,
}


def generator(purpose: str, *keys: int | str) -> torch.Generator:
    """Return a generator on the CPU, seeded only from `purpose` and `keys`.

    Its numbers depend neither on the device nor on earlier draws: two runs that differ in one setting share
    all other noise.
    """
    # Stored results were drawn with these seeds: the string must not change.
    digest = hashlib.sha256(json.dumps([purpose, *keys]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


@dataclass(frozen=True)
class Window:
    """The timesteps at which a method acts: low <= t <= high. `Window(1000)` is empty, even at t = 1000.

    Attributes:
        low: the papers' tau, 0 to 1000, in the scheduler's t (an integer for discrete schedules, 1000 sigma
            for flow matching).
        high: from `low` to 1000.
        knots: (t, weight) of a soft window in ascending t, the first at `low`, weights from 0 to 1. The
            weight is linear between knots and constant after the last. Training draws t in proportion to the
            weight; sampling scales the method by the weight. Empty: the weight is 1 in the whole window.

    Raises:
        InputError: values outside these ranges.
    """

    low: float
    high: float = float(TIMESTEPS)
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= TIMESTEPS:
            raise InputError(f"window [{self.low}, {self.high}]: needs 0 <= low <= high <= {TIMESTEPS}")
        times = [t for t, _ in self.knots]
        weights = [weight for _, weight in self.knots]
        # Training draws t from these weights: a weight of 0 everywhere could not be normalised.
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
        """Strength of the method at timestep t: 0 outside; inside 1, or the knots' interpolation."""
        if self.is_empty or not self.low <= t <= self.high:
            return 0.0
        if not self.knots:
            return 1.0
        # np.interp holds the last weight up to `high`.
        times, weights = zip(*self.knots, strict=True)
        return float(np.interp(t, times, weights))

    def count(self, timesteps: Iterable[float]) -> int:
        """Number of these timesteps inside, for instance of `NoiseSchedule.timesteps(50)`."""
        return sum(self.contains(t) for t in timesteps)


EVERYWHERE = Window(0)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete noise schedule and the network's prediction type.

    Attributes:
        alphas_cumprod: (1000,) fp32 on the CPU, alpha_bar of t = 0 to 999.
        final_alpha_cumprod: alpha_bar at the end of sampling, 1 or alphas_cumprod[0].
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
                "scheduler's prediction_type=epsilon: at zero terminal SNR the noise does not determine x_0:"
                " use v_prediction or sample"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """The schedule that a diffusers scheduler's config describes (`scheduler_config.json`).

        Missing keys have DDIMScheduler's defaults. CogVideoX's schedulers have other defaults, divide the SNR
        by `snr_shift_scale` and never clip x_0, whatever `clip_sample` is.

        Raises:
            InputError: flow matching, thresholding, a number of training timesteps other than 1000, or an
                unknown beta schedule.
        """
        if (count := config.get("num_train_timesteps", TIMESTEPS)) != TIMESTEPS:
            raise InputError(f"scheduler's num_train_timesteps must be {TIMESTEPS}, not {count}")
        if config.get("thresholding"):
            raise InputError("scheduler's thresholding=true: does not apply to latents; set it to false")
        # The keys mean different things to the two kinds of schedulers: the class decides.
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

        It is 0 at t = 1000, pure noise, and `final_alpha_cumprod` at t = `FINAL` (-1), the end of sampling;
        between integers it is linear.

        Raises:
            InputError: t is outside -1..1000.
        """
        t = torch.as_tensor(t)
        index = t.double() + 1
        # (1002,): index 0 is t = -1, the end of sampling; the last is t = 1000, alpha_bar 0.
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

        Raises:
            InputError: steps is outside 1..1000, or `steps_offset` moves a timestep outside 0..999.
        """
        if not 1 <= steps <= TIMESTEPS:
            raise InputError(f"steps={steps}: a whole number from 1 to {TIMESTEPS}")
        # Lin et al., table 2. The roundings are those of diffusers: a t that differs by 1 changes the result.
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

        t_prev is t - 1000 // steps, as in diffusers. With `trailing` or `linspace`, and a number of steps
        that does not divide 1000, t_prev is near the next t but not equal to it.
        """
        # Without the condition, 0 steps would divide by 0 here: `timesteps` names the error.
        stride = TIMESTEPS // steps if steps > 0 else 0
        return [(t, max(t - stride, FINAL)) for t in self.timesteps(steps)]

    def add_noise(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """x_t for clean x0 and unit noise (B, ...); t is a number or (B,). DDPM eq. 4."""
        signal, sigma = self._scales(t, x0)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """The output that the network is trained for: noise, x0, or v = sqrt(ab) noise - sqrt(1 - ab) x0."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        signal, sigma = self._scales(t, x0)
        return signal * noise - sigma * x0

    def to_x0(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The clean x_0 that an output at x_t implies, not clipped."""
        if self.prediction_type == "sample":
            return output
        signal, sigma = self._scales(t, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - sigma * output) / signal
        return signal * x_t - sigma * output

    def to_epsilon(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The noise that an output at x_t implies."""
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
        """One DDIM step from x_t at t to t_prev, DDIM eqs. 12 and 16; t_prev = `FINAL` ends the sampling.

        With t_prev > t and eta = 0 the formula is that of DDIM inversion.

        Args:
            x_t: (B, ...).
            output: the network's output at x_t, same shape.
            t: timestep of x_t, one for the batch.
            t_prev: timestep of the result.
            eta: 0 is deterministic, 1 as random as DDPM.
            noise: unit noise of x_t's shape; needed where eta > 0.

        Raises:
            ValueError: eta > 0 without noise.
        """
        x0 = self.to_x0(x_t, output, t)
        if self.clip_sample_range is not None:
            x0 = x0.clamp(-self.clip_sample_range, self.clip_sample_range)
        now, prev = self.alpha_bar(t), self.alpha_bar(t_prev)
        # DDIM eq. 16: sigma^2; eta = 1 is DDPM's posterior variance.
        variance = eta**2 * (1 - prev) / (1 - now) * (1 - now / prev) if eta > 0 else torch.zeros(())
        # DDIM eq. 12: the direction that points to x_t.
        direction = (1 - prev - variance).sqrt() * self.to_epsilon(x_t, output, t)
        x_prev = prev.sqrt() * x0 + direction
        if eta > 0:
            if noise is None:
                raise ValueError("a step with eta > 0 needs noise")
            x_prev = x_prev + variance.sqrt() * noise
        return x_prev

    def training_timesteps(self, window: Window, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """n timesteps, uniform on the integers of the window (0 to 999), on the generator's device.

        For a soft window the probability is proportional to the weight.

        Raises:
            InputError: the window holds no integer below 1000, or only integers of weight 0.
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
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar), fp32, in a shape that multiplies (B, ...)."""
        alpha_bar = self.alpha_bar(t).to(like.device)
        if alpha_bar.ndim:
            # (B,) to (B, 1, 1, ...).
            alpha_bar = alpha_bar.reshape(-1, *(1,) * (like.ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def weighted_draw(
    window: Window, timesteps: Iterable[float], n: int, generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """Indices of n of the timesteps, drawn with probabilities proportional to the window's weights.

    Raises:
        InputError: all weights are 0.
    """
    weights = torch.tensor([window.weight(t) for t in timesteps], dtype=torch.float64)
    if not bool((weights > 0).any()):
        raise InputError(
            f"soft window [{window.low:g}, {window.high:g}]: no timestep from 0 to 999 in it has a weight"
        )
    # multinomial needs the weights where the generator is.
    weights = weights.to(generator.device)
    return torch.multinomial(weights, n, replacement=True, generator=generator)


def _alphas_cumprod(config: Mapping[str, Any]) -> Float[Tensor, "1000"]:
    """alpha_bar of t = 0 to 999, in the arithmetic of DDIMScheduler.__init__."""
    alphas_cumprod = torch.cumprod(1.0 - _betas(config, torch.float32), dim=0)
    if config.get("rescale_betas_zero_snr"):
        rescaled = _zero_terminal_snr(alphas_cumprod)
        # DDIMScheduler converts back to betas, which changes the last bits.
        betas = 1 - torch.cat([rescaled[:1], rescaled[1:] / rescaled[:-1]])
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    return alphas_cumprod


def _shifted_alphas_cumprod(config: Mapping[str, Any]) -> Float[Tensor, "1000"]:
    """alpha_bar with the SNR divided by a number, in the arithmetic of CogVideoXDDIMScheduler.__init__."""
    config = {**SHIFTED_DEFAULTS, **config}
    alphas_cumprod = torch.cumprod(1.0 - _betas(config, torch.float64), dim=0)
    shift = config["snr_shift_scale"]
    # SNR / shift, written in alpha_bar = SNR / (1 + SNR).
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
    # Linear in sqrt(beta): the schedule of latent diffusion (Rombach et al. 2022, arXiv 2112.10752).
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=dtype) ** 2
    if kind == "squaredcos_cap_v2":
        return _cosine_betas()
    raise InputError(
        f"scheduler's beta_schedule={kind!r}: must be linear, scaled_linear or squaredcos_cap_v2 (flow"
        " matching has none: see FlowSchedule)"
    )


def _cosine_betas() -> Float[Tensor, "1000"]:
    """The cosine schedule of Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17, with betas up to 0.999."""
    ends = [math.cos((i / TIMESTEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(TIMESTEPS + 1)]
    return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(ends)])


def _zero_terminal_snr(alphas_cumprod: Float[Tensor, "1000"]) -> Float[Tensor, "1000"]:
    """alpha_bar rescaled so that it ends at 0: Lin et al. 2024, arXiv 2305.08891, algorithm 1."""
    # Shift so that the last is 0, then scale so that the first stays.
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
