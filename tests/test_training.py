import logging
import math
import os
import signal
import warnings
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pandas
import pytest
import torch
from torch.func import functional_call

from motionexp.backbones.latte import LatteBackbone
from motionexp.config import InputError
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.direct import Direct
from motionexp.methods.lora import LoRA
from motionexp.schedule import Window, generator, training_timesteps
from motionexp.training import Example, TrainingSettings, Tuning, fit, make_logger
from tests.tiny_models import save_tiny_pipeline

METHODS = [LoRA, Direct]
SETTINGS = TrainingSettings(steps=8, batch_size=2, seed=5, optimizer=OptimizerSettings(learning_rate=1e-2))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("tiny_latte"))
    return LatteBackbone.from_pretrained(folder, name="tiny")


@pytest.fixture
def backbone(loaded):
    return deepcopy(loaded)


@pytest.fixture(scope="module")
def examples(loaded):
    """Two references of different captions."""
    shape = loaded.latent_shape(loaded.frames, loaded.height, loaded.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    captions = ["a cat runs", "a dog is running to the left"]
    return [Example(latents[i : i + 1], loaded.embed([captions[i]])) for i in range(2)]


def run(backbone, examples, folder, method_type=LoRA, settings=SETTINGS, low=700, **kwargs):
    """Fit a new method and remove it; returns the result and the tuned tensors."""
    method = method_type(backbone, Window(low))
    try:
        result = fit(backbone, method, examples, settings, folder, progress=False, **kwargs)
        return result, {name: tensor.clone() for name, tensor in method.state().items()}
    finally:
        method.remove()


def interrupt_at(step):
    def on_preview(done):
        if done == step:
            raise KeyboardInterrupt

    return on_preview


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
    method.reset(settings.seed)
    values = {name: tensor.clone() for name, tensor in method.state().items()}
    result = fit(backbone, method, examples, settings, tmp_path, progress=False)
    ours = {name: tensor.clone() for name, tensor in method.state().items()}
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
        noise = torch.randn(x0.shape, generator=generator("training noise", 5, step))
        t = training_timesteps(Window(600), 2, generator("training timesteps", 5, step))
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


@pytest.mark.parametrize("method_type", METHODS)
def test_training_lowers_the_loss(method_type, backbone, examples, tmp_path):
    settings = replace(SETTINGS, steps=40)
    result, _ = run(backbone, examples[:1], tmp_path, method_type, settings)
    assert sum(result.losses[-10:]) < 0.95 * sum(result.losses[:10])


@pytest.mark.parametrize("method_type", METHODS)
def test_an_interrupted_run_goes_on_with_the_same_numbers(method_type, backbone, examples, tmp_path):
    whole, tensors = run(backbone, examples, tmp_path / "whole", method_type)
    settings = replace(SETTINGS, checkpoint_every=3, preview_every=1)
    on_interrupt = signal.getsignal(signal.SIGINT)
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            run(backbone, examples, tmp_path / "cut", method_type, settings, on_preview=interrupt_at(stop))
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    resumed, same = run(backbone, examples, tmp_path / "cut", method_type, replace(settings, preview_every=0))
    assert resumed.resumed_from == 5
    assert resumed.losses == whole.losses
    assert all(torch.equal(tensors[name], tensor) for name, tensor in same.items())
    again, same = run(backbone, examples, tmp_path / "cut", method_type, settings)
    assert (again.resumed_from, again.losses) == (8, whole.losses)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in same.items())


def test_a_killed_run_goes_on_from_its_last_checkpoint(backbone, examples, tmp_path):
    def die(done):
        if done == 7:
            raise MemoryError  # stands for what leaves no time to save

    whole, _ = run(backbone, examples, tmp_path / "whole")
    settings = replace(SETTINGS, checkpoint_every=3, preview_every=1)
    with pytest.raises(MemoryError):
        run(backbone, examples, tmp_path / "cut", settings=settings, on_preview=die)
    resumed, _ = run(backbone, examples, tmp_path / "cut")
    assert (resumed.resumed_from, resumed.losses) == (6, whole.losses)


