"""The sampling loop against the stock pipeline, and the adapter's gate against a slow loop of its own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.guiders import PerturbedAttentionGuidance
from diffusers.guiders.guider_utils import rescale_noise_cfg
from torch import Tensor

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.sampling import (
    SamplerSettings,
    initial_noise,
    rescaled,
    sample_latents,
    step_generator,
)
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from tests.support.perturbed import perturbed_by_diffusers
from tests.support.tiny_families import FAMILIES, NEGATIVE
from tests.support.tiny_models import save_tiny_pipeline, tiny_backbone

CAPTIONS = ["A red ball rolls ", "a cat"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> LatteBackbone:
    return tiny_backbone(tmp_path_factory.mktemp("backbone"))


def noise(backbone: LatteBackbone, videos: int) -> Tensor:
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    return torch.stack([initial_noise(0, index, shape) for index in range(videos)])


@pytest.mark.parametrize(
    ("prediction_type", "learned_sigma", "eta", "guidance_scale"),
    [
        ("epsilon", True, 0.7, 4.0),
        ("v_prediction", False, 0.0, 4.0),
        ("v_prediction", False, 0.7, 1.0),
    ],
)
def test_samples_equal_the_stock_pipeline(
    tmp_path: Path, prediction_type: str, learned_sigma: bool, eta: float, guidance_scale: float
) -> None:
    folder = save_tiny_pipeline(tmp_path, prediction_type=prediction_type, learned_sigma=learned_sigma)
    backbone = LatteBackbone.from_pretrained(folder)
    settings = SamplerSettings(steps=6, guidance_scale=guidance_scale, eta=eta)
    start = noise(backbone, 1)
    ours = sample_latents(
        backbone,
        backbone.embed(CAPTIONS[:1]),
        backbone.embed([NEGATIVE]),
        start,
        settings,
        generator=[step_generator(0, 0)],
    )
    random = {"eta": eta, "generator": [step_generator(0, 0)]}
    expected = FAMILIES["latte"].stock(folder, start, settings, caption=CAPTIONS[0], **random)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_video_does_not_depend_on_its_batch(backbone: LatteBackbone, eta: float) -> None:
    settings, start = SamplerSettings(steps=5, guidance_scale=3.0, eta=eta), noise(backbone, 2)
    captions, negative = backbone.embed(CAPTIONS), backbone.embed([NEGATIVE])

    def sampled(rows: list[int]) -> Tensor:
        streams = [step_generator(0, row) for row in rows]
        return sample_latents(backbone, captions[rows], negative, start[rows], settings, generator=streams)

    alone = torch.cat([sampled([0]), sampled([1])])
    torch.testing.assert_close(sampled([0, 1]), alone, rtol=1e-4, atol=1e-4)


class Shift:
    """The simplest adapter: while on, it adds to the output. Records the gate's timesteps and the calls."""

    amount = 0.5

    def __init__(self, backbone: LatteBackbone, window: Window) -> None:
        self.window, self.on = window, False
        self.timesteps: list[float | None] = []
        self.calls: list[tuple[bool, int]] = []
        backbone.network.register_forward_hook(self._hook)

    def gate(self, t: float | None) -> bool:
        self.timesteps.append(t)
        self.on = t is not None and self.window.contains(t)
        return self.on

    def _hook(self, module: object, args: object, output: tuple[Tensor]) -> tuple[Tensor]:
        self.calls.append((self.on, len(output[0])))
        return (output[0] + self.amount,) if self.on else output


@pytest.fixture
def shifted(backbone: LatteBackbone) -> Iterator[Callable[[Window], Shift]]:
    yield partial(Shift, backbone)
    backbone.network._forward_hooks.clear()


SETTINGS = SamplerSettings(steps=5, guidance_scale=3.0)  # t = 800, 600, 400, 200, 0


def sample(
    backbone: LatteBackbone,
    shift: Shift | None,
    everywhere: bool = True,
    settings: SamplerSettings = SETTINGS,
    **more: Any,
) -> Tensor:
    captions, gate = (
        (backbone.embed(CAPTIONS), backbone.embed([NEGATIVE])),
        None if shift is None else shift.gate,
    )
    start, more = noise(backbone, 2), {"gate": gate, "adapter_in_unconditional": everywhere, **more}
    return sample_latents(backbone, *captions, start, settings, **more)


