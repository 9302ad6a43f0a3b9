"""The one plan of a dry run of a sweep."""

import pytest
import torch

from motionexp.config.compose import load
from motionexp.jobs import sweep_cost
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.measurement import StepSeconds
from motionexp.jobs.memory_plan import MemoryTracker, MetaRun
from motionexp.jobs.run import run
from motionexp.jobs.stated_costs import GPU, PEAKS_FP32, SHARE, StepFlops, step_flops
from motionexp.jobs.sweep_cost import plan_sweep


@pytest.fixture
def seconds(monkeypatch):
    """A training step takes 100 s, a sampling step 10 s; how often they were measured."""
    calls: list[int] = []

    def measured(job, rows):
        calls.append(rows)
        return StepSeconds(100.0, 10.0, rows, 0.0, 0.0)

    monkeypatch.setattr(sweep_cost, "measure", measured)
    return calls


def lines(capsys) -> dict[str, list[str]]:
    """The table that was printed: {first column: the others}."""
    words = [line.rsplit(maxsplit=8) for line in capsys.readouterr().out.splitlines()]
    return {line[0].strip(): line[1:] for line in words if len(line) == 9}


def test_cells_that_jobs_share_count_once_and_finished_ones_take_no_time(make, seconds, capsys):
    # Two references: 2 steps of training, then two edits in 2 sampling steps each.
    jobs = [make(tau=tau, references=2, base_model=True) for tau in (0.0, 500.0)]
    jobs += [
        make(tau=500.0, references=2, base_model=True, adapter_scale=0.5),
        make(tau=1000.0, references=2),
    ]
    assert plan_sweep(jobs) == []
    table = lines(capsys)
    # 4 adapters; three jobs sample two edits of two references. The base model is one cell for each.
    minutes = (4 * 2 * 100 + 3 * 4 * 2 * 10) / 60
    assert table["tiny"][:6] == ["4", "0", "8", "12", f"{minutes:.0f}", "min"]
    assert table["tiny, base model"][:6] == ["2", "0", "0", "4", "80", "s"]
    assert table["in all"][:4] == ["6", "0", "8", "16"]
    assert len(seconds) == 1


def test_adapters_that_a_longer_training_keeps_are_trained_once(make, seconds, capsys):
    plan_sweep([make(train_steps=5, keep_steps=[3, 4]), make(train_steps=3), make(train_steps=4)])
    assert lines(capsys)["tiny"][:3] == ["3", "0", "5"]
    # An earlier job has no adapter to find yet.
    plan_sweep([make(train_steps=3), make(train_steps=5, keep_steps=[3])])
    assert lines(capsys)["tiny"][:3] == ["2", "0", "8"]


def test_what_is_done_is_left_out(make, seconds, capsys):
    cfg = make()
    run(cfg)
    capsys.readouterr()
    assert plan_sweep([cfg, make(tau=0.0)]) == []
    printed = capsys.readouterr().out
    assert "2    1              2       2 4 min" in printed
    assert "measured" in printed
    assert "computed" not in printed


def test_each_window_of_a_sweep_says_its_steps_and_whether_it_has_none(make, seconds, capsys):
    # Two steps have t = 500 and 0.
    plan_sweep([make(tau=tau) for tau in (300.0, 700.0, 1000.0)])
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "tiny, ddim, window [300, 1000]: the adapter is on in 1 of 2 sampling steps" in printed
    assert "window [700, 1000]: none of the 2 sampling steps" in printed
    assert printed.count("the adapter is on in") == 2


def test_without_room_the_time_is_computed_and_marked_so(make, seconds, monkeypatch, capsys):
    monkeypatch.setattr(sweep_cost, "free_memory", lambda _: 0)
    rate = PEAKS_FP32[GPU] * SHARE  # of a job with precision=fp32
    monkeypatch.setattr(sweep_cost, "step_flops", lambda _: StepFlops(rate * 7, rate))
    plan_sweep([make()])
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "7 s a training step, 2 s a sampling step, computed, not measured" in printed
    assert " s of one NVIDIA H200, computed" in printed
    assert not seconds


def test_the_arithmetic_of_a_step_is_that_of_its_matrix_products():
    job = plan_job(load(["tau=700", "references=1", "precision=fp32"]))
    flops, run = step_flops(job), MetaRun(job)
    with MemoryTracker(job.device):
        caption = run.longest_caption()
    products: list[int] = []
    for module in run.backbone.network.modules():
        if isinstance(module, torch.nn.Linear):
            size = module.in_features * module.out_features
            module.register_forward_hook(
                lambda _, __, out, size=size: products.append(2 * size * out[..., 0].numel())
            )
    with torch.no_grad():
        run.backbone.predict(run.latents, 500, caption)
    # The rest is attention's own products, and a convolution in front.
    assert sum(products) < flops.forward < 1.3 * sum(products)
    # Backward through frozen layers costs as much as forward, and the adapter little.
    assert 1.7 * flops.forward < flops.training < 2.6 * flops.forward