def test_an_interrupt_within_an_update_saves_no_half_updated_state(backbone, examples, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step
    calls = []

    def cut_short(self, closure=None):
        calls.append(None)
        if len(calls) == 5:
            self.param_groups[0]["params"][0].data.zero_()
            raise KeyboardInterrupt
        return step(self, closure)

    whole, _ = run(backbone, examples, tmp_path / "whole")
    monkeypatch.setattr(torch.optim.AdamW, "step", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, examples, tmp_path / "cut", settings=replace(SETTINGS, checkpoint_every=2))
    monkeypatch.undo()
    resumed, _ = run(backbone, examples, tmp_path / "cut")
    assert (resumed.resumed_from, resumed.losses) == (4, whole.losses)


def test_a_real_control_c_saves_and_comes_out(backbone, examples, tmp_path):
    def press(done):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(backbone, examples, tmp_path, settings=replace(SETTINGS, preview_every=1), on_preview=press)
    resumed, _ = run(backbone, examples, tmp_path)
    assert resumed.resumed_from in (3, 4)  # the signal may arrive a step late


def test_a_checkpoint_holds_adapter_and_optimizer_alone(backbone, examples, tmp_path):
    result, tensors = run(backbone, examples, tmp_path)
    checkpoint = torch.load(result.checkpoint, weights_only=True)
    assert checkpoint["state_dict"].keys() == tensors.keys()
    assert all(torch.equal(checkpoint["state_dict"][name], tensor) for name, tensor in tensors.items())
    (optimizer,) = checkpoint["optimizer_states"]
    assert len(optimizer["state"]) == len(tensors)
    numbers = 3 * result.trained  # the tensors and AdamW's two moments
    assert result.checkpoint.stat().st_size < 4 * numbers + 40_000
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.ckpt"]


@pytest.mark.parametrize("method_type", METHODS)
def test_the_frozen_network_is_neither_changed_nor_copied(method_type, backbone, examples, tmp_path):
    network = backbone.network
    before = {name: (value.data_ptr(), value.clone()) for name, value in network.named_parameters()}
    seen = []

    def look(done):
        pointers = {value.data_ptr() for value in network.parameters()}
        seen.append(pointers >= {pointer for pointer, _ in before.values()} and not network.training)

    run(backbone, examples, tmp_path, method_type, replace(SETTINGS, preview_every=4), on_preview=look)
    assert seen == [True, True]
    for name, value in network.named_parameters():
        assert value.data_ptr() == before[name][0]
        assert torch.equal(value, before[name][1])
        assert value.grad is None


@pytest.mark.parametrize("method_type", METHODS)
def test_previews_do_not_change_the_training(method_type, backbone, examples, tmp_path):
    whole, tensors = run(backbone, examples, tmp_path / "plain", method_type)
    method = method_type(backbone, Window(700))
    seen = []

    def preview(done):
        assert not torch.is_grad_enabled()
        seen.append(done)
        method.scale = 0.5
        method.set_active(10)
        torch.manual_seed(done)

    settings = replace(SETTINGS, preview_every=3)
    result = fit(backbone, method, examples, settings, tmp_path / "with", on_preview=preview, progress=False)
    assert seen == [3, 6]
    assert result.losses == whole.losses
    assert all(torch.equal(tensors[name], tensor) for name, tensor in method.state().items())
    assert method.scale == 1.0


def test_after_training_the_method_is_off(backbone, examples, tmp_path):
    x, conditioning = examples[0].latents, examples[0].conditioning
    with torch.no_grad():
        base = backbone.predict(x, 900, conditioning)
        method = LoRA(backbone, Window(700))
        fit(backbone, method, examples, SETTINGS, tmp_path, progress=False)
        assert torch.equal(backbone.predict(x, 900, conditioning), base)
        method.set_active(900)
        assert not torch.equal(backbone.predict(x, 900, conditioning), base)


class UpThenDown(LoRA):
    """Trains B in three steps at the noisiest timesteps, then A in the rest."""

    def stages(self, optimizer, steps):
        (stage,) = super().stages(optimizer, steps)
        up, down = stage.parameters[1::2], stage.parameters[0::2]
        return [
            replace(stage, parameters=up, window=Window(900), steps=3),
            replace(stage, parameters=down, steps=steps - 3),
        ]


def test_stages_follow_each_other_and_resume(backbone, examples, tmp_path):
    method = UpThenDown(backbone, Window(0))
    states = []

    def look(done):
        states.append({name: tensor.clone() for name, tensor in method.state().items()})
        assert all(parameter.grad is None for parameter in method.parameters.values())

    settings = replace(SETTINGS, preview_every=1)
    whole = fit(backbone, method, examples, settings, tmp_path / "whole", on_preview=look, progress=False)
    method.remove()
    for done, (before, after) in enumerate(pairwise(states), start=1):
        changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"lora_B" if done < 3 else "lora_A"}
    with pytest.raises(KeyboardInterrupt):
        run(backbone, examples, tmp_path / "cut", UpThenDown, settings, low=0, on_preview=interrupt_at(5))
    resumed, tensors = run(backbone, examples, tmp_path / "cut", UpThenDown, low=0)
    assert (resumed.resumed_from, resumed.losses) == (5, whole.losses)
    assert all(torch.equal(states[-1][name], tensor) for name, tensor in tensors.items())


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
        drawn[low] = [module.draw(step, Window(low)) for step in range(20)], method.state()
        method.remove()
    (low_steps, low_state), (high_steps, high_state) = drawn[0], drawn[700]
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(low_steps, high_steps, strict=True))
    assert all(torch.equal(low_state[name], high_state[name]) for name in low_state)
    assert all((step.t >= 700).all() for step in high_steps)
    assert any((step.t < 700).any() for step in low_steps)
    assert len({step.noise.sum().item() for step in low_steps}) == 20


