"""Spatio-temporal guidance and rescaling in jobs: samples, ids, dry runs, costs, and wrong blocks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from motionexp.backbones.cpu_kernels import takes_fast_kernels
from motionexp.config.compose import load
from motionexp.config.sampling import beside_pipelines
from motionexp.data.select import make_reader
from motionexp.data.videos import write_mp4
from motionexp.diffusion.sampling import Guide
from motionexp.errors import InputError
from motionexp.jobs import dry_run
from motionexp.jobs.costs import Rates, cell_cost
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.memory_plan import COMPILED_BYTES, MemoryTracker, MetaRun
from motionexp.jobs.run import run

STG = {"stg_scale": 1.0, "stg_blocks": [1], "guidance_rescale": 0.7}


def test_a_job_samples_with_it_from_the_adapter_that_is_there(make):
    plain, guided = run(make(references="one")), run(make(references="one", **STG))
    assert {row.adapter_id for row in plain} == {row.adapter_id for row in guided}
    assert {row.sample_id for row in plain}.isdisjoint({row.sample_id for row in guided})
    for rows, values in ((plain, (0.0, None, 0.0)), (guided, (1.0, [1], 0.7))):
        assert {str([row.settings[name] for name in STG]) for row in rows} == {str([*values])}
    first, second = (plan_job(make(references="one", **settings)).cells[0] for settings in ({}, STG))
    for requests in zip(first.requests, second.requests, strict=True):
        frames = [
            cell.cell.read_sample(request).frames
            for cell, request in zip((first, second), requests, strict=True)
        ]
        assert not np.array_equal(*frames)


@pytest.fixture
def clip(tmp_path, monkeypatch) -> list[str]:
    """A dry run on a clip, of models that are not on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    phase = SimpleNamespace(name="all", weights={}, computing=1, total=1, then="", ranks=1)
    monkeypatch.setattr(dry_run, "memory_plan", lambda job: [phase])
    monkeypatch.setattr(dry_run, "PLANNED", {})
    write_mp4(tmp_path / "clip.mp4", np.zeros((50, 32, 32, 3), np.uint8), fps=25)
    video = [f"video={tmp_path / 'clip.mp4'}", "caption=a cat", 'edits=["a dog"]']
    return [*video, "dry_run=true", f"output={tmp_path / 'out'}", "precision=bf16"]


def test_a_dry_run_counts_the_third_evaluation(clip, capsys):
    cfg = load(["model=ltx", *clip])
    plan(cfg)
    shown = capsys.readouterr().out
    assert "stg_scale=1: 3 evaluations of the network a step" in shown
    assert "block 19" in shown
    job = plan_job(cfg)
    assert (job.batch_steps, dry_run.rows_of(job)) == (60, 2)  # 40 steps of 3 evaluations, in twos
    assert job.base is not None
    assert job.base.batch_steps == 60


@torch.no_grad()
def test_the_third_evaluation_takes_no_more_memory_than_planned(make):
    for scale in (1.0, 2.0):
        job = plan_job(make(tau=1000.0, guidance_scale=scale, **STG))
        meta = MetaRun(job)
        latents, settings = meta.latents, job.sampling.sampler
        with MemoryTracker(job.device):  # under which encoders work without values
            caption = meta.longest_caption()
        kernels = COMPILED_BYTES * takes_fast_kernels(job.device, torch.float32)
        planned = {phase.name: phase.computing for phase in meta.phases()}["sampling, 1 at once"] - kernels
        guide = Guide.of(meta.backbone, 1, caption, caption, settings)
        with MemoryTracker(job.device) as memory:
            guide.predict(latents, 500.0)
        # Both differ in a few tensors of latents alone, which the guidance adds up.
        assert planned - 1000 < memory.peak < planned + 12 * latents.nbytes


def test_costs_count_the_third_evaluation(make):
    def evaluations(**settings: object) -> float:
        cfg = make(tau=1000.0, steps=4, **settings)
        return cell_cost(cfg, "one", Rates(), make_reader(cfg.data)) / 4

    assert evaluations(**STG) == 1.5 * evaluations()
    assert evaluations(guidance_scale=1.0, **STG) == evaluations()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("model=ltx stg_blocks=[28]", r"stg_blocks=\[28\]: block=28: .*28 blocks \(0 to 27\)"),
        ("model=modelscope stg_scale=1 stg_blocks=[3]", r"stg_blocks=\[3\]: block=3: .*no motion attention"),
        ("model=modelscope stg_scale=1 stg_blocks=[12]", r"stg_blocks=\[12\]: block=12: "),
    ],
)
def test_a_block_that_the_network_lacks_is_refused_before_weights(clip, words, named):
    with pytest.raises(InputError, match=named):
        plan_job(load([*words.split(), *clip]))


def test_what_other_tools_have_to_be_given_is_said():
    assert beside_pipelines(vars(load(["model=ltx"]))) == [
        *("stg_scale=1", "stg_blocks=[19]", "guidance_rescale=0.7"),
    ]
    assert beside_pipelines(vars(load(["model=mochi"]))) == ["force_zeros_for_empty_prompt=true"]
    assert beside_pipelines(vars(load(["model=tiny_latte"]))) == []
