"""Flow matching against diffusers' schedulers, and against the Gaussian for which its flow is known."""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from motionexp.diffusion.flow_matching import FlowSchedule, read_schedule
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import NoiseSchedule, Window, generator
from motionexp.errors import InputError
from tests.support.gaussian import NO_CAPTION, errors, gaussian, rms, tensors

STEPS = [1, 2, 7, 30, 50]
LTX = {"base_image_seq_len": 1024, "base_shift": 0.95, "max_image_seq_len": 4096, "max_shift": 2.05}


def of(scheduler: Any) -> FlowSchedule:
    schedule = read_schedule(json.loads(scheduler.to_json_string()))
    assert isinstance(schedule, FlowSchedule)
    return schedule


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("steps", STEPS)
def test_timesteps_equal_the_euler_schedulers(shift: float, steps: int) -> None:
    stock = FlowMatchEulerDiscreteScheduler(shift=shift)
    stock.set_timesteps(steps)
    pairs = of(stock).step_pairs(steps)
    sigmas = stock.sigmas.double() * 1000
    assert [t for t, _ in pairs] == pytest.approx(stock.timesteps.tolist(), rel=1e-6)
    assert [t_prev for _, t_prev in pairs] == pytest.approx(sigmas[1:].tolist(), rel=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("steps", STEPS)
def test_timesteps_and_labels_equal_unipcs(shift: float, steps: int) -> None:
    stock = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000
    )
    stock.set_timesteps(steps)
    schedule = of(stock)
    timesteps = schedule.timesteps(steps)
    assert timesteps == pytest.approx((stock.sigmas[:-1] * 1000).tolist(), rel=1e-6)
    assert [int(schedule.label(t)) for t in timesteps] == stock.timesteps.tolist()
    assert schedule.label(torch.tensor([0.3, 700.9])).tolist() == [0, 700]


@pytest.mark.parametrize("mu", [0.5, 2.05])
@pytest.mark.parametrize("terminal", [None, 0.1])
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_a_dynamic_shift_is_its_exponential(mu: float, terminal: float | None, steps: int) -> None:
    stock = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=terminal, **LTX)
    assert of(stock).shift == 1
    stock.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
    schedule = FlowSchedule(math.exp(mu), "even", of(stock).terminal)
    assert schedule.timesteps(steps) == pytest.approx(stock.timesteps.tolist(), rel=1e-5)
    if terminal is not None:
        # In the lowest block of a probe, which holds 0 < t <= 100.
        assert 99.9 < schedule.timesteps(steps)[-1] <= 100


@pytest.mark.parametrize("steps", [2, 7, 28, 64])
def test_linear_quadratic_sigmas_equal_mochis(steps: int) -> None:
    expected = 1000 * np.array(linear_quadratic_schedule(steps, 0.025))
    assert FlowSchedule(spacing="linear_quadratic").timesteps(steps) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("terminal", [None, 0.1])
@pytest.mark.parametrize("spacing", ["euler", "unipc", "even", "linear_quadratic"])
def test_steps_go_down_from_noise_to_clean(spacing: str, terminal: float | None) -> None:
    schedule = FlowSchedule(5.0, spacing, terminal)
    for steps in (1, 2, 49):
        pairs = schedule.step_pairs(steps)
        assert len(pairs) == steps
        assert pairs[0][0] == pytest.approx(1000, abs=0.01)
        assert pairs[-1][1] == 0
        assert all(t > t_prev for t, t_prev in pairs)
        assert all(here[1] == after[0] for here, after in pairwise(pairs))
    for steps in (0, 1001):
        with pytest.raises(InputError, match="steps="):
            schedule.timesteps(steps)


def test_a_step_equals_diffusers() -> None:
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    stock.set_timesteps(7)
    x_t, output = tensors(2)
    for (t, t_prev), label in zip(of(stock).step_pairs(7), stock.timesteps, strict=True):
        expected = stock.step(output, label, x_t).prev_sample
        torch.testing.assert_close(of(stock).step(x_t, output, t, t_prev), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [0.0, 5.5, 500, 1000, torch.tensor([3.0, 400.5, 1000.0])], ids=str)
