"""Interrupted trainings go on with the same numbers, or are refused."""

import os
import signal
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from tests.support.training_runs import METHODS, SETTINGS, interrupt_at, run


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
    # A shell lets what it starts in the background ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.mark.parametrize("method_type", METHODS)
def test_a_longer_run_passes_through_the_shorter_ones(method_type, backbone, examples, tmp_path):
    kept = {}
    method = method_type(backbone, Window(700))

    def keep(done):
        kept[len(done.losses)] = done, {name: tensor.clone() for name, tensor in method.state().items()}

    settings = replace(SETTINGS, keep_steps=(3, 5), checkpoint_every=2)
    fit(backbone, method, examples, settings, tmp_path / "long", progress=False, on_keep=keep)
    method.remove()
    assert sorted(kept) == [3, 5]
    for steps, (done, tensors) in kept.items():
        short = replace(SETTINGS, steps=steps)
        whole, own = run(backbone, examples, tmp_path / str(steps), method_type, short)
        assert (done.losses, done.trained) == (whole.losses, whole.trained)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in own.items())
