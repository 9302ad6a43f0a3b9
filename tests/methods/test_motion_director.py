"""MotionDirector beside a slow transcription of its formulas, and the tensors that each path trains."""

import math
from copy import deepcopy

import pytest
import torch
from safetensors import safe_open

from motionexp.backbones.latte import LatteBackbone
from motionexp.config.compose import load
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods import motion_director
from motionexp.methods.adapters import save_adapter
from motionexp.methods.base import TrainingSettings
from motionexp.methods.motion_director import temporal_loss
from motionexp.methods.step import DrawKey, Step
from motionexp.methods.training import Tuning, fit
from tests.support.training_runs import RECIPE, attach, merged, stirred


def slow_temporal_loss(output, target, anchors):
    """The mean over all numbers, one after the other, of both terms."""
    batch, channels, frames, height, width = output.shape
    places = [(c, y, x) for c in range(channels) for y in range(height) for x in range(width)]
    plain, debiased = [], []
    for b in range(batch):
        for f in range(frames):
            for c, y, x in places:
                p, e = output[b, c, f, y, x].item(), target[b, c, f, y, x].item()
                p_a, e_a = output[b, c, anchors[b], y, x].item(), target[b, c, anchors[b], y, x].item()
                plain.append((p - e) ** 2)
                debiased.append(((math.sqrt(2) * p - p_a) - (math.sqrt(2) * e - e_a)) ** 2)
    return sum(plain) / len(plain) + sum(debiased) / len(debiased)


def test_the_temporal_loss_is_its_formula():
    stream = torch.Generator().manual_seed(0)
    output, target = torch.randn(2, 2, 3, 4, 2, 3, generator=stream, dtype=torch.float64)
    output.requires_grad_()
    anchors = [3, 1]
    value = temporal_loss(output, target, anchors)
    assert value.item() == pytest.approx(slow_temporal_loss(output, target, anchors), abs=1e-12)
    (gradient,) = torch.autograd.grad(value, output)
    for place in ((1, 2, 0, 0, 1), (0, 1, 3, 1, 2)):  # the second is in an anchor
        moved = [output.detach().clone(), output.detach().clone()]
        for tensor, sign in zip(moved, (1, -1), strict=True):
            tensor[place] += sign * 1e-5
        slope = (
            slow_temporal_loss(moved[0], target, anchors) - slow_temporal_loss(moved[1], target, anchors)
        ) / 2e-5
        assert gradient[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_each_path_is_the_network_with_its_loras_and_trains_one_of_them(backbone, step):
    original = deepcopy(backbone)
    method = stirred(attach("motion_director", backbone, Window(0)))
    temporal = {name: tensor.detach().clone() for name, tensor in method.parameters.items()}
    spatial = {name: tensor.detach().clone() for name, tensor in method.auxiliary.items()}
    frames = step.random_frames("motion director frame")
    anchors = step.random_frames("motion director anchor")
    terms = method.losses(step)
    # 1. One frame of each row; the LoRA within frames alone.
    by_hand = [
        merged(original, spatial).predict(
            step.noisy[row : row + 1, :, frame : frame + 1], step.t[row : row + 1], step.conditioning[row]
        )
        - step.target[row : row + 1, :, frame : frame + 1]
        for row, frame in enumerate(frames)
    ]
    first = next(terms)
    torch.testing.assert_close(first, torch.cat(by_hand).square().mean(), rtol=1e-4, atol=1e-6)
    first.backward()
    assert all(tensor.grad is None for tensor in method.parameters.values())
    assert all(tensor.grad is not None for tensor in method.auxiliary.values())
    # 2. The video with both; only the LoRA along time is trained.
    for tensor in method.auxiliary.values():
        tensor.grad = None
    second = next(terms)
    output = merged(original, temporal | spatial).predict(step.noisy, step.t, step.conditioning)
    torch.testing.assert_close(second, temporal_loss(output, step.target, anchors), rtol=1e-4, atol=1e-6)
    second.backward()
    assert all(tensor.grad is not None for tensor in method.parameters.values())
    assert all(tensor.grad is None for tensor in method.auxiliary.values())
    assert next(terms, None) is None
    # 3. Sampling has the LoRA along time alone.
    method.switch(True)
    with torch.no_grad():
        sampled = backbone.predict(step.noisy, step.t, step.conditioning)
        expected = merged(original, temporal).predict(step.noisy, step.t, step.conditioning)
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-5)


def test_the_adapter_file_has_the_lora_along_time_alone(backbone, tmp_path):
    method = stirred(attach("motion_director", backbone, Window(700)))
    with safe_open(save_adapter(tmp_path, backbone, method, RECIPE), framework="pt") as file:
        names = {name.removeprefix("transformer.") for name in file.keys()}  # noqa: SIM118
    assert names == set(method.parameters)
    assert all(name.startswith("temporal_transformer_blocks.") for name in names)
    assert any(".ff.net." in name for name in names)
    assert all(name.startswith("transformer_blocks.") for name in method.auxiliary)