def by_hand(backbone: LatteBackbone, window: Window, everywhere: bool) -> Tensor:
    """The result of `sample`, branch by branch and without a gate."""
    conditioning, x_t = backbone.embed(CAPTIONS), noise(backbone, 2)
    negative, conditioning = backbone.guidance_pair(conditioning, backbone.embed([NEGATIVE]))
    for t, t_prev in backbone.schedule.step_pairs(SETTINGS.steps):
        with torch.no_grad():
            unconditional = backbone.predict(x_t, t, negative)
            conditional = backbone.predict(x_t, t, conditioning)
        if window.low <= t and window.low < 1000:
            conditional = conditional + Shift.amount
            unconditional = unconditional + Shift.amount * everywhere
        output = unconditional + SETTINGS.guidance_scale * (conditional - unconditional)
        x_t = backbone.schedule.step(x_t, output, t, t_prev)
    return x_t


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("low", [0, 400, 600.5])
def test_the_adapter_acts_in_its_window_and_branches(
    backbone: LatteBackbone, shifted: Callable[[Window], Shift], low: float, everywhere: bool
) -> None:
    expected = by_hand(backbone, Window(low), everywhere)
    shift = shifted(Window(low))
    got = sample(backbone, shift, everywhere)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    inside = [t >= low for t in (800, 600, 400, 200, 0)]
    if everywhere:
        assert shift.calls == [(on, 4) for on in inside]
        assert shift.timesteps == [800, 600, 400, 200, 0, None]
    else:
        split = [[(True, 2), (False, 2)] if on else [(False, 4)] for on in inside]
        assert shift.calls == [call for step in split for call in step]
    assert not shift.on


@pytest.mark.parametrize("everywhere", [True, False])
def test_the_empty_window_is_the_base_model_to_the_bit(
    backbone: LatteBackbone, shifted: Callable[[Window], Shift], everywhere: bool
) -> None:
    base = sample(backbone, None)
    assert torch.equal(sample(backbone, shifted(Window(1000)), everywhere), base)
    assert not torch.equal(sample(backbone, shifted(Window(0)), everywhere), base)


def test_an_adapter_is_gated_without_guidance_too(
    backbone: LatteBackbone, shifted: Callable[[Window], Shift]
) -> None:
    shift = shifted(Window(600))
    settings = SamplerSettings(steps=5, guidance_scale=1.0)
    sample_latents(backbone, backbone.embed(CAPTIONS), None, noise(backbone, 2), settings, gate=shift.gate)
    assert shift.calls == [(True, 2), (True, 2), (False, 2), (False, 2), (False, 2)]


