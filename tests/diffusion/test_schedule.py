"""Schedules and steps against diffusers' DDIMScheduler, and against closed forms where there are any."""

import json
import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from motionexp.diffusion.schedule import FINAL, NoiseSchedule, Window, generator
from motionexp.errors import InputError
from tests.support.gaussian import tensors

SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 2e-2},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 1.2e-2},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def pair(**settings: Any) -> tuple[DDIMScheduler, NoiseSchedule]:
    stock = DDIMScheduler(**{"clip_sample": False, **settings})
    return stock, NoiseSchedule.from_config(stock.config)


def cogvideox(**settings: Any) -> tuple[CogVideoXDDIMScheduler, NoiseSchedule]:
    """As CogVideoX's checkpoints have it; `clip_sample` is left true, which the stock step does not heed."""
    defaults = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    stock = CogVideoXDDIMScheduler(**{**defaults, "timestep_spacing": "trailing", **settings})
    return stock, NoiseSchedule.from_config(json.loads(stock.to_json_string()))


@pytest.mark.parametrize("name", SCHEDULES)
def test_alphas_equal_diffusers(name: str) -> None:
    stock, schedule = pair(**SCHEDULES[name])
    assert torch.equal(schedule.alphas_cumprod, stock.alphas_cumprod)


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("shift", [3.0, 1.0])
def test_shifted_alphas_equal_cogvideox(beta_schedule: str, rescaled: bool, shift: float) -> None:
    stock, schedule = cogvideox(
        beta_schedule=beta_schedule, rescale_betas_zero_snr=rescaled, snr_shift_scale=shift
    )
    assert torch.equal(schedule.alphas_cumprod, stock.alphas_cumprod.float())
    assert (schedule.alpha_bar(999) == 0) == rescaled


def test_only_cogvideox_shifts_the_snr() -> None:
    settings = {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 1.2e-2}
    plain = NoiseSchedule.from_config({"_class_name": "DDIMScheduler", "snr_shift_scale": 3.0, **settings})
    assert torch.equal(plain.alphas_cumprod, pair(**settings)[0].alphas_cumprod)
    _, shifted = cogvideox(rescale_betas_zero_snr=False)
    difference = plain.log_snr(torch.arange(1000)) - shifted.log_snr(torch.arange(1000))
    torch.testing.assert_close(difference, torch.full((1000,), math.log(3)), rtol=1e-3, atol=0)
    # The sampler of another name has the same noise.
    multistep = NoiseSchedule.from_config(json.loads(CogVideoXDPMScheduler().to_json_string()))
    assert torch.equal(multistep.alphas_cumprod, shifted.alphas_cumprod)
    bare = NoiseSchedule.from_config({"_class_name": "CogVideoXDDIMScheduler"})
    assert torch.equal(bare.alphas_cumprod, shifted.alphas_cumprod)


def test_default_schedule_has_its_closed_form() -> None:
    betas = [1e-4 + (2e-2 - 1e-4) * i / 999 for i in range(1000)]
    schedule = NoiseSchedule.from_config({"beta_schedule": "linear"})
    for t in (0, 1, 500, 999):
        log_alpha = math.fsum(math.log1p(-beta) for beta in betas[: t + 1])
        assert schedule.alpha_bar(t).item() == pytest.approx(math.exp(log_alpha), rel=1e-4)
        snr = math.exp(log_alpha) / -math.expm1(log_alpha)
        assert schedule.log_snr(t).item() == pytest.approx(math.log(snr), abs=2e-3)


@pytest.mark.parametrize("kind", [DDIMScheduler, CogVideoXDDIMScheduler])
def test_missing_keys_have_the_schedulers_defaults(kind: type[DDIMScheduler]) -> None:
    config = json.loads(kind().to_json_string())
    whole = NoiseSchedule.from_config(config)
    bare = NoiseSchedule.from_config({name: config[name] for name in ("_class_name", "beta_schedule")})
    for name in (field.name for field in fields(NoiseSchedule)):
        ours, stock = getattr(bare, name), getattr(whole, name)
        assert torch.equal(ours, stock) if isinstance(stock, Tensor) else ours == stock


