"""Customize-A-Video: what each phase trains, beside the network with its weights written out."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from motionexp.config.compose import load
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.training import fit
from tests.support.training_runs import SETTINGS, attach, copied, merged, run, stirred


def test_each_phase_is_the_network_with_its_loras_and_trains_one_of_them(backbone, step):
    original = deepcopy(backbone)
    method = stirred(attach("customize_a_video", backbone, Window(0), absorber_steps=4))
    temporal = {name: tensor.detach().clone() for name, tensor in method.parameters.items()}
    absorber = {name: tensor.detach().clone() for name, tensor in method.auxiliary.items()}
    # 1. Step 3 is in the first phase: one frame of each row, the absorber alone.
    (loss,) = method.losses(step)
    plain, errors = merged(original, absorber), []
    for row, frame in enumerate(step.random_frames("customize a video frame")):
        one = step.noisy[row : row + 1, :, frame : frame + 1]
        output = plain.predict(one, step.t[row : row + 1], step.conditioning[row])
        errors.append(output - step.target[row : row + 1, :, frame : frame + 1])
    torch.testing.assert_close(loss, torch.cat(errors).square().mean(), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert all(tensor.grad is None for tensor in method.parameters.values())
    assert all(tensor.grad is not None for tensor in method.auxiliary.values())
    # 2. After it the whole video, the absorber on and fixed.
    for tensor in method.auxiliary.values():
        tensor.grad = None
    method.absorber_steps = 3
    (loss,) = method.losses(step)
    output = merged(original, temporal | absorber).predict(step.noisy, step.t, step.conditioning)
    torch.testing.assert_close(loss, (output - step.target).square().mean(), rtol=1e-4, atol=1e-6)
    loss.backward()
    assert all(tensor.grad is not None for tensor in method.parameters.values())
    assert all(tensor.grad is None for tensor in method.auxiliary.values())
    # 3. While sampling the absorber is off.
    method.switch(True)
    with torch.no_grad():
        sampled = backbone.predict(step.noisy, step.t, step.conditioning)
        expected = merged(original, temporal).predict(step.noisy, step.t, step.conditioning)
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-5)


def test_the_first_phase_leaves_the_adapter_and_the_second_the_absorber(backbone, examples):
    states = {}
    for steps in (3, 8):
        method = attach("customize_a_video", backbone, Window(700), absorber_steps=3)
        fit(backbone, method, examples, replace(SETTINGS, steps=steps), progress=False)
        auxiliary = {name: tensor.detach().clone() for name, tensor in method.auxiliary.items()}
        states[steps] = copied(method), auxiliary
        method.remove()
    adapter, absorber = states[3]
    assert all(not tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    assert all(tensor.any() for name, tensor in absorber.items() if "lora_B" in name)
    # Not even weight decay moves the absorber in the second phase.
    assert all(torch.equal(tensor, states[8][1][name]) for name, tensor in absorber.items())
    assert all(tensor.any() for tensor in states[8][0].values())


@pytest.mark.parametrize("interrupted_at", [2, 5])
def test_a_run_that_is_interrupted_in_either_phase_resumes(interrupted_at, backbone, examples, tmp_path):
    settings, kwargs = replace(SETTINGS, checkpoint_every=interrupted_at), {"method": "customize_a_video"}
    whole, tensors = run(backbone, examples, tmp_path / "whole", settings=SETTINGS, **kwargs)
    start = replace(settings, preview_every=1)

    def stop(done):
        if done == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(backbone, examples, tmp_path, settings=start, on_preview=stop, **kwargs)
    resumed, state = run(backbone, examples, tmp_path, settings=settings, **kwargs)
    assert (resumed.resumed_from, resumed.losses) == (interrupted_at, whole.losses)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train_steps=50"], r"method\.absorber_steps=50"),
        (["train_steps=60", "keep_steps=[40]"], r"method\.absorber_steps=50: .*40"),
        (["method.absorber_steps=-1"], r"method\.absorber_steps=-1"),
        (["model=tiny_cogvideox"], "method=customize_a_video: tiny_cogvideox has no spatial"),
    ],
)
def test_what_cannot_be_trained_is_refused_without_torch(overrides, named):
    with pytest.raises(InputError, match=named):
        load(["method=customize_a_video", *overrides])
    load(["method=customize_a_video", "train_steps=50", "tau=1000"])
