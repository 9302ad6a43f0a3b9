"""The steps of a sampling: DDIM's and Euler's by the schedule itself, the others by diffusers' schedulers.

DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095), UniPC (Zhao et al. 2023, arXiv 2302.04867) and Euler's
method in sigma (Karras et al. 2022, arXiv 2206.00364) remember earlier steps, so that a solver belongs to one
sampling. Latents are those of our schedules, of unit variance at the noisy end, for every solver.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from motionexp.diffusion.flow_matching import UNIPC_START, FlowSchedule, Schedule
from motionexp.diffusion.schedule import EVERYWHERE, FINAL, TIMESTEPS, NoiseSchedule, Window
from motionexp.errors import InputError

KINDS: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
SAMPLERS = ("ddim", *KINDS)
# diffusers' stand-in for alpha_bar = 0, whose sigma would be infinite.
LEAST_ALPHA_BAR = 2**-24


class Solver:
    """DDIM's steps, which are Euler's with flow matching.

    Attributes:
        pairs: (t, t_prev) of every step, in their order.
    """

    def __init__(self, schedule: Schedule, steps: int) -> None:
        self.schedule = schedule
        self.pairs: list[tuple[float, float]] = list(schedule.step_pairs(steps))

    @property
    def timesteps(self) -> list[float]:
        """The timestep at which each step starts, descending."""
        return [t for t, _ in self.pairs]

    def start(self, noise: Tensor) -> Tensor:
        """The latents before the first step, of unit noise."""
        return noise

    def step(
        self, x_t: Tensor, output: Tensor, number: int, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """The latents after a step.

        Args:
            x_t: before it, (B, C, F, h, w).
            output: the network's, in the schedule's prediction type.
            number: of the step, from 0; steps are taken in their order.
            eta, noise: see `NoiseSchedule.step`.
        """
        return self.schedule.step(x_t, output, *self.pairs[number], eta, noise)


class StoredSolver(Solver):
    """A solver of diffusers, with the timesteps that its scheduler has for a schedule.

    With flow matching the sigmas are those of our schedule.
    """

    def __init__(self, schedule: Schedule, steps: int, sampler: str) -> None:
        super().__init__(schedule, steps)  # which refuses a wrong number of steps
        if isinstance(schedule, FlowSchedule):
            self._scheduler = _flow_scheduler(schedule, steps, sampler)
        else:
            self._scheduler = _discrete_scheduler(schedule, steps, sampler)
            timesteps = [float(t) for t in self._scheduler.timesteps]
            self.pairs = list(zip(timesteps, [*timesteps[1:], float(FINAL)], strict=True))
        self._in_sigma = isinstance(self._scheduler, EulerDiscreteScheduler)

    def start(self, noise: Tensor) -> Tensor:
        """See `Solver.start`: Euler's noise is a little less than unit, as in diffusers."""
        if not self._in_sigma:
            return noise
        return noise * float(self._scheduler.init_noise_sigma) / self._norm(0)

    def step(
        self, x_t: Tensor, output: Tensor, number: int, eta: float = 0.0, noise: Tensor | None = None
    ) -> Tensor:
        """See `Solver.step`; eta is 0."""
        before, after = (self._norm(number), self._norm(number + 1)) if self._in_sigma else (1.0, 1.0)
        label = self._scheduler.timesteps[number]
        x_prev: Tensor = self._scheduler.step(output, label, x_t * before, return_dict=False)[0]
        return x_prev / after

    def _norm(self, number: int) -> float:
        """sqrt(1 + sigma^2): of data with noise of deviation sigma, over our latents of unit variance."""
        return float((1 + self._scheduler.sigmas[number].double() ** 2).sqrt())


def solver_of(schedule: Schedule, sampler: str, steps: int) -> Solver:
    """A new solver for one sampling; `ddim` and `euler` are one with flow matching.

    Raises:
        InputError: the schedule cannot be solved so, or `steps` is outside 1..1000.
    """
    if sampler == "ddim" or (sampler == "euler" and isinstance(schedule, FlowSchedule)):
        return Solver(schedule, steps)
    return StoredSolver(schedule, steps, sampler)


