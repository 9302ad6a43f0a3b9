"""A dry run of a model that is not on this machine; and the times that a dry run measures."""

import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from motionexp import hub
from motionexp.config.compose import load
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError
from motionexp.jobs import dry_run, measurement
from motionexp.jobs.dry_run import plan
from motionexp.jobs.measurement import median_seconds
from motionexp.jobs.run import run


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def clip(tmp_path) -> list[str]:
    """A job on a clip of 16 frames."""
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    write_mp4(tmp_path / "clip.mp4", frames, fps=8)
    video, captions = f"video={tmp_path / 'clip.mp4'}", ["caption=a cat", 'edits=["a dog","a fox"]']
    return [video, *captions, "dry_run=true", f"output={tmp_path / 'out'}"]


def test_a_real_model_is_planned_without_weights_and_without_a_network(
    clip, offline, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2e10))
    assert plan(load(["model=latte", *clip, "precision=bf16"])) == []
    shown, errors = capfd.readouterr()
    assert "516,096 trainable parameters" in shown
    assert "23.6 GB" in shown
    assert (
        "hf download maxin-cn/Latte-1 --revision 0653024365272f061fc44d1078134df22842b687 --include" in shown
    )
    assert "time unknown" in shown
    assert "captions: not checked" in shown
    assert "this machine: " in shown
    assert "HF_HUB_CACHE" in shown
    assert errors == ""
    assert not (tmp_path / "out").exists()


def test_a_probe_is_planned_too_and_the_memory_of_the_same_job_only_once(clip, offline, monkeypatch, capsys):
    plans = []
    monkeypatch.setattr(dry_run, "memory_plan", lambda job: plans.append(job) or [SimpleNamespace(
        name="all", weights={}, computing=1, total=1, then="", ranks=1)])  # fmt: skip
    monkeypatch.setattr(dry_run, "PLANNED", {})
    plan(load(["model=latte", *clip, "probe=tampering"]))
    assert "evaluations, which are" in " ".join(capsys.readouterr().out.split())
    for tau in (0, 500):
        plan(load(["model=latte", *clip, f"tau={tau}"]))
    assert len(plans) == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("model=ltx frames=9 stg_scale=1 stg_blocks=[99]", r"stg_blocks=\[99\]"),
        ("model=ltx frames=9 tau=700 adapter={lora}", r"transformer_blocks\.0\.attn1\.to_q"),
    ],
)
def test_what_a_plan_finds_wrong_is_said_before_anything_is_fetched(
    words, problem, clip, tmp_path, monkeypatch
):
    fetched = []

    def snapshot(name, *, local_files_only, **patterns):
        if not local_files_only:
            fetched.append(name)
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    lora, layer = tmp_path / "small.safetensors", "transformer.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 8), f"{layer}.lora_B.weight": torch.ones(8, 2)}, lora)
    job = [word for word in clip if word != "dry_run=true"]
    with pytest.raises(InputError, match=problem):
        run(load([*words.format(lora=lora).split(), *job]))
    assert fetched == []
    # Without the fault the model is fetched.
    with pytest.raises(InputError, match="hf download"):
        run(load([*words.split()[:2], *job]))
    assert len(fetched) == 1


def test_a_model_without_a_stored_configuration_is_an_error(clip, offline):
    with pytest.raises(InputError, match=r"someone/model.*hf download someone/model"):
        plan(load(["model=latte", "model.path=someone/model", *clip]))


@pytest.mark.parametrize(
    ("costs", "seconds", "calls"),
    [
        ([9.0], 9.0, 1),  # one call that takes long
        ([0.5, *[0.01] * 20], 0.01, 1 + measurement.MOST_CALLS),  # the warm-up does not count
        ([0.5, 0.1, 0.3, 0.3, 0.1], 0.2, 3),  # and no call begins after the budget
    ],
)
def test_a_time_is_a_median_after_a_warm_up_within_a_budget(costs, seconds, calls, monkeypatch):
    clock, done = [0.0], []

    def work() -> torch.Tensor:
        clock[0] += costs[len(done)]
        done.append(1)
        return torch.zeros(1)

    monkeypatch.setattr(measurement, "perf_counter", lambda: clock[0])
    assert median_seconds(work) == pytest.approx(seconds)
    assert len(done) == calls
