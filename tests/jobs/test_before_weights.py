"""What a job finds out before the network is loaded, and in which order its parts come and go."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from motionexp.backbones.checkpoint import load_part
from motionexp.config.schema import BUNDLED
from motionexp.config.scoring import ScoringConfig
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs import dry_run, memory_plan
from motionexp.jobs import job as job_module
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.job import Job
from motionexp.jobs.run import run
from motionexp.metrics.encoders import OpenClip
from tests.support.kept_results import cells
from tests.support.tiny_models import save_tiny_pipeline

SCORING = ScoringConfig(clip=str(BUNDLED / "clip"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts in the order in which their weights are read."""
    parts: list[str] = []

    def load(kind, folder, *how):  # type: ignore[no-untyped-def]
        parts.append(folder.name)
        return load_part(kind, folder, *how)

    monkeypatch.setattr("motionexp.backbones.parts.load_part", load)
    return parts


def test_a_clip_that_does_not_exist_is_refused_before_weights_are_loaded(make, loaded):
    cfg = make(metrics=["text_alignment"], scoring=ScoringConfig(clip="ViT-B-32/nope"))
    with pytest.raises(InputError, match=r"clip=ViT-B-32/nope"):
        run(cfg)
    assert not loaded


@pytest.mark.parametrize("changes", [{}, {"metrics": ["text_alignment", "motion_fidelity"]}])
def test_videos_too_small_for_tracks_are_refused_before_weights_are_loaded(make, loaded, changes):
    cfg = make(**{"metrics": None, "scoring": SCORING} | changes)
    with pytest.raises(InputError, match=r"metrics=\[.*motion_fidelity.*: tracks .* 18 pixels .* 16 x 16"):
        run(cfg)
    assert not loaded
    # A probe follows no points.
    assert plan_job(replace(cfg, probe="tampering", probe_steps=10, memory_limit=1.0)).probe


def test_a_caption_too_long_for_the_metrics_is_refused_before_weights_are_loaded(make, loaded, monkeypatch):
    monkeypatch.setattr(OpenClip, "embed_captions", _refuse)
    with pytest.raises(InputError, match="too long"):
        run(make(metrics=["text_alignment"], scoring=SCORING))
    assert not loaded


def _refuse(self: OpenClip, captions: list[str]) -> torch.Tensor:
    raise InputError(f"caption {captions[0]!r} is too long")


def test_what_scores_waits_in_main_memory_while_a_cell_is_made(make, monkeypatch):
    moved: list[str] = []
    clip_to = OpenClip.to

    def to(self: OpenClip, device: torch.device) -> None:
        moved.append(device.type)
        clip_to(self, torch.device("cpu"))

    def fit(*args, **kwargs):  # type: ignore[no-untyped-def]
        moved.append("fit")
        return trained(*args, **kwargs)

    trained = job_module.fit
    monkeypatch.setattr(OpenClip, "to", to)
    monkeypatch.setattr(job_module, "fit", fit)
    cfg = make(references=["one", "two"], metrics=["frame_consistency"], scoring=SCORING)
    job = Job(cfg, Console())
    job.check_scoring()
    job.encode()
    for cell in job.plan.cells:
        job.run_cell(cell)
    assert moved == ["fit", "cpu", "cpu", "fit", "cpu", "cpu"]


def test_with_a_kept_adapter_the_network_is_loaded_after_the_text_encoder_is_gone(make, loaded):
    cfg = make()
    run(cfg)
    (cell,) = cells(cfg)
    loaded.clear()
    run(replace(cfg, adapter=str(cell / "adapter"), tau=None, edits=["one green"]))
    assert loaded.index("text_encoder") < loaded.index("transformer")


def test_an_adapter_of_other_weights_is_refused_before_weights_are_loaded(make, loaded, tmp_path):
    cfg = make()
    run(cfg)
    (cell,) = cells(cfg)
    loaded.clear()
    weights = save_tiny_pipeline(tmp_path / "others", seed=1)
    elsewhere = replace(
        cfg, adapter=str(cell / "adapter"), tau=None, model=replace(cfg.model, path=str(weights))
    )
    with pytest.raises(InputError, match=r"adapter=.* tiny .*weights"):
        run(elsewhere)
    assert not loaded


def test_a_plan_of_what_does_not_fit_loads_nothing_and_says_that_the_time_is_unknown(
    make, loaded, monkeypatch, capsys
):
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 1e3)
    assert "1.0 kB" in plan(make())[0]
    assert "unknown" in capsys.readouterr().out
    assert not loaded
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 1e12)
    plan(make())
    assert "unknown" not in capsys.readouterr().out


def test_a_plan_has_the_memory_of_the_window_that_is_trained(make, monkeypatch):
    windows: list[Window] = []
    job = plan_job(make(tau=200.0, tau_high=800.0))
    kind = memory_plan.get_object(job.tuning["_target_"])

    def method(backbone, window, **settings):  # type: ignore[no-untyped-def]
        windows.append(window)
        return kind(backbone, window, **settings)

    monkeypatch.setattr(memory_plan, "get_object", lambda target: method)
    memory_plan.memory_plan(job)
    assert windows == [Window(200, 800)]