def test_an_interrupted_sampling_leaves_the_adapter_off(
    backbone: LatteBackbone, shifted: Callable[[Window], Shift]
) -> None:
    shift = shifted(Window(0))

    def interrupt(done: int, steps: int) -> None:
        assert (done, steps) == (1, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(backbone, shift, progress=interrupt)
    assert not shift.on


STG = replace(SETTINGS, stg_scale=1.5, stg_blocks=(1,), guidance_rescale=0.7)


@torch.no_grad()
def perturbed_output(backbone: LatteBackbone, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
    skipped = [name for names in backbone.blocks[1].attentions.values() for name in names]
    with perturbed_by_diffusers(backbone.network, skipped):
        return backbone.predict(x_t, t, captions)


def stg_by_hand(backbone: LatteBackbone, window: Window, everywhere: bool) -> Tensor:
    """Samples with spatio-temporal guidance: all branches apart, and diffusers' guider joins them."""
    conditioning, x_t = backbone.embed(CAPTIONS), noise(backbone, 2)
    negative, conditioning = backbone.guidance_pair(conditioning, backbone.embed([NEGATIVE]))
    guider = PerturbedAttentionGuidance(3.0, 1.5, perturbed_guidance_layers=1, guidance_rescale=0.7)
    for t, t_prev in backbone.schedule.step_pairs(SETTINGS.steps):
        shift = Shift.amount * (window.low <= t)
        with torch.no_grad():
            unconditional = backbone.predict(x_t, t, negative) + shift * everywhere
            conditional = backbone.predict(x_t, t, conditioning) + shift
        perturbed = perturbed_output(backbone, x_t, t, conditioning) + shift
        output = guider.forward(conditional, unconditional, perturbed).pred
        x_t = backbone.schedule.step(x_t, output, t, t_prev)
    return x_t


@pytest.mark.parametrize("everywhere", [True, False])
def test_the_adapter_acts_in_all_passes_of_spatio_temporal_guidance(
    backbone: LatteBackbone, shifted: Callable[[Window], Shift], everywhere: bool
) -> None:
    expected = stg_by_hand(backbone, Window(400), everywhere)
    shift = shifted(Window(400))
    got = sample(backbone, shift, everywhere, STG)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    inside = [(True, 2), (True, 4)] if everywhere else [(True, 2), (True, 2), (False, 2)]
    assert shift.calls == 3 * inside + 2 * [(False, 2), (False, 4)]
    assert not backbone.network._forward_pre_hooks


def test_spatio_temporal_guidance_needs_no_unconditional_branch(backbone: LatteBackbone) -> None:
    """As LTX-Video's owners have it: the conditional output, and what the perturbed one lacks."""
    captions, start = backbone.embed(CAPTIONS), noise(backbone, 2)

    def without_negative(**changes: float) -> Tensor:
        return sample_latents(backbone, captions, None, start, replace(STG, guidance_scale=1.0, **changes))

    x_t = start
    for t, t_prev in backbone.schedule.step_pairs(STG.steps):
        with torch.no_grad():
            conditional = backbone.predict(x_t, t, captions)
        output = conditional + 1.5 * (conditional - perturbed_output(backbone, x_t, t, captions))
        factors = [0.7 * float(c.std() / o.std()) + 0.3 for c, o in zip(conditional, output, strict=True)]
        output = torch.stack([factor * row for factor, row in zip(factors, output, strict=True)])
        x_t = backbone.schedule.step(x_t, output, t, t_prev)
    torch.testing.assert_close(without_negative(), x_t, rtol=1e-4, atol=1e-4)
    # Where nothing is guided, there is nothing to rescale.
    plain = without_negative(stg_scale=0.0, guidance_rescale=0.0)
    assert torch.equal(without_negative(stg_scale=0.0), plain)
    assert (plain - x_t).abs().max() > 0.01


def test_blocks_to_perturb_change_nothing_at_scale_0(backbone: LatteBackbone) -> None:
    off = replace(STG, stg_scale=0.0, guidance_rescale=0.0)
    assert torch.equal(sample(backbone, None, settings=off), sample(backbone, None))
    assert (off.branches, off.rows, off.evaluations) == (2, 2, 10)
    assert (STG.branches, STG.rows, STG.evaluations, STG.batches) == (3, 2, 15, 1.5)
    with pytest.raises(InputError, match=r"block=9: .* 2 blocks"):
        sample(backbone, None, settings=replace(STG, stg_blocks=(9,)))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_rescaled_output_is_that_of_diffusers(share: float) -> None:
    conditional, output = torch.randn(2, 3, 4, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    output = output * torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1, 1)
    expected = rescale_noise_cfg(output, conditional, share)
    torch.testing.assert_close(rescaled(output, conditional, share), expected)


def test_initial_noise_belongs_to_seed_and_index() -> None:
    one = initial_noise(3, 1, (4, 4, 4, 4))
    assert torch.equal(one, initial_noise(3, 1, (4, 4, 4, 4)))
    for another in (initial_noise(3, 2, one.shape), initial_noise(1, 3, one.shape)):
        assert (one - another).abs().max() > 0.1
    assert one.std().item() == pytest.approx(1, abs=0.15)
    drawn = torch.randn(one.shape, generator=step_generator(3, 1))
    assert not torch.equal(drawn, one)


@pytest.mark.parametrize(
    "settings",
    [
        *({"steps": 0}, {"guidance_scale": 0.5}, {"eta": 1.5}, {"sampler": "heun"}, {"stg_scale": -1.0}),
        *({"stg_scale": 1.0}, {"guidance_rescale": 1.1}, {"guidance_rescale": -0.1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        SamplerSettings(**settings)  # type: ignore[arg-type]


def test_what_is_missing_is_named(backbone: LatteBackbone) -> None:
    captions, negative, start = backbone.embed(CAPTIONS), backbone.embed([NEGATIVE]), noise(backbone, 2)

    def refused(match: str, *captions: Conditioning | None, **settings: float) -> None:
        with pytest.raises(ValueError, match=match):
            sample_latents(backbone, *captions, start, SamplerSettings(2, **settings))  # type: ignore[arg-type]

    refused("1 captions", captions[0], negative)
    refused("guidance_scale=7.5", captions, None)
    refused("3 negative captions", captions, negative.repeat(3))
    refused("eta=0.5", captions, negative, eta=0.5)
    with pytest.raises(ValueError, match="1 generators"):
        sample_latents(backbone, captions, negative, start, SETTINGS, generator=[step_generator(0, 0)])