def test_how_draws_are_put_into_batches_changes_no_random_frame(backbone, examples):
    method = attach("motion_director", backbone, Window(0))
    frames = {}
    for size, accumulate in ((4, 1), (1, 4)):
        settings = TrainingSettings(batch_size=size, accumulate=accumulate, seed=5)
        tuning = Tuning(backbone, method, examples, settings)
        frames[size] = [
            frame for numbers in tuning.batches for frame in tuning.draw(2, numbers).random_frames("a frame")
        ]
    assert frames[4] == frames[1]
    drawn = [Step.random_frames(tuning.draw(step), "a frame") for step in range(40)]
    assert {frame for row in drawn for frame in row} == set(range(examples[0].latents.shape[2]))


def test_recomputed_activations_change_no_loss(tiny_folder, backbone, examples, tmp_path):
    losses = []
    for variant in ("paper", "authors_code"):
        for network in (
            backbone,
            LatteBackbone.from_pretrained(tiny_folder, name="tiny", checkpointing=True),
        ):
            method = attach("motion_director", network, Window(700), variant=variant)
            losses.append(fit(network, method, examples, TrainingSettings(steps=3), progress=False).losses)
            method.remove()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] == pytest.approx(losses[3], rel=1e-5)
    assert losses[0] != losses[2]


def test_the_authors_code_leaves_the_appearance_out_of_a_fifth_of_the_steps(backbone, step):
    method = attach("motion_director", backbone, Window(0), variant="authors_code")
    skipped = [
        method._skips(Step(*(step.t,) * 5, step.conditioning, [DrawKey(0, "video", number, 0)]))
        for number in range(2000)
    ]
    assert sum(skipped) / len(skipped) == pytest.approx(0.2, abs=0.03)


def test_the_authors_code_drops_a_tenth_of_a_loras_output_in_training_alone(backbone, step):
    method = attach("motion_director", backbone, Window(0), variant="authors_code")
    hook, ones = method._dropout("layer"), torch.ones(6, 5, 400)
    assert torch.equal(hook(None, (), ones), ones)
    method._dropped = ("temporal", step)
    dropped = hook(None, (), ones)
    assert torch.equal(dropped, hook(None, (), ones)), "the recomputed pass drops the same numbers"
    assert (dropped == 0).double().mean().item() == pytest.approx(0.1, abs=0.01)
    torch.testing.assert_close(dropped[dropped > 0].unique(), torch.tensor([1 / 0.9]))
    # A row's numbers come from its own key: the first three rows of the output belong to the first.
    method._dropped = ("temporal", step.rows([0]))
    assert torch.equal(hook(None, (), ones[:3]), dropped[:3])


@pytest.mark.parametrize("skipped", [True, False])
def test_the_authors_code_trains_without_the_spatial_lora_where_it_is_left_out(
    skipped, backbone, step, monkeypatch
):
    original = deepcopy(backbone)
    method = stirred(attach("motion_director", backbone, Window(0), variant="authors_code"))
    monkeypatch.setattr(method, "_skips", lambda step: skipped)

    def of_video() -> torch.Tensor:
        with torch.no_grad():
            *frames, video = method.losses(step)
        assert len(frames) == (not skipped)
        return video

    with_dropout = of_video()
    monkeypatch.setattr(motion_director, "DROPOUT", 0.0)
    tensors = {**method.parameters} if skipped else {**method.parameters, **method.auxiliary}
    output = merged(original, tensors).predict(step.noisy, step.t, step.conditioning)
    expected = temporal_loss(output, step.target, step.random_frames("motion director anchor"))
    torch.testing.assert_close(of_video(), expected, rtol=1e-4, atol=1e-6)
    assert abs(with_dropout - expected) > 1e-3 * expected, "numbers of the LoRAs' outputs are dropped"


def test_an_untrained_a_of_the_authors_code_has_their_deviation(backbone):
    method = attach("motion_director", backbone, Window(0), variant="authors_code", rank=8, alpha=8.0)
    downs = [tensor.flatten() for name, tensor in method.state().items() if "lora_A" in name]
    assert torch.cat(downs).std().item() == pytest.approx(1 / 8, rel=0.05)


def test_what_it_cannot_do_is_refused(backbone, monkeypatch):
    with pytest.raises(InputError, match=r"method\.variant=other"):
        attach("motion_director", backbone, Window(0), variant="other")
    monkeypatch.setattr(LatteBackbone, "attentions", ("motion",))
    with pytest.raises(InputError, match="method=motion_director: tiny has no spatial attention"):
        attach("motion_director", backbone, Window(0))
    attach("lora", backbone, Window(0)).remove()
    with pytest.raises(InputError, match="method=motion_director: wan_1_3b has no spatial"):
        load(["model=wan_1_3b", "method=motion_director"])
    load(["model=wan_1_3b", "method=motion_director", "tau=1000"])
