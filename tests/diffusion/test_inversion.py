"""DDIM inversion against diffusers' inverse scheduler, and against the probability flow where it is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler
from torch import Tensor

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.inversion import inversion_steps, invert
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import NoiseSchedule
from motionexp.errors import InputError
from tests.support.gaussian import NO_CAPTION, GaussianBackbone, errors, gaussian, rms
from tests.support.tiny_models import tiny_backbone

CAPTION, NEGATIVE = "a red ball", "a cat"
ZERO_SNR = {"rescale_betas_zero_snr": True}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> LatteBackbone:
    return tiny_backbone(tmp_path_factory.mktemp("backbone"))


def clean_latents(backbone: Backbone, videos: int = 1) -> Tensor:
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    return torch.randn(videos, *shape, generator=torch.Generator().manual_seed(0))


# diffusers' class has no linspace, and with x_0-prediction its first step from clean latents, alpha_bar = 1,
# is 0 / 0. Everywhere else, at both ends too, it goes the way that we go.
@pytest.mark.parametrize(
    ("prediction_type", "steps", "settings"),
    [
        ("epsilon", 10, {}),
        ("epsilon", 10, {"steps_offset": 1, "set_alpha_to_one": False}),
        ("epsilon", 7, {"timestep_spacing": "trailing"}),
        ("v_prediction", 10, {"steps_offset": 1}),
        ("v_prediction", 10, {"timestep_spacing": "trailing", **ZERO_SNR}),
        ("v_prediction", 7, {"timestep_spacing": "trailing", "set_alpha_to_one": False, **ZERO_SNR}),
        ("v_prediction", 10, {"beta_schedule": "scaled_linear", "clip_sample": True}),
        ("sample", 10, {"timestep_spacing": "trailing", "set_alpha_to_one": False}),
    ],
)
def test_inversion_equals_diffusers(
    tmp_path: Path, prediction_type: str, steps: int, settings: dict[str, Any]
) -> None:
    backbone = tiny_backbone(tmp_path, prediction_type=prediction_type, **settings)
    stock = DDIMInverseScheduler(**{"clip_sample": False, "prediction_type": prediction_type, **settings})
    stock.set_timesteps(steps)
    captions, clean = backbone.embed([CAPTION]), clean_latents(backbone)
    expected, x = {}, clean
    for t in stock.timesteps:
        with torch.no_grad():
            x = stock.step(backbone.predict(x, t, captions), t, x).prev_sample
        expected[int(t)] = x
    got = invert(backbone, clean, captions, None, SamplerSettings(steps, guidance_scale=1.0))
    assert list(got) == list(expected)
    assert all(latents.isfinite().all() for latents in expected.values())
    for t, x in expected.items():
        torch.testing.assert_close(got[t], x, rtol=1e-4, atol=1e-4)


def exact_backbone(**settings: Any) -> tuple[GaussianBackbone, Tensor]:
    return gaussian(NoiseSchedule.from_config({"beta_schedule": "linear", "clip_sample": False, **settings}))


# Order 1 is approached from below, and by x_0-prediction from above: it divides by the noise of t_prev, of
# which there is little in the first steps.
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("prediction_type", "settings", "least", "most"),
    [
        ("epsilon", {}, 0.9, 1.05),
        ("v_prediction", {}, 0.85, 1.05),
        ("v_prediction", ZERO_SNR, 0.85, 1.05),
        ("v_prediction", {"set_alpha_to_one": False, "steps_offset": 1}, 0.85, 1.05),
        ("sample", {}, 0.95, 1.3),
    ],
)
def test_inversion_and_the_way_back_are_of_first_order(
    prediction_type: str, spacing: str, settings: dict[str, Any], least: float, most: float
) -> None:
    backbone, x0 = exact_backbone(prediction_type=prediction_type, timestep_spacing=spacing, **settings)
    steps = [50, 100, 200, 500]
    for falling in zip(*(errors(backbone, x0, count) for count in steps), strict=True):
        order = -np.polyfit(np.log(steps), np.log(falling), 1)[0]
        assert least < order < most
        assert falling[-1] < 0.015


@pytest.mark.parametrize("steps", [7, 30, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_each_step_undoes_the_sampling_step(spacing: str, steps: int) -> None:
    """To the last bits where the noise does not depend on x: then nothing is approximated."""
    backbone, x0 = exact_backbone(prediction_type="epsilon", timestep_spacing=spacing)
    backbone.predict = lambda x_t, t, conditioning: torch.full_like(x_t, t / 1000)  # type: ignore[method-assign]
    assert errors(backbone, x0, steps)[0] < 1e-3


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_pure_noise_is_reached_at_zero_terminal_snr(prediction_type: str) -> None:
    backbone, x0 = exact_backbone(prediction_type=prediction_type, timestep_spacing="trailing", **ZERO_SNR)
    assert backbone.schedule.alpha_bar(999) == 0
    inverted = invert(backbone, x0, NO_CAPTION, None, SamplerSettings(200, guidance_scale=1.0))
    torch.testing.assert_close(inverted[999].double(), (x0 - backbone.mean) / backbone.std, rtol=0, atol=0.15)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("caption", ["", CAPTION])
def test_guidance_is_that_of_sampling(backbone: LatteBackbone, guidance_scale: float, caption: str) -> None:
    latents = x = clean_latents(backbone, 2)
    captions, negative = backbone.embed([caption, "blue"]), backbone.embed([NEGATIVE])
    unconditional, conditional = backbone.guidance_pair(captions, negative)
    settings = SamplerSettings(5, guidance_scale)
    done = []
    got = invert(backbone, latents, captions, negative, settings, progress=lambda *step: done.append(step))
    assert list(got) == [0, 200, 400, 600, 800]
    assert done == [(count, 5) for count in range(1, 6)]
    levels = [1.0, *backbone.schedule.alphas_cumprod[list(got)].tolist()]
    for index, t in enumerate(got):
        with torch.no_grad():
            v = backbone.predict(x, t, conditional)
            if guidance_scale > 1:
                without = backbone.predict(x, t, unconditional)
                v = without + guidance_scale * (v - without)
        before, after = levels[index : index + 2]
        x0 = before**0.5 * x - (1 - before) ** 0.5 * v
        noise = before**0.5 * v + (1 - before) ** 0.5 * x
        x = after**0.5 * x0 + (1 - after) ** 0.5 * noise
        torch.testing.assert_close(got[t], x, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_inverted_is_named(backbone: LatteBackbone) -> None:
    latents, captions = clean_latents(backbone, 2), backbone.embed([CAPTION, ""])
    with pytest.raises(InputError, match=r"eta=0\.5"):
        invert(backbone, latents, captions, captions, SamplerSettings(5, eta=0.5))
    with pytest.raises(ValueError, match=r"guidance_scale=2\.0"):
        invert(backbone, latents, captions, None, SamplerSettings(5, guidance_scale=2.0))
    with pytest.raises(ValueError, match="1 captions"):
        invert(backbone, latents, captions[0], None, SamplerSettings(5, guidance_scale=1.0))


@pytest.mark.parametrize(
    ("spacing", "counts"),
    [
        ("leading", {10: 50, 20: 100, 40: 40, 50: 50, 1000: 1000}),  # 40: 80 steps are 12 timesteps, not 12.5
        ("trailing", {10: 50, 20: 60, 40: 80, 50: 50, 1000: 1000}),
        ("linspace", {10: 100, 20: 20, 40: 40, 50: 50, 1000: 1000}),  # 100 steps: 99 intervals are 9 times 11
    ],
)
def test_a_video_for_few_sampling_steps_is_inverted_in_a_multiple_of_them(
    spacing: str, counts: dict[int, int]
) -> None:
    backbone, x0 = exact_backbone(prediction_type="epsilon", timestep_spacing=spacing)
    assert {steps: inversion_steps(backbone.schedule, steps) for steps in counts} == counts

    def error(steps: int) -> float:
        """The largest distance of the inverted latents to the exact flow, at the timesteps of 10 steps."""
        inverted = invert(backbone, x0, NO_CAPTION, None, SamplerSettings(steps, guidance_scale=1.0))
        return max(rms(inverted[t] - backbone.flow(x0, t)) for t in backbone.schedule.timesteps(10))

    assert error(counts[10]) < 0.5 * error(10)
