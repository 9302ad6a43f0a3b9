"""Sampling that starts from a mixture of the inverted reference and noise: `inverted_noise=`."""

import math
from dataclasses import replace

import pytest
import torch

from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.data.select import make_reader
from motionexp.diffusion.inversion import LEAST_STEPS, invert, mixed_noise
from motionexp.diffusion.sampling import SamplerSettings, initial_noise
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs import costs, evaluation, inverted
from motionexp.jobs.costs import Rates, cell_cost
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.run import run
from motionexp.methods.lora import LoRA


def test_the_mixture_keeps_the_variance():
    stream = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 16, 16, generator=stream)
    mixed = mixed_noise(latents, noise, 0.3)
    torch.testing.assert_close(mixed, math.sqrt(0.3) * latents + math.sqrt(0.7) * noise)
    assert mixed.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(mixed_noise(latents, noise, 0), noise)
    assert torch.equal(mixed_noise(latents, noise, 1), latents)


@pytest.fixture
def starts(monkeypatch):
    """The initial latents of every batch that is sampled."""
    seen, original = [], evaluation.sample_latents

    def sample_latents(backbone, conditioning, negative, noise, *arguments, **options):
        seen.append(noise)
        return original(backbone, conditioning, negative, noise, *arguments, **options)

    monkeypatch.setattr(evaluation, "sample_latents", sample_latents)
    return seen


def test_samples_start_from_the_inverted_reference_and_noise(make, starts, monkeypatch):
    settings = {"references": "one", "base_model": True}
    plain = run(make(**settings))
    alone = starts.copy()
    starts.clear()
    rows = run(make(inverted_noise=0.25, **settings))
    # The adapter and the base model's samples are those of the job without it.
    assert {row.adapter_id for row in rows} == {row.adapter_id for row in plain}
    assert {row.sample_id for row in rows}.isdisjoint({row.sample_id for row in plain})
    assert {row.settings["inverted_noise"] for row in rows} == {0.25}
    job = plan_job(make(inverted_noise=0.25, **settings))
    backbone, (cell,) = job.backbone, job.cells
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = initial_noise(0, 0, shape)[None]
    assert len(starts) == len(cell.requests) < len(alone), "the base model's samples are stored"
    assert all(torch.equal(start, noise) for start in alone)
    # The inversion by hand, in the steps of the plan, without guidance.
    frames = torch.from_numpy(cell.reference.frames.copy())[None]
    empty, _ = backbone.guidance_pair(backbone.embed([cell.reference.caption]), backbone.embed([""]))
    steps = job.steps_of_inversion
    assert steps >= 50
    assert steps % job.sampling.sampler.steps == 0
    latents = invert(backbone, backbone.encode(frames), empty, None, SamplerSettings(steps, 1.0))
    first = max(backbone.schedule.timesteps(job.sampling.sampler.steps))
    expected = math.sqrt(0.25) * latents[first] + math.sqrt(0.75) * noise
    assert all(torch.equal(start, starts[0]) for start in starts)
    torch.testing.assert_close(starts[0], expected, atol=1e-5, rtol=1e-5)
    # Another share needs no second inversion.
    monkeypatch.setattr(inverted, "invert", None)
    run(make(inverted_noise=0.5, **settings))


def test_vmc_starts_from_latents_that_its_own_adapter_inverts(make, starts, monkeypatch):
    share = load(["method=vmc"]).inverted_noise
    assert share == 1
    vmc = {"_target_": "motionexp.methods.vmc.VMC"}
    settings = {"references": "one", "inverted_noise": share, "learning_rate": 0.01}
    run(make(**settings))
    of_base = starts.copy()
    starts.clear()
    gates, original = [], inverted.invert

    def invert(*arguments, gate):
        gates.append(gate)
        return original(*arguments, gate=gate)

    monkeypatch.setattr(inverted, "invert", invert)
    run(replace(make(**settings), method=vmc))
    (gate,) = gates
    assert gate is not None, "though the base model's latents of this reference are stored"
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert not torch.allclose(starts[0], of_base[0], atol=1e-3)


def test_a_method_that_inverts_itself_is_on_in_its_window_alone(make, monkeypatch):
    job = plan_job(make(references="one"))
    backbone, seen = job.backbone, []
    method = LoRA(backbone, Window(500))
    monkeypatch.setattr(method, "switch", lambda on, switch=method.switch: (seen.append(on), switch(on))[1])
    latents = torch.randn(1, *backbone.latent_shape(*job.size))
    caption = backbone.embed([""])
    invert(backbone, latents, caption, None, SamplerSettings(4, 1.0), gate=evaluation.gate_of(method, 1.0))
    assert seen == [False, False, True, True, False]
    method.remove()


def test_its_cost_is_in_the_plan(make, capsys):
    cfg = make(references="one", inverted_noise=1.0)
    plan(cfg)
    steps = plan_job(cfg).steps_of_inversion
    assert f"inverted latents: {steps} steps" in " ".join(capsys.readouterr().out.split())
    without = make(references="one")
    about = "one", Rates(), make_reader(cfg.data)
    assert cell_cost(cfg, *about) == cell_cost(without, *about) + LEAST_STEPS
    assert costs.LEAST_STEPS == LEAST_STEPS


def test_the_base_model_starts_from_noise(make, starts):
    rows = run(make(references="one", tau=1000.0, inverted_noise=0.5))
    assert {row.method for row in rows} == {"base"}
    assert all(start.std() > 0.9 for start in starts)
    with pytest.raises(InputError, match="inverted_noise"):
        check_effects([(make(tau=1000.0, inverted_noise=0.5), ["inverted_noise"])])


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_from_0_to_1(make, share):
    from motionexp.config.checks import check

    assert any(line.startswith("inverted_noise=") for line in check(make(inverted_noise=share)))
