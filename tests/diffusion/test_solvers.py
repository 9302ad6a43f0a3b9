"""Solvers against diffusers' schedulers in their own pipelines' loop, and the steps that a window holds."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from motionexp.config import schema
from motionexp.diffusion import flow_matching
from motionexp.diffusion.flow_matching import FlowSchedule, Schedule, respaced
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import SPACINGS, NoiseSchedule, Window
from motionexp.diffusion.solvers import SAMPLERS, AdapterSteps, solver_of
from motionexp.errors import InputError

KINDS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 1.2e-2}
NOISE = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def network(x_t: Tensor, t: float) -> Tensor:
    """Any smooth function of latents and timestep."""
    return 0.8 * x_t + 0.3 * torch.sin(3 * x_t + float(t) / 150)


def ours(schedule: Schedule, sampler: str, steps: int) -> Tensor:
    solver = solver_of(schedule, sampler, steps)
    x_t = solver.start(NOISE)
    for number, (t, _) in enumerate(solver.pairs):
        x_t = solver.step(x_t, network(x_t, t), number)
    return x_t


def theirs(
    scheduler: SchedulerMixin, label: Callable[[Tensor], float], *args: object, **settings: object
) -> Tensor:
    """As every pipeline of diffusers calls a scheduler."""
    scheduler.set_timesteps(*args, **settings)
    x_t = NOISE * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else NOISE
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x_t, t) if hasattr(scheduler, "scale_model_input") else x_t
        x_t = scheduler.step(network(scaled, label(t)), t, x_t).prev_sample
    return x_t


@pytest.mark.parametrize("steps", [4, 17])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", KINDS)
def test_discrete_steps_are_those_of_diffusers(
    sampler: str, spacing: str, prediction: str, steps: int
) -> None:
    config = {**BETAS, "prediction_type": prediction, "timestep_spacing": spacing, "steps_offset": 1}
    schedule = NoiseSchedule.from_config({**config, "clip_sample": False})
    only_ddim = {"clip_sample": False} if sampler == "ddim" else {}
    expected = theirs(KINDS[sampler](**config, **only_ddim), float, steps)
    torch.testing.assert_close(ours(schedule, sampler, steps), expected, rtol=1e-4, atol=1e-4)


def test_zero_terminal_snr_has_the_steps_of_diffusers() -> None:
    config = {**BETAS, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    schedule = NoiseSchedule.from_config({**config, "clip_sample": False, "rescale_betas_zero_snr": True})
    for sampler in ("euler", "dpmpp_2m", "unipc"):
        expected = theirs(KINDS[sampler](**config, rescale_betas_zero_snr=True), float, 10)
        torch.testing.assert_close(ours(schedule, sampler, 10), expected, rtol=1e-4, atol=1e-4)
    shifted = NoiseSchedule.from_config(dict(CogVideoXDDIMScheduler(**config).config))
    assert ours(shifted, "dpmpp_2m", 10).isfinite().all()


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_steps_of_flow_matching_are_those_of_diffusers(shift: float) -> None:
    euler = respaced(FlowSchedule(), shift, "euler")
    expected = theirs(FlowMatchEulerDiscreteScheduler(shift=shift), float, 12)
    torch.testing.assert_close(ours(euler, "euler", 12), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours(euler, "euler", 12), ours(euler, "ddim", 12))
    for sampler, spacing in (("dpmpp_2m", "dpm"), ("unipc", "unipc")):
        scheduler = KINDS[sampler](prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        schedule = FlowSchedule(shift, spacing)
        # diffusers cuts the timesteps that the network gets to whole numbers: the stand-in gets ours.
        labels = iter(schedule.timesteps(12))
        expected = theirs(scheduler, lambda _, labels=labels: next(labels), 12)
        torch.testing.assert_close(ours(schedule, sampler, 12), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(ours(schedule, "euler", 12), expected, atol=1e-3)
        # From pure noise, and to LTX's last sigma: no number is infinite.
        assert ours(FlowSchedule(shift, "even", terminal=0.1), sampler, 12).isfinite().all()


# Counted from the sigmas of the owners' code: steps of t >= tau.
WAN = [(40, 875, 3.0, 13), (40, 875, 12.0, 26), (40, 700, 3.0, 23), (40, 700, 12.0, 34), (50, 700, 8.0, 39)]


@pytest.mark.parametrize(("steps", "tau", "shift", "on"), WAN)
def test_a_shift_moves_the_step_at_which_a_window_ends(steps: int, tau: float, shift: float, on: int) -> None:
    schedule = respaced(FlowSchedule(3.0, "unipc", whole_labels=True), shift, None)
    window = AdapterSteps.of(schedule, "unipc", steps, Window(tau))
    assert window.on == on
    first = schedule.timesteps(steps)[on]
    assert window.off_t == first < tau
    sigma = first / 1000
    assert window.off_log_snr == pytest.approx(2 * math.log((1 - sigma) / sigma), abs=1e-4)
    # Training does not see it.
    same = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    drawn = [
        one.training_timesteps(Window(tau), 9, rng)
        for one, rng in zip((schedule, FlowSchedule()), same, strict=True)
    ]
    assert torch.equal(*drawn)


def test_windows_that_hold_all_or_none_of_the_steps_are_told() -> None:
    schedule = FlowSchedule(8.0)
    assert AdapterSteps.of(schedule, "euler", 4, Window(50)) == AdapterSteps(4, 4)
    assert AdapterSteps.of(schedule, "euler", 4, Window(0, 1)) == AdapterSteps(0, 4)
    inner = AdapterSteps.of(FlowSchedule(), "ddim", 10, Window(400, 700))
    assert (inner.on, inner.off_t) == (3, pytest.approx(334, abs=1))
    assert "0 of 4" in str(AdapterSteps(0, 4))


def test_words_tell_a_step_just_below_a_window_and_a_weight_below_1() -> None:
    # A window from 700 has the step at 699.96 off.
    for t, shown in ((699.96, "699.96"), (699.9999, "699.9999"), (500.0, "500"), (866.314, "866.3")):
        assert f"goes off at t = {shown} (" in str(AdapterSteps(1, 2, t, 0.0))
    soft = AdapterSteps.of(FlowSchedule(), "ddim", 10, Window(0, 1000, ((0.0, 0.0), (500.0, 1.0))))
    assert (soft.on, soft.partly) == (10, 5)
    assert "10 of 10 sampling steps, in 5 of them partly" in str(soft)


def test_what_a_solver_cannot_solve_is_refused() -> None:
    clipped = NoiseSchedule.from_config({**BETAS, "clip_sample": True})
    with pytest.raises(InputError, match="sampler=euler"):
        solver_of(clipped, "euler", 5)
    # The others have dynamic thresholding, as diffusers' scheduler has it.
    expected = theirs(
        DPMSolverMultistepScheduler(**BETAS, thresholding=True, timestep_spacing="leading"), float, 5
    )
    torch.testing.assert_close(ours(clipped, "dpmpp_2m", 5), expected, rtol=1e-4, atol=1e-4)
    for settings in ({"sampler": "heun"}, {"sampler": "unipc", "eta": 0.5}, {"guidance_scale": ((0, 0.5),)}):
        with pytest.raises(InputError, match=next(iter(settings)) if len(settings) == 1 else "eta=0.5"):
            SamplerSettings(**settings)


def test_guidance_by_range_and_cogvideox_s_formula() -> None:
    by_range = SamplerSettings(40, ((0.0, 3.0), (875.0, 4.0)))
    assert [by_range.scale_at(t) for t in (1000.0, 875.0, 874.9, 0.0)] == [4, 4, 3, 3]
    assert SamplerSettings(40, ((0.0, 1.0),)).branches == 1
    dynamic = SamplerSettings(50, 6.0, dynamic_guidance=True)
    for t in (999, 480, 20):
        expected = 1 + 6.0 * (1 - math.cos(math.pi * ((50 - t) / 50) ** 5.0)) / 2
        assert dynamic.scale_at(t) == pytest.approx(expected)


def test_settings_name_the_solvers_and_spacings_that_there_are() -> None:
    assert schema.SAMPLERS == SAMPLERS
    assert schema.DISCRETE_SPACINGS == SPACINGS
    assert schema.FLOW_SPACINGS == flow_matching.SPACINGS