def test_targets_lead_back_to_what_was_mixed(t: float | Tensor) -> None:
    schedule = FlowSchedule()
    x0, noise = tensors(2)
    x_t, target = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
    sigma = (torch.as_tensor(t) / 1000).expand(3).reshape(3, 1, 1, 1, 1)
    torch.testing.assert_close(x_t, (1 - sigma) * x0 + sigma * noise)
    torch.testing.assert_close(target, noise - x0)
    torch.testing.assert_close(schedule.to_x0(x_t, target, t), x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(schedule.to_epsilon(x_t, target, t), noise, rtol=1e-5, atol=1e-5)


def test_a_step_mixes_data_and_noise_anew_as_ddim_does() -> None:
    schedule, (x_t, output) = FlowSchedule(), tensors(2)
    x0, noise = schedule.to_x0(x_t, output, 700.0), schedule.to_epsilon(x_t, output, 700.0)
    got = schedule.step(x_t, output, 700.0, 420.0)
    torch.testing.assert_close(got, schedule.add_noise(x0, noise, 420.0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(schedule.step(got, output, 420.0, 700.0), x_t, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="eta="):
        schedule.step(x_t, output, 700.0, 420.0, 0.5, output)


def test_log_snr_is_that_of_the_mixture() -> None:
    schedule = FlowSchedule(shift=5.0)  # the shift says where steps are, not what noise is at t
    t = torch.tensor([0.0, 1.0, 250.0, 500.0, 999.0, 1000.0])
    expected = [math.inf, 2 * math.log(999), 2 * math.log(3), 0, -2 * math.log(999), -math.inf]
    assert schedule.log_snr(t).tolist() == pytest.approx(expected, rel=1e-6)
    assert schedule.log_snr(250).item() == pytest.approx(2 * math.log(3))
    # As a discrete schedule counts it: signal's variance over the noise's.
    discrete = NoiseSchedule.from_config(DDIMScheduler().config)
    alpha_bar = discrete.alpha_bar(600).item()
    sigma = (1 - alpha_bar) ** 0.5 / ((1 - alpha_bar) ** 0.5 + alpha_bar**0.5)
    assert schedule.log_snr(1000 * sigma).item() == pytest.approx(discrete.log_snr(600).item(), rel=1e-4)


def test_training_timesteps_are_uniform_in_the_window() -> None:
    schedule = FlowSchedule(shift=5.0)
    drawn = schedule.training_timesteps(Window(700), 20_000, generator("test"))
    assert drawn.dtype == torch.float32
    assert 700 <= drawn.min() < 700.1
    assert 999.9 < drawn.max() <= 1000
    shares = torch.histc(drawn, 10, 700, 1000) / 20_000
    assert shares.min() > 0.09
    assert shares.max() < 0.11
    assert torch.equal(drawn, schedule.training_timesteps(Window(700), 20_000, generator("test")))
    inside = schedule.training_timesteps(Window(999.5), 5, generator("test"))
    assert ((inside >= 999.5) & (inside <= 1000)).all()
    with pytest.raises(InputError, match=r"window \[1000, 1000"):
        schedule.training_timesteps(Window(1000), 4, generator("test"))


def test_training_timesteps_of_a_soft_window_are_drawn_by_its_weight() -> None:
    ramp = Window(400, 1000, ((400, 0.0), (1000, 1.0)))
    drawn = FlowSchedule(shift=5.0).training_timesteps(ramp, 20_000, generator("test"))
    assert drawn.dtype == torch.float32
    assert drawn.unique().numel() > 15_000
    for t in (500, 700, 900):
        assert (drawn >= t).double().mean().item() == pytest.approx(1 - ((t - 400) / 600) ** 2, abs=0.01)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_train_timesteps": 500}, "num_train_timesteps.* 500"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"stochastic_sampling": True}, "stochastic_sampling"),
        ({"shift": 0.0}, "shift=0"),
        ({"_class_name": "UniPCMultistepScheduler", "final_sigmas_type": "sigma_min"}, "final_sigmas_type"),
    ],
)
def test_schedules_that_are_not_computed_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FlowSchedule.from_config(config)


def test_discrete_schedules_stay_what_they_are() -> None:
    assert isinstance(read_schedule(DDIMScheduler().config), NoiseSchedule)
    unipc = json.loads(UniPCMultistepScheduler().to_json_string())
    assert isinstance(read_schedule(unipc), NoiseSchedule)
    with pytest.raises(InputError, match=r"1000\.5"):
        FlowSchedule().sigma(1000.5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("spacing", ["euler", "unipc", "even"])
def test_sampling_and_inversion_are_of_first_order(spacing: str, shift: float) -> None:
    backbone, x0 = gaussian(FlowSchedule(shift, spacing))
    steps, results = [100, 200, 400], []
    for count in steps:
        start = backbone.flow(x0, backbone.schedule.timesteps(count)[0]).float()
        sampled = sample_latents(backbone, NO_CAPTION, None, start, SamplerSettings(count, 1.0))
        results.append((rms(sampled - x0), *errors(backbone, x0, count)))
    for falling in zip(*results, strict=True):
        order = -np.polyfit(np.log(steps), np.log(falling), 1)[0]
        assert 0.8 < order < 1.15
        assert falling[-1] < 0.02


def test_noise_in_the_steps_is_refused() -> None:
    backbone, x0 = gaussian(FlowSchedule())
    with pytest.raises(InputError, match=r"eta=0\.5.* gaussian"):
        sample_latents(backbone, NO_CAPTION, None, x0, SamplerSettings(5, 1.0, eta=0.5))
    with pytest.raises(InputError, match=r"eta=0\.5"):
        invert(backbone, x0, NO_CAPTION, None, SamplerSettings(5, 1.0, eta=0.5))
