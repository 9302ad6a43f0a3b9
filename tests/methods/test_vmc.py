"""VMC's loss beside a slow transcription of its formula, and what its arguments refuse."""

import math

import pytest
import torch

from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.step import Step
from motionexp.methods.vmc import residual_distance
from tests.support.training_runs import attach, change


def cosine(first, second):
    product = sum(a * b for a, b in zip(first, second, strict=True))
    return product / math.sqrt(sum(a * a for a in first) * sum(b * b for b in second))


def slow_distance(predicted, true, distance):
    """1 - the mean cosine, or the mean squared difference, one number after the other."""
    batch, channels, frames, height, width = predicted.shape
    places = [(c, y, x) for c in range(channels) for y in range(height) for x in range(width)]

    def changes(latents, b, n, c, y, x):
        return (latents[b, c, n + 1, y, x] - latents[b, c, n, y, x]).item()

    if distance == "l2":
        squared = [
            (changes(predicted, b, n, *p) - changes(true, b, n, *p)) ** 2
            for b in range(batch)
            for n in range(frames - 1)
            for p in places
        ]
        return sum(squared) / len(squared)
    cosines = []
    for b in range(batch):
        if distance == "cosine":
            for n in range(frames - 1):
                cosines.append(cosine(*([changes(z, b, n, *p) for p in places] for z in (predicted, true))))
        else:
            for p in places:
                vectors = ([abs(changes(z, b, n, *p)) for n in range(frames - 1)] for z in (predicted, true))
                cosines.append(cosine(*vectors))
    return 1 - sum(cosines) / len(cosines)


@pytest.mark.parametrize("distance", ["cosine", "l2", "authors_code"])
def test_the_loss_is_its_formula(distance):
    stream = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 2, 3, 4, 2, 3, generator=stream, dtype=torch.float64)
    predicted.requires_grad_()
    value = residual_distance(predicted, true, distance)
    assert value.item() == pytest.approx(slow_distance(predicted.detach(), true, distance), abs=1e-12)
    # The gradient, by a small change of one number.
    (gradient,) = torch.autograd.grad(value, predicted)
    place = (1, 2, 1, 0, 1)
    moved = [predicted.detach().clone(), predicted.detach().clone()]
    for tensor, sign in zip(moved, (1, -1), strict=True):
        tensor[place] += sign * 1e-5
    slope = (slow_distance(moved[0], true, distance) - slow_distance(moved[1], true, distance)) / 2e-5
    assert gradient[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_what_all_frames_share_is_in_no_loss_of_cosines():
    stream = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 1, 3, 4, 2, 3, generator=stream)
    shared = torch.randn(1, 3, 1, 2, 3, generator=stream)
    plain = residual_distance(predicted, true, "cosine")
    torch.testing.assert_close(residual_distance(3 * predicted + shared, true, "cosine"), plain)


@pytest.mark.parametrize("residuals", ["noise", "frames"])
def test_a_prediction_that_is_right_has_no_loss(residuals, backbone, examples, monkeypatch):
    method = attach("vmc", backbone, Window(0), residuals=residuals)
    noise = torch.randn(examples[0].latents.shape, generator=torch.Generator().manual_seed(3))
    step = Step.noised(
        backbone.schedule, examples[0].latents, noise, torch.tensor([700]), examples[0].conditioning
    )
    monkeypatch.setattr(type(backbone), "predict", lambda *_: step.target)
    assert method.loss(step).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("settings", [{"residuals": "pixels"}, {"distance": "l1"}])
def test_other_names_are_refused(settings, backbone):
    with pytest.raises(InputError, match="="):
        attach("vmc", backbone, Window(0), **settings)
    change(attach("lora", backbone, Window(0)))  # nothing is left attached
