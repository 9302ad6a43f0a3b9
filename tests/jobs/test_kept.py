"""Jobs of one process share a backbone and a scorer, and nothing of what an earlier job left in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from motionexp.backbones.checkpoint import load_part
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.kept import drop_kept, keeping, kept
from motionexp.jobs.run import run


def test_a_value_is_kept_for_equal_settings_alone_and_within_the_outermost_context():
    made = iter("abcdef")

    def value(settings):
        return kept("backbone", settings, lambda: next(made))

    with keeping():
        with keeping():
            assert [value([1]), value([1]), value([2]), value([1])] == ["a", "a", "b", "c"]
        assert value([1]) == "c"
        drop_kept()
        assert value([1]) == "d"
    assert value([1]) == "e"


def test_a_value_goes_before_the_next_one_is_made():
    class Large:
        alive = 0

        def __init__(self):
            assert Large.alive == 0
            Large.alive += 1

        def __del__(self):
            Large.alive -= 1

    with keeping():
        for number in range(3):
            kept("scorer", number, Large)


@pytest.fixture
def loads(monkeypatch):
    """The parts of models that are loaded, in order."""
    parts, load = [], load_part

    def loading(kind, folder, *rest):
        parts.append(folder.name)
        return load(kind, folder, *rest)

    monkeypatch.setattr("motionexp.backbones.parts.load_part", loading)
    return parts


def test_jobs_of_a_sweep_load_a_network_once_and_encoders_where_something_is_new(make, loads):
    jobs = [make(tau=tau, edits=["a square"]) for tau in (0.0, 500.0)]
    with keeping():
        for cfg in jobs:
            run(cfg)
        assert loads.count("transformer") == loads.count("text_encoder") == loads.count("vae") == 1
        run(make(tau=0.0, edits=["a dog"]))
    assert loads.count("transformer") == loads.count("text_encoder") == 2
    # The reference's latents are stored: of the VAE the decoder alone is read again, which is no whole part.
    assert loads.count("vae") == 1


def test_samples_are_those_of_a_job_that_runs_alone(make, tmp_path):
    first, second = make(tau=0.0, output=str(tmp_path / "a")), make(tau=500.0, output=str(tmp_path / "a"))
    with keeping():
        run(first)
        run(second)
    run(replace(second, output=str(tmp_path / "b")))
    # The exact frames: an encoded video of equal frames differs once in a hundred times.
    alone = {
        path.relative_to(tmp_path / "b"): np.load(path) for path in (tmp_path / "b").rglob("media/*.npz")
    }
    assert alone
    for path, content in alone.items():
        assert np.array_equal(np.load(tmp_path / "a" / path)["frames"], content["frames"])


def test_another_precision_is_another_backbone(make, loads):
    with keeping():
        run(make(precision="fp32"))
        run(make(precision="bf16"))
    assert loads.count("transformer") == 2


def test_unloaded_parts_are_loaded_again(make, loads):
    cfg = make()
    with keeping():
        backbone = plan_job(cfg).backbone
        assert plan_job(cfg).backbone is backbone
        embedded = backbone.embed(["a cat"]).embeds
        backbone.release_text_encoder()
        backbone.release_vae_encoder()
        with pytest.raises(RuntimeError):
            backbone.embed(["a cat"])
        network = backbone.network
        backbone.unload()
        assert torch.equal(backbone.embed(["a cat"]).embeds, embedded)
        assert backbone.network is not network
    assert loads == ["text_encoder", "transformer", "text_encoder", "transformer"]


def test_a_dry_run_measures_every_job_of_a_sweep(make):
    with keeping():
        assert [plan(make(tau=tau, edits=["a square"], dry_run=True)) for tau in (0.0, 500.0)] == [[], []]