def test_alpha_bar_at_the_ends_and_between() -> None:
    stock, schedule = pair(set_alpha_to_one=False)
    assert schedule.alpha_bar(FINAL) == stock.alphas_cumprod[0]
    assert pair(set_alpha_to_one=True)[1].alpha_bar(FINAL) == 1
    assert schedule.alpha_bar(1000) == 0
    assert schedule.log_snr(1000) == -math.inf
    middle = (stock.alphas_cumprod[700] + stock.alphas_cumprod[701]) / 2
    assert schedule.alpha_bar(700.5).item() == pytest.approx(middle.item())
    many = torch.tensor([[0, 999], [3, 4]])
    assert torch.equal(schedule.alpha_bar(many), stock.alphas_cumprod[many])
    for outside in (-1.5, 1000.5):
        with pytest.raises(InputError, match=str(outside)):
            schedule.alpha_bar(outside)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("steps", [1, 7, 20, 30, 50, 333])
def test_timesteps_equal_diffusers(spacing: str, offset: int, steps: int) -> None:
    stock, schedule = pair(timestep_spacing=spacing, steps_offset=offset)
    stock.set_timesteps(steps)
    assert schedule.timesteps(steps) == stock.timesteps.tolist()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_cogvideox(spacing: str) -> None:
    stock, schedule = cogvideox(timestep_spacing=spacing)
    stock.set_timesteps(7)
    assert schedule.timesteps(7) == stock.timesteps.tolist()


def test_timesteps_refuse_what_is_no_number_of_steps() -> None:
    schedule = pair()[1]
    for steps in (0, 1001):
        with pytest.raises(InputError, match="steps="):
            schedule.timesteps(steps)
        with pytest.raises(InputError, match="steps="):
            schedule.step_pairs(steps)
    with pytest.raises(InputError, match="steps_offset=1"):
        pair(steps_offset=1)[1].timesteps(1000)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    "settings",
    [{}, {"clip_sample": True, "clip_sample_range": 0.8}, {"set_alpha_to_one": False}],
    ids=["plain", "clipped", "not_to_one"],
)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_step_equals_diffusers(prediction: str, eta: float, settings: dict[str, Any], spacing: str) -> None:
    stock, schedule = pair(prediction_type=prediction, timestep_spacing=spacing, **settings)
    stock.set_timesteps(30)
    x_t, output, noise = tensors(3)
    pairs = schedule.step_pairs(30)
    for t, t_prev in (pairs[0], pairs[11], pairs[-1]):
        expected = stock.step(output, t, x_t, eta=eta, variance_noise=noise if eta else None).prev_sample
        got = schedule.step(x_t, output, t, t_prev, eta, noise if eta else None)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_step_from_zero_snr_is_finite() -> None:
    stock, schedule = pair(timestep_spacing="trailing", **SCHEDULES["zero_snr"])
    stock.set_timesteps(10)
    x_t, output, noise = tensors(3)
    expected = stock.step(output, 999, x_t).prev_sample
    torch.testing.assert_close(schedule.step(x_t, output, 999, 899), expected, rtol=1e-5, atol=1e-5)
    # With eta the stock step rounds a zero below zero and takes its root. Pure noise tells nothing of x_899
    # but v = -x_0, so that all of the rest is fresh noise.
    prev = schedule.alpha_bar(899)
    got = schedule.step(x_t, output, 999, 899, 1.0, noise)
    torch.testing.assert_close(got, -prev.sqrt() * output + (1 - prev).sqrt() * noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 30, 50])
@pytest.mark.parametrize("to_one", [True, False])
def test_step_equals_cogvideox_from_pure_noise_to_the_end(steps: int, to_one: bool) -> None:
    stock, schedule = cogvideox(set_alpha_to_one=to_one)
    stock.set_timesteps(steps)
    x_t, output = tensors(2)
    pairs = schedule.step_pairs(steps)
    assert pairs[0][0] == 999
    for t, t_prev in pairs:
        expected = stock.step(output, t, x_t).prev_sample
        got = schedule.step(x_t, output, t, t_prev)
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_step_with_eta_needs_noise() -> None:
    x_t, output = tensors(2)
    with pytest.raises(ValueError, match="eta"):
        pair()[1].step(x_t, output, 500, 480, 0.5)


