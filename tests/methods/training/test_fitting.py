"""What a training does to the tensors, against slow loops by hand."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from motionexp.diffusion.schedule import Window, generator
from motionexp.errors import InputError
from motionexp.methods.base import OptimizerSettings, TrainingSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Tuning, fit, start_seed
from tests.support.training_runs import SETTINGS, copied, run


def adamw_by_hand(value, gradient, moments, step, settings):
    """One step of Loshchilov and Hutter 2019, algorithm 2, on a plain tensor; moments are (first, second)."""
    (b1, b2), rate = settings.betas, settings.learning_rate
    first = b1 * moments[0] + (1 - b1) * gradient
    second = b2 * moments[1] + (1 - b2) * gradient**2
    update = (first / (1 - b1**step)) / ((second / (1 - b2**step)).sqrt() + settings.eps)
    return value - rate * (update + settings.weight_decay * value), (first, second)


def test_three_steps_of_lora_equal_a_slow_loop_without_peft_or_lightning(backbone, examples, tmp_path):
    settings = replace(SETTINGS, steps=3, optimizer=OptimizerSettings(learning_rate=1e-2, weight_decay=0.1))
    method = LoRA(backbone, Window(600), rank=2, alpha=3.0)
    method.reset(start_seed(settings.seed, examples))
    values = copied(method)
    result = fit(backbone, method, examples, settings, tmp_path, progress=False)
    ours = copied(method)
    method.remove()

    network, signal_share = backbone.network, backbone.schedule.alphas_cumprod
    modules = {name.split(".lora_")[0] for name in values}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in values.items()}
    losses = []
    for step in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        weights = {
            f"{name}.weight": network.get_submodule(name).weight
            + 3.0 / 2 * leaves[f"{name}.lora_B.weight"] @ leaves[f"{name}.lora_A.weight"]
            for name in modules
        }
        # Two noise draws a step over two references: each reference once.
        x0 = torch.cat([example.latents for example in examples])
        draws, times = (
            [generator(purpose, 5, name, step) for name in ("video 0", "video 1")]
            for purpose in ("training noise", "training timesteps")
        )
        noise = torch.stack([torch.randn(x0.shape[1:], generator=stream) for stream in draws])
        schedule = backbone.schedule
        t = torch.cat([schedule.training_timesteps(Window(600), 1, stream) for stream in times])
        assert (t >= 600).all()
        alpha_bar = signal_share[t].reshape(2, 1, 1, 1, 1)
        noisy = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
        velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0  # the tiny model's parameterisation
        loss = 0.0
        for i, example in enumerate(examples):
            text = example.conditioning.trimmed().embeds
            inputs = {
                "hidden_states": noisy[i : i + 1],
                "timestep": t[i : i + 1],
                "encoder_hidden_states": text,
            }
            output = functional_call(network, weights, (), inputs).sample
            loss = loss + (output - velocity[i : i + 1]).square().mean() / 2
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (name, value), gradient in zip(values.items(), gradients, strict=True):
            values[name], moments[name] = adamw_by_hand(
                value, gradient, moments[name], step + 1, settings.optimizer
            )
    assert result.losses == pytest.approx(losses, rel=1e-5)
    for name, value in values.items():
        # Adam's first steps are signs of gradients: rounding shows where a gradient is near zero.
        assert (ours[name] - value).abs().mean() < 2e-5, name
    assert result.trained == sum(value.numel() for value in values.values())


def test_after_training_the_method_is_off(backbone, examples, tmp_path):
    x, conditioning = examples[0].latents, examples[0].conditioning
    with torch.no_grad():
        base = backbone.predict(x, 900, conditioning)
        method = LoRA(backbone, Window(700))
        fit(backbone, method, examples, SETTINGS, tmp_path, progress=False)
        assert torch.equal(backbone.predict(x, 900, conditioning), base)
        method.set_active(900)
        assert not torch.equal(backbone.predict(x, 900, conditioning), base)


def test_at_tau_1000_nothing_is_trained_or_written(backbone, examples, tmp_path):
    result, _ = run(backbone, examples, tmp_path / "none", low=1000)
    assert (result.losses, result.trained, result.checkpoint) == ([], 0, None)
    assert not (tmp_path / "none").exists()


def test_runs_that_differ_in_tau_share_noise_and_initial_state(backbone, examples):
    drawn = {}
    for low in (0, 700):
        method = LoRA(backbone, Window(low))
        method.reset(5)
        module = Tuning(backbone, method, examples, SETTINGS)
        drawn[low] = [module.draw(step) for step in range(20)], method.state()
        method.remove()
    (low_steps, low_state), (high_steps, high_state) = drawn[0], drawn[700]
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(low_steps, high_steps, strict=True))
    assert all(torch.equal(low_state[name], high_state[name]) for name in low_state)
    assert all((step.t >= 700).all() for step in high_steps)
    assert any((step.t < 700).any() for step in low_steps)
    assert len({step.noise.sum().item() for step in low_steps}) == 20


def test_numbers_are_of_the_seed_the_reference_and_the_step(backbone, examples):
    method = LoRA(backbone, Window(0))
    settings = replace(SETTINGS, batch_size=1)

    def drawn(*chosen, seed=5):
        module = Tuning(backbone, method, chosen, replace(settings, batch_size=len(chosen), seed=seed))
        return [(step.noise, step.t) for step in map(module.draw, range(4))]

    first, second = examples
    alone, beside = drawn(first), drawn(second, first)
    for (noise, t), (both, times) in zip(alone, beside, strict=True):
        assert torch.equal(noise[0], both[1])
        assert t[0] == times[1]
        assert not torch.equal(both[0], both[1])
    assert len({noise.sum().item() for noise, _ in [*alone, *drawn(first, seed=6)]}) == 8
    assert len({t.item() for _, t in [*alone, *drawn(second), *drawn(first, seed=6)]}) > 8
    starts = [
        start_seed(5, [first]),
        start_seed(5, [second]),
        start_seed(6, [first]),
        start_seed(5, examples),
    ]
    assert len(set(starts)) == 4


def test_several_draws_of_one_reference_in_a_step_differ(backbone, examples):
    method = LoRA(backbone, Window(0))
    step = Tuning(backbone, method, examples[:1], replace(SETTINGS, batch_size=3)).draw(0)
    assert len({row.sum().item() for row in step.noise}) == len(set(step.t.tolist())) == 3


def test_references_take_turns(backbone, examples):
    method = LoRA(backbone, Window(700))
    module = Tuning(backbone, method, examples, replace(SETTINGS, batch_size=3))
    for step, turns in ((0, [0, 1, 0]), (1, [1, 0, 1])):
        drawn = module.draw(step)
        assert torch.equal(drawn.latents, torch.cat([examples[i].latents for i in turns]))
        lengths = [examples[i].conditioning.trimmed().embeds.shape[1] for i in turns]
        assert drawn.conditioning.mask.sum(dim=1).tolist() == lengths


def test_a_loss_that_is_not_finite_stops_with_step_and_seed(backbone, examples, tmp_path):
    settings = replace(SETTINGS, checkpoint_every=1, optimizer=OptimizerSettings(learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r" step \d of 8 .*seed=5, t=\[\d+, \d+\]") as caught:
        run(backbone, examples, tmp_path, settings=settings)
    step = int(str(caught.value).split("step ")[1][0])
    checkpoint = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert checkpoint["global_step"] == step - 1


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad)) + "=0"):
        TrainingSettings(**bad)