def _flow_scheduler(schedule: FlowSchedule, steps: int, sampler: str) -> Any:
    scheduler = KINDS[sampler](prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(steps)
    sigmas = torch.tensor([*schedule.timesteps(steps), 0.0], dtype=torch.float64) / TIMESTEPS
    # The logarithm of 1 - sigma has to be finite.
    scheduler.sigmas = sigmas.clamp(max=1 - UNIPC_START).float()
    scheduler.timesteps = sigmas[:-1] * TIMESTEPS
    scheduler.set_begin_index(0)
    return scheduler


def _discrete_scheduler(schedule: NoiseSchedule, steps: int, sampler: str) -> Any:
    """A scheduler with our alpha_bar, whatever schedule of betas it comes from."""
    alphas = schedule.alphas_cumprod.clamp(min=LEAST_ALPHA_BAR)
    settings: dict[str, Any] = {
        "trained_betas": (1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])).tolist(),
        "prediction_type": schedule.prediction_type,
        "timestep_spacing": schedule.timestep_spacing,
        "steps_offset": schedule.steps_offset,
    }
    if (most := schedule.clip_sample_range) is not None:
        if sampler == "euler":
            raise InputError("sampler=euler: this model clips x_0, which Euler's steps do not; take ddim")
        # Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487), as Show-1's authors have it.
        settings |= {"thresholding": True, "sample_max_value": most}
    scheduler = KINDS[sampler](**settings)
    scheduler.alphas_cumprod = alphas
    if sampler != "euler":
        scheduler.alpha_t, scheduler.sigma_t = alphas.sqrt(), (1 - alphas).sqrt()
        scheduler.lambda_t = scheduler.alpha_t.log() - scheduler.sigma_t.log()
    scheduler.set_timesteps(steps)
    if int(scheduler.timesteps[0]) >= TIMESTEPS:
        raise InputError(f"steps={steps} with steps_offset={schedule.steps_offset}: t reaches {TIMESTEPS}")
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True  # our latents are scaled already
    return scheduler


@dataclass(frozen=True)
class AdapterSteps:
    """Which of the sampling steps have an adapter on.

    Attributes:
        on: how many of the steps. steps: all of them.
        partly: how many of those that are on have a weight below 1, by a soft window.
        off_t: the timestep of the first step after these that has it off; None: there is none.
        off_log_snr: the log-SNR there, in nats.
    """

    on: int
    steps: int
    off_t: float | None = None
    off_log_snr: float | None = None
    partly: int = 0

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        sampler: str,
        steps: int,
        window: Window,
        span: Window = EVERYWHERE,
    ) -> "AdapterSteps":
        """Those of a window, of an adapter whose networks act at the timesteps `span`."""
        timesteps = solver_of(schedule, sampler, steps).timesteps
        weights = [window.weight(t) if span.contains(t) else 0.0 for t in timesteps]
        inside = [weight > 0 for weight in weights]
        partly = sum(0 < weight < 1 for weight in weights)
        after = len(inside) - inside[::-1].index(True) if any(inside) else len(inside)
        if after == len(inside):
            return cls(sum(inside), steps, partly=partly)
        t = float(timesteps[after])
        return cls(sum(inside), steps, t, float(schedule.log_snr(t)), partly)

    @property
    def fields(self) -> dict[str, float | None]:
        """As rows have them."""
        return {"steps": self.steps, "off_t": self.off_t, "off_log_snr": self.off_log_snr}

    def __str__(self) -> str:
        """As a dry run says it."""
        share = f"the adapter is on in {self.on} of {self.steps} sampling steps"
        if self.on == 0:
            return share
        if self.partly:
            share += f", in {self.partly} of them partly"
        if self.off_t is None:
            return f"{share} and stays on to the end"
        return f"{share}, and goes off at t = {_exact(self.off_t)} (log-SNR {self.off_log_snr:.2g})"


def _exact(t: float) -> str:
    """t in as few digits as tell it from a whole number: a window's end is one, and t may be just below."""
    texts = (f"{t:.{digits}f}" for digits in range(1, 7))
    return next((text for text in texts if float(text) % 1), f"{t:.0f}")