def test_references_take_turns(backbone, examples):
    method = LoRA(backbone, Window(700))
    module = Tuning(backbone, method, examples, replace(SETTINGS, batch_size=3))
    for step, turns in ((0, [0, 1, 0]), (1, [1, 0, 1])):
        drawn = module.draw(step, method.window)
        assert torch.equal(drawn.latents, torch.cat([examples[i].latents for i in turns]))
        lengths = [examples[i].conditioning.trimmed().embeds.shape[1] for i in turns]
        assert drawn.conditioning.mask.sum(dim=1).tolist() == lengths


def test_trained_tensors_are_fp32_on_a_bf16_network(loaded, examples, tmp_path):
    backbone = deepcopy(loaded)
    backbone.network.to(torch.bfloat16)
    backbone.dtype = torch.bfloat16
    for method_type in METHODS:
        result, tensors = run(backbone, examples, tmp_path / method_type.name, method_type)
        assert all(math.isfinite(loss) for loss in result.losses)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_with_step_and_seed(backbone, examples, tmp_path):
    settings = replace(SETTINGS, checkpoint_every=1, optimizer=OptimizerSettings(learning_rate=1e30))
    with pytest.raises(
        FloatingPointError, match=r"in training step (\d) of 8 \(seed=5, t=\[\d+, \d+\]\)"
    ) as caught:
        run(backbone, examples, tmp_path, settings=settings)
    step = int(str(caught.value).split("step ")[1][0])
    kept = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert kept["global_step"] == step - 1


@pytest.mark.parametrize(
    ("change", "says"),
    [({"seed": 6}, "seed=5, this one has 6"), ({"steps": 9}, "steps=8"), ({"batch_size": 1}, "batch_size=2")],
)
def test_a_checkpoint_of_another_training_is_refused(change, says, backbone, examples, tmp_path):
    run(backbone, examples, tmp_path)
    with pytest.raises(InputError, match=says):
        run(backbone, examples, tmp_path, settings=replace(SETTINGS, **change))
    with pytest.raises(InputError, match=r"window=\[700, 1000.0\]"):
        run(backbone, examples, tmp_path, low=600)


@pytest.mark.parametrize("damage", [b"no checkpoint", b"", None])
def test_a_damaged_checkpoint_is_refused(damage, backbone, examples, tmp_path):
    result, _ = run(backbone, examples, tmp_path)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:3000] if damage is None else damage)
    with pytest.raises(InputError, match=r"checkpoint\.ckpt: damaged: delete it to train from the start"):
        run(backbone, examples, tmp_path)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}, {"log_every": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad)) + "=0"):
        TrainingSettings(**bad)


def test_csv_has_the_losses(backbone, examples, tmp_path):
    logger = make_logger("csv", tmp_path / "log", {"tau": 700})
    settings = replace(SETTINGS, log_every=2)
    result, _ = run(backbone, examples, tmp_path, settings=settings, logger=logger)
    (file,) = (tmp_path / "log").rglob("metrics.csv")
    table = pandas.read_csv(file)
    assert table.step.tolist() == [2, 4, 6, 8]
    assert table.loss.tolist() == pytest.approx(result.losses[1::2])
    assert "tau: 700" in file.with_name("hparams.yaml").read_text()


def test_tensorboard_writes_events(backbone, examples, tmp_path):
    logger = make_logger("tensorboard", tmp_path / "log", {"tau": 700})
    run(backbone, examples, tmp_path, logger=logger)
    assert list((tmp_path / "log").rglob("events.out.tfevents.*"))


def test_wandb_writes_offline_and_leaves_no_run_behind(backbone, examples, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logger = make_logger("wandb", tmp_path / "log", {"tau": 700})
    run(backbone, examples, tmp_path, logger=logger)
    logger.experiment.finish()
    assert "WANDB_MODE" not in os.environ
    assert list((tmp_path / "log").glob("wandb/offline-run-*/run-*.wandb"))


def test_an_unknown_logger_is_refused(tmp_path):
    with pytest.raises(InputError, match="logger=neptune: one of csv, tensorboard, wandb"):
        make_logger("neptune", tmp_path / "log", {})
    assert not (tmp_path / "log").exists()


def test_it_shows_the_loss_and_nothing_of_lightnings(backbone, examples, tmp_path, capfd):
    method = LoRA(backbone, Window(700))
    level = logging.getLogger("lightning.pytorch").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(backbone, method, examples, SETTINGS, tmp_path)
    out, err = capfd.readouterr()
    assert not [str(warning.message) for warning in caught]
    assert out == ""
    assert f"loss={result.losses[-1]:.4f}" in err
    assert "8/8" in err
    assert all(line.startswith("fit:") for line in err.replace("\r", "\n").splitlines() if line)
    assert logging.getLogger("lightning.pytorch").level == level
