"""Interrupted trainings go on with the same numbers, or are refused."""

import os
import signal
import tempfile
from dataclasses import replace

import pytest
import torch

from motionexp.errors import InputError, Stopped, stoppable
from motionexp.files import PARTIAL
from motionexp.methods.checkpoints import SealedFile
from tests.support.training_runs import SETTINGS, run


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


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 6}, "seed=5.* 6"), ({"steps": 9}, "steps=8"), ({"batch_size": 1}, "batch_size=2")],
)
def test_a_checkpoint_of_another_training_is_refused(change, named, backbone, examples, tmp_path):
    run(backbone, examples, tmp_path)
    with pytest.raises(InputError, match=named):
        run(backbone, examples, tmp_path, settings=replace(SETTINGS, **change))
    with pytest.raises(InputError, match=r"window=\[700, 1000.0\]"):
        run(backbone, examples, tmp_path, low=600)


@pytest.mark.parametrize("damage", [b"no checkpoint", b"", None])
def test_a_damaged_checkpoint_is_refused(damage, backbone, examples, tmp_path):
    result, _ = run(backbone, examples, tmp_path)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:3000] if damage is None else damage)
    with pytest.raises(InputError, match=r"checkpoint\.ckpt"):
        run(backbone, examples, tmp_path)


def test_no_flipped_bit_of_a_checkpoint_is_trained_on(backbone, examples, tmp_path):
    result, _ = run(backbone, examples, tmp_path)
    whole = result.checkpoint.read_bytes()
    for place in torch.randint(8 * len(whole), (100,), generator=torch.Generator().manual_seed(0)).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        result.checkpoint.write_bytes(flipped)
        with pytest.raises(InputError, match=r"checkpoint\.ckpt: damaged"):
            SealedFile().load_checkpoint(result.checkpoint)


def test_checkpoints_do_not_pass_through_the_system_s_temporary_folder(
    backbone, examples, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    leftover = tmp_path / f"{PARTIAL}killed"
    leftover.write_bytes(b"half a checkpoint")
    os.utime(leftover, (0, 0))  # of a machine that nobody sees here, long ago
    result, _ = run(backbone, examples, tmp_path)
    assert list(tmp_path.iterdir()) == [result.checkpoint]


@pytest.mark.parametrize("is_handled", [True, False])
def test_sigterm_saves_and_comes_out_with_its_code(is_handled, backbone, examples, tmp_path):
    def press(done):
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def train():
        run(backbone, examples, tmp_path, settings=replace(SETTINGS, preview_every=1), on_preview=press)

    # Outside the command Lightning's own handler stops the training after a step.
    with pytest.raises(Stopped) as caught:
        (stoppable()(train) if is_handled else train)()
    assert caught.value.code == 143
    resumed, _ = run(backbone, examples, tmp_path)
    assert resumed.resumed_from in (3, 4)