def test_noise_and_velocity_equal_diffusers() -> None:
    stock, schedule = pair(prediction_type="v_prediction")
    x0, noise = tensors(2)
    t = torch.tensor([0, 321, 999])
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), stock.add_noise(x0, noise, t))
    torch.testing.assert_close(schedule.add_noise(x0, noise, 321)[1], stock.add_noise(x0, noise, t)[1])
    torch.testing.assert_close(schedule.target(x0, noise, t), stock.get_velocity(x0, noise, t))
    stock, shifted = cogvideox()
    torch.testing.assert_close(shifted.add_noise(x0, noise, t), stock.add_noise(x0, noise, t))
    torch.testing.assert_close(shifted.target(x0, noise, t), stock.get_velocity(x0, noise, t))
    assert torch.equal(shifted.add_noise(x0, noise, 999), noise)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [5, 500, torch.tensor([3, 400, 900])], ids=["early", "middle", "each"])
def test_targets_lead_back_to_what_was_mixed(prediction: str, t: int | Tensor) -> None:
    schedule = pair(prediction_type=prediction)[1]
    x0, noise = tensors(2)
    x_t, target = schedule.add_noise(x0, noise, t), schedule.target(x0, noise, t)
    torch.testing.assert_close(schedule.to_x0(x_t, target, t), x0, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(schedule.to_epsilon(x_t, target, t), noise, rtol=1e-3, atol=1e-3)


MEAN, SPREAD = 0.7, 0.3


def exact_epsilon(schedule: NoiseSchedule, x_t: Tensor, t: int) -> Tensor:
    """E[noise | x_t] where x_0 is normal with MEAN and SPREAD."""
    signal = schedule.alpha_bar(t).sqrt()
    variance = signal**2 * SPREAD**2 + 1 - signal**2
    return (1 - signal**2).sqrt() * (x_t - signal * MEAN) / variance


def test_full_eta_reaches_the_gaussians_variance() -> None:
    schedule, stream = pair()[1], torch.Generator().manual_seed(0)
    x_t = torch.randn(20_000, generator=stream)
    for t, t_prev in schedule.step_pairs(500):
        noise = torch.randn(20_000, generator=stream)
        x_t = schedule.step(x_t, exact_epsilon(schedule, x_t, t), t, t_prev, 1.0, noise)
    assert x_t.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x_t.std().item() == pytest.approx(SPREAD, rel=0.05)


def test_a_step_backwards_is_ddim_inversion() -> None:
    """Equation 2 of Baherwani et al., "Timestep-Constrained One-Shot Video Motion Customization"."""
    schedule = pair()[1]
    x_t, epsilon = tensors(2)
    low, high = schedule.alpha_bar(480), schedule.alpha_bar(500)
    step = (high / low).sqrt()
    expected = step * x_t + ((1 - high).sqrt() - step * (1 - low).sqrt()) * epsilon
    torch.testing.assert_close(schedule.step(x_t, epsilon, 480, 500), expected)


@pytest.mark.parametrize(
    ("low", "inside", "outside"),
    [(700, (700, 999, 1000), (699.999, 0)), (0, (0, 0.5, 1000), ()), (1000, (), (0, 999, 999.9, 1000))],
)
def test_window_holds_its_ends_unless_it_is_empty(
    low: float, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    window = Window(low)
    assert all(window.contains(t) for t in inside)
    assert not any(window.contains(t) for t in outside)
    assert window.is_empty == (low == 1000)


def test_window_counts_sampling_steps() -> None:
    timesteps = pair()[1].timesteps(50)
    counts = {low: Window(low).count(timesteps) for low in (0, 700, 950, 1000)}
    assert counts == {0: 50, 700: 15, 950: 2, 1000: 0}


@pytest.mark.parametrize(("low", "high"), [(-1, 1000), (700, 699), (0, 1001), (math.nan, 1000)])
def test_window_refuses_what_is_no_range(low: float, high: float) -> None:
    with pytest.raises(InputError, match="window"):
        Window(low, high)


def test_training_timesteps_are_uniform_on_the_window() -> None:
    drawn = pair()[1].training_timesteps(Window(989.5), 20_000, generator("test"))
    assert drawn.dtype == torch.int64
    assert drawn.unique().tolist() == list(range(990, 1000))
    share = torch.bincount(drawn)[990:] / 20_000
    assert share.min() > 0.09
    assert share.max() < 0.11
    assert pair()[1].training_timesteps(Window(0, 0), 5, generator("test")).tolist() == [0] * 5
    assert torch.equal(drawn, pair()[1].training_timesteps(Window(989.5), 20_000, generator("test")))


RAMP = Window(400, 1000, ((400, 0.0), (1000, 1.0)))


def test_a_soft_window_weighs_its_timesteps() -> None:
    expected = {0: 0.0, 399: 0.0, 400: 0.0, 550: 0.25, 700: 0.5, 999.4: 0.999, 1000: 1.0}
    assert {t: RAMP.weight(t) for t in expected} == pytest.approx(expected)
    assert [RAMP.contains(t) for t in (399, 400, 401, 1000)] == [False, False, True, True]
    assert RAMP.count(range(0, 1000, 100)) == 5
    edge = Window(600, 900, ((600, 0.5), (800, 1.0)))
    assert [edge.weight(t) for t in (599, 600, 700, 800, 900, 901)] == [0.0, 0.5, 0.75, 1.0, 1.0, 0.0]
    assert [Window(600, 900).weight(t) for t in (599, 600, 900, 901)] == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("low", "knots"),
    [
        (0, ((400, 0), (1000, 1))),
        (400, ((400, 0), (400, 1))),
        (400, ((400, 0), (1001, 1))),
        (400, ((400, 0), (1000, 2))),
        (400, ((400, -1), (1000, 1))),
        (400, ((400, 0), (1000, 0))),
    ],
)
def test_a_soft_window_refuses_what_is_no_weight(low: float, knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(InputError, match="soft window"):
        Window(low, 1000, knots)


def test_training_timesteps_of_a_soft_window_are_drawn_by_its_weight() -> None:
    drawn = pair()[1].training_timesteps(RAMP, 20_000, generator("test"))
    assert drawn.dtype == torch.int64
    assert drawn.min() > 400
    # Of a ramp's area the part above t is 1 - ((t - 400) / 600)^2.
    for t in (500, 700, 900):
        assert (drawn >= t).double().mean().item() == pytest.approx(1 - ((t - 400) / 600) ** 2, abs=0.01)
    soft = Window(0, 1000, ((0, 0), (999, 0), (1000, 1)))
    with pytest.raises(InputError, match=r"soft window \[0, 1000\]"):
        pair()[1].training_timesteps(soft, 4, generator("test"))


@pytest.mark.parametrize("window", [Window(1000), Window(500.2, 500.8), Window(999.5)])
def test_nothing_to_train_at(window: Window) -> None:
    with pytest.raises(InputError, match=rf"^window \[{window.low}, {window.high}\]"):
        pair()[1].training_timesteps(window, 4, generator("test"))


def test_generators_are_named() -> None:
    def draw(*keys: Any) -> float:
        return torch.rand((), generator=generator(*keys)).item()

    assert draw("noise", 0, 1) == draw("noise", 0, 1)
    keys = [("noise", 0, 1), ("noise", 0, 2), ("noise", 1, 1), ("timesteps", 0, 1), ("noise", "0, 1")]
    assert len({draw(*names) for names in keys}) == 5
    # Kept results were drawn from these numbers: another rule would make all of them irreproducible.
    assert generator("noise", 0, 1).initial_seed() == 3165834468662050353


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FlowMatchEulerDiscreteScheduler().config, "beta_schedule=None"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"beta_schedule": "linear", "num_train_timesteps": 500}, "num_train_timesteps.* 500"),
        ({"beta_schedule": "linear", "thresholding": True}, "thresholding"),
        ({"beta_schedule": "linear", "prediction_type": "flow"}, "prediction_type='flow'"),
        ({"beta_schedule": "linear", "timestep_spacing": "log"}, "timestep_spacing='log'"),
        ({"beta_schedule": "linear", "rescale_betas_zero_snr": True}, "prediction_type=epsilon"),
    ],
)
def test_schedules_that_are_not_computed_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NoiseSchedule.from_config(config)
