"""Flow matching (Lipman et al. 2023, arXiv 2210.02747), in the straight form of rectified flow.

The convention is x_t = (1 - sigma) x_0 + sigma noise with t = 1000 sigma, a float from 0 (clean) to 1000
(pure noise), and the network's output is the velocity noise - x_0 (Liu et al. 2023, arXiv 2209.03003, eq. 1;
Esser et al. 2024, arXiv 2403.03206, section 3).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.schedule import TIMESTEPS, NoiseSchedule, Window, weighted_draw
from motionexp.errors import InputError

EULER, UNIPC = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"
SPACINGS = ("euler", "unipc", "dpm", "even", "linear_quadratic")
# UniPC starts this far from pure noise, so that its logarithms stay finite.
UNIPC_START = 1e-6
# Half of Mochi's steps are spent this near to pure noise (`MochiPipeline.__call__`).
LINEAR_QUADRATIC_THRESHOLD = 0.025
# Other ways to space sigmas that diffusers' schedulers have.
REFUSED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling")


@dataclass(frozen=True)
class DynamicShift:
    """A shift whose logarithm is linear in the number of a video's tokens.

    Attributes:
        base_image_seq_len, max_image_seq_len: two numbers of tokens.
        base_shift, max_shift: the logarithm of the shift at these numbers.
    """

    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def at(self, tokens: int) -> float:
        """The shift for a number of tokens."""
        # The line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift).
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        return math.exp(self.base_shift + slope * (tokens - self.base_image_seq_len))


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """Straight paths from noise to data, and the sigmas of the sampling steps; see the module.

    The methods are those of `NoiseSchedule`: sampling, inversion, training and probes accept both classes.

    Attributes:
        shift: the sampling steps' sigmas become shift sigma / (1 + (shift - 1) sigma) (Esser et al., eq. 23).
        spacing: sigmas of N steps before the shift: `even`: 1, ... 2/N, 1/N; `euler`, `unipc` and `dpm`:
            the defaults of these schedulers of diffusers; `linear_quadratic`: Mochi's.
        terminal: after the shift, sigmas are stretched so that the last step starts here; None: no stretch.
        whole_labels: the network gets integer timesteps, rounded down as UniPC does.
        dynamic_shift: gives the shift for a video's size; see `for_tokens`. None: the shift is fixed.
    """

    shift: float = 1.0
    spacing: str = "euler"
    terminal: float | None = None
    whole_labels: bool = False
    dynamic_shift: DynamicShift | None = None
    prediction_type: ClassVar[str] = "flow"

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise InputError(f"spacing={self.spacing!r} of sigmas: one of {', '.join(SPACINGS)}")
        if not 0 < self.shift < math.inf:
            raise InputError(f"scheduler's shift={self.shift:g}: a number above 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spacing: str | None = None) -> "FlowSchedule":
        """The schedule that a diffusers scheduler's config describes (`scheduler_config.json`).

        `spacing` replaces the scheduler's spacing, for pipelines that pass their own sigmas. Of UniPC this
        class takes the sigmas and the network's timesteps, but the steps are Euler's. A shift that depends on
        the video's size (`use_dynamic_shifting`) is 1 until `for_tokens` sets it. `invert_sigmas` (Mochi)
        changes nothing here: it only reverses the direction in which sigmas are counted.

        Raises:
            InputError: this class does not compute the schedule of the config.
        """
        # 1. What this class does not compute is refused: a wrong sigma would give a wrong video, silently.
        if (count := config.get("num_train_timesteps", TIMESTEPS)) != TIMESTEPS:
            raise InputError(f"scheduler's num_train_timesteps must be {TIMESTEPS}, not {count}")
        for key in REFUSED:
            if config.get(key):
                raise InputError(f"scheduler's {key}=true is not supported; set it to false")
        unipc = config.get("_class_name") == UNIPC
        if unipc and config.get("final_sigmas_type", "zero") != "zero":
            raise InputError("scheduler's final_sigmas_type must be zero")
        dynamic = config.get("use_dynamic_shifting")
        if dynamic and config.get("time_shift_type", "exponential") != "exponential":
            raise InputError("scheduler's time_shift_type must be exponential")
        # UniPC and Euler name the shift differently.
        shift = config.get("flow_shift" if unipc else "shift", 1.0)
        # 2. The fields, with diffusers' defaults for keys that the config lacks.
        numbers = {field.name: config.get(field.name, field.default) for field in fields(DynamicShift)}
        return cls(
            shift=1.0 if dynamic else shift,
            spacing=spacing or ("unipc" if unipc else "euler"),
            terminal=config.get("shift_terminal"),
            whole_labels=unipc,
            dynamic_shift=DynamicShift(**numbers) if dynamic else None,
        )

    def for_tokens(self, tokens: int) -> "FlowSchedule":
        """The schedule for videos of a number of tokens; `self` if the shift is fixed."""
        return self if self.dynamic_shift is None else replace(self, shift=self.dynamic_shift.at(tokens))

    def sigma(self, t: float | Tensor) -> Tensor:
        """Share of noise at t, fp32, with t's shape and device. Raises InputError outside 0..1000."""
        t = torch.as_tensor(t)
        if bool((t < 0).any()) or bool((t > TIMESTEPS).any()):
            raise InputError(f"timestep {t.tolist()}: from 0 to {TIMESTEPS}")
        return (t.double() / TIMESTEPS).float()

    def log_snr(self, t: float | Tensor) -> Tensor:
        """2 ln((1 - sigma) / sigma) at t, in nats: infinite at 0, minus infinity at pure noise."""
        sigma = torch.as_tensor(t).double() / TIMESTEPS
        # log1p keeps the digits of 1 - sigma for small sigma.
        return (2 * (torch.log1p(-sigma) - torch.log(sigma))).float()

    def label(self, t: float | Tensor) -> Tensor:
        """The timestep that the network gets at t, fp32."""
        # In double: a t that is an integer up to its last bits must round to that integer.
        t = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
        return (t.floor() if self.whole_labels else t).float()

    def timesteps(self, steps: int) -> list[float]:
        """t = 1000 sigma at the start of each sampling step, descending, as the pipeline's scheduler has it.

        Raises InputError unless 1 <= steps <= 1000.
        """
        if not 1 <= steps <= TIMESTEPS:
            raise InputError(f"steps={steps}: a whole number from 1 to {TIMESTEPS}")
        sigmas = self._shifted(self._spaced(steps))
        # 1 - sigma is scaled so that the last sigma is `terminal`; the first stays 1.
        if self.terminal is not None:
            span = 1 - sigmas[-1]
            # A single step starts at pure noise: its span is 0, and there is nothing to stretch.
            sigmas = 1 - (1 - sigmas) * (1 - self.terminal) / span if span > 0 else sigmas
        if self.spacing == "unipc":
            sigmas[0] = min(sigmas[0], 1 - UNIPC_START)
        return [float(t) for t in sigmas * TIMESTEPS]

    def _spaced(self, steps: int) -> np.ndarray:
        """(steps,) sigmas before the shift, descending from 1."""
        if self.spacing == "even":
            return np.linspace(1, 1 / steps, steps)
        if self.spacing == "unipc":
            return np.linspace(1, 1 / TIMESTEPS, steps + 1)[:-1]
        if self.spacing == "dpm":
            return np.linspace(1 - 1 / TIMESTEPS, 0, steps + 1)[:-1]
        if self.spacing == "linear_quadratic":
            return 1 - _linear_quadratic(steps)
        # `euler`: that scheduler shifts its smallest sigma, spaces evenly down to it, and shifts all again.
        return np.linspace(1, self._shifted(np.array([1 / TIMESTEPS]))[0], steps)

    def _shifted(self, sigmas: np.ndarray) -> np.ndarray:
        return self.shift * sigmas / (1 + (self.shift - 1) * sigmas)

    def step_pairs(self, steps: int) -> list[tuple[float, float]]:
        """(t, t_prev) of every sampling step; t_prev is the t of the next step, and 0 for the last step."""
        timesteps = self.timesteps(steps)
        return list(zip(timesteps, [*timesteps[1:], 0.0], strict=True))

    def training_timesteps(self, window: Window, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """n timesteps, uniform in the window, fp32 on the generator's device.

        Uniform in t whatever the shift, as for discrete schedules, which keeps settings comparable. For a
        soft window the density is proportional to its weight, in 1000 parts of constant weight.

        Raises:
            InputError: the window is empty.
        """
        if window.is_empty:
            raise InputError(f"window [{window.low}, {window.high}]: no timestep in it to train at")
        # Drawn before the window's kind is looked at: hard and soft windows share these numbers.
        unit = torch.rand(n, generator=generator, device=generator.device)
        if window.knots:
            # A part of the window by its weight, then uniform within the part.
            part = (window.high - window.low) / TIMESTEPS
            centres = [window.low + part * (index + 0.5) for index in range(TIMESTEPS)]
            return window.low + part * (weighted_draw(window, centres, n, generator) + unit)
        return window.low + (window.high - window.low) * unit

    def add_noise(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """x_t = (1 - sigma) x0 + sigma noise for (B, ...); t is a number or (B,)."""
        sigma = self._scale(t, x0)
        return (1 - sigma) * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """The output that the network is trained for: the velocity noise - x0, at any t."""
        return noise - x0

    def to_x0(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The clean x_0 that an output at x_t implies."""
        return x_t - self._scale(t, x_t) * output

    def to_epsilon(self, x_t: Tensor, output: Tensor, t: float | Tensor) -> Tensor:
        """The noise that an output at x_t implies."""
        return x_t + (1 - self._scale(t, x_t)) * output

    def step(
        self,
        x_t: Tensor,
        output: Tensor,
        t: float,
        t_prev: float,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One Euler step from x_t at t to t_prev along the output, in either direction.

        It equals DDIM's step: x_0 and the noise that the output implies, mixed at t_prev (DDIM eq. 12).

        Raises:
            ValueError: eta > 0, which flow matching does not have.
        """
        if eta > 0:
            raise ValueError(f"eta={eta}: must be 0 with flow matching")
        # t is 1000 sigma: the step in sigma is negative in sampling and positive in inversion.
        return x_t + (t_prev - t) / TIMESTEPS * output

    def _scale(self, t: float | Tensor, like: Tensor) -> Tensor:
        """sigma, fp32, in a shape that multiplies (B, ...)."""
        sigma = self.sigma(t).to(like.device)
        return sigma.reshape(-1, *(1,) * (like.ndim - 1)) if sigma.ndim else sigma


Schedule = NoiseSchedule | FlowSchedule


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers scheduler's config. Raises InputError as `from_config` does."""
    return FlowSchedule.from_config(config) if is_flow(config) else NoiseSchedule.from_config(config)


def respaced(schedule: Schedule, shift: float | None, spacing: str | None) -> Schedule:
    """The schedule with another shift (of flow matching) or spacing of its sampling steps; None: as it is.

    Training draws its timesteps as before. Raises InputError for a spacing of the other kind of schedule.
    """
    if isinstance(schedule, NoiseSchedule):
        return schedule if spacing is None else replace(schedule, timestep_spacing=spacing)
    schedule = schedule if spacing is None else replace(schedule, spacing=spacing)
    return schedule if shift is None else replace(schedule, shift=shift, dynamic_shift=None)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a diffusers scheduler's config is of flow matching."""
    return config.get("_class_name") == EULER or bool(config.get("use_flow_sigmas"))


def _linear_quadratic(steps: int) -> np.ndarray:
    """(steps,) 1 - sigma: the first half linear up to the threshold, the rest on a parabola to 1.

    The parabola starts with the slope of the line.
    """
    straight = steps // 2
    if straight == 0:
        return np.zeros(steps)
    slope, curved = LINEAR_QUADRATIC_THRESHOLD / straight, steps - straight
    beyond = np.maximum(np.arange(steps) - straight, 0)
    # The parabola is 1 at the end of its `curved` steps.
    bend = (1 - LINEAR_QUADRATIC_THRESHOLD - slope * curved) / curved**2
    return slope * np.arange(steps) + bend * beyond**2
