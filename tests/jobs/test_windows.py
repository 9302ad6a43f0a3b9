"""Jobs whose windows are other than [tau, 1000], several videos to tune on, and adapters kept on the way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs import job as job_module
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.run import run
from motionexp.methods.adapters import load_adapter
from tests.support.kept_results import cells
from tests.support.squares import Squares


def videos(cfg):
    """The kept frames of all cells of a job's output, by cell and file."""
    return {
        (cell.name, path.name): np.load(path)["frames"]
        for cell in cells(cfg)
        for path in sorted((cell / "media").glob("*.npz"))
    }


def test_one_training_is_sampled_in_several_windows(make, monkeypatch):
    everywhere = run(make(tau=0.0))
    (cell,) = cells(make())
    monkeypatch.setattr(job_module, "fit", None)
    # Two steps have t = 500 and 0.
    early = run(make(tau=0.0, sampling_tau=300.0))
    late = run(make(tau=0.0, sampling_tau_high=300.0))
    assert cells(make()) == [cell]
    assert [{row.adapter_steps for row in rows} for rows in (everywhere, early, late)] == [{2}, {1}, {1}]
    assert len({row.sample_id for rows in (everywhere, early, late) for row in rows}) == 6
    assert {row.settings["sampling_tau"] for row in early} == {300.0}
    assert len({frames.tobytes() for frames in videos(make()).values()}) == 6


def test_a_window_ends_where_it_is_told_to(make):
    low = run(make(tau=0.0, tau_high=300.0))
    run(make(tau=0.0))
    assert len(cells(make())) == 2
    assert {row.adapter_steps for row in low} == {1}
    adapter = next(cell for cell in cells(make()) if cell.name == low[0].adapter_id) / "adapter"
    rows = run(make(adapter=str(adapter), tau=None, references="one"))
    assert {row.adapter_steps for row in rows} == {1}, "the file's own window"
    rows = run(make(adapter=str(adapter), tau=None, tau_high=0.0, references="one"))
    assert {row.adapter_steps for row in rows} == {1}
    rows = run(make(adapter=str(adapter), tau=200.0, references="one"))
    assert {row.adapter_steps for row in rows} == {0}


def test_a_soft_window_is_trained_and_applied(make, monkeypatch):
    cfg = make(tau=0.0, soft_window=[[0.0, 0.0], [1000.0, 1.0]])
    rows = run(cfg)
    assert {row.adapter_steps for row in rows} == {1}, "of t = 500 and 0 the first has a weight"
    assert rows[0].settings["soft_window"] == [[0.0, 0.0], [1000.0, 1.0]]
    soft = videos(cfg)
    monkeypatch.setattr(job_module, "fit", None)
    run(replace(cfg, sampling_tau=0.0))
    assert len(cells(cfg)) == 1
    assert len({frames.tobytes() for frames in videos(cfg).values()}) == 2 * len(soft)


def test_an_adapter_is_tuned_on_all_companions(make, monkeypatch):
    plain = run(make())
    original, seen = Squares.read, []

    def read(self, name, *size):
        others = ("two", "three") if name == "one" else ()
        return replace(
            original(self, name, *size), companions=tuple(original(self, o, *size) for o in others)
        )

    def fit(backbone, method, examples, *arguments, **options):
        seen.append(len(examples))
        return own(backbone, method, examples, *arguments, **options)

    own = job_module.fit
    monkeypatch.setattr(Squares, "read", read)
    monkeypatch.setattr(job_module, "fit", fit)
    rows = run(make())
    assert seen == [3]
    assert {row.reference_hash for row in rows} == {row.reference_hash for row in plain}
    assert {row.adapter_id for row in rows}.isdisjoint({row.adapter_id for row in plain})


def test_a_longer_training_leaves_the_shorter_ones_adapters(make, tmp_path, monkeypatch):
    short = make(train_steps=1, output=str(tmp_path / "short"))
    expected = run(short)
    long = make(train_steps=3, keep_steps=[1, 2])
    run(long)
    kept = sorted(Path(long.output).rglob("fit.json"))
    assert sorted(json.loads(path.read_text())["steps"] for path in kept) == [1, 2, 3]
    monkeypatch.setattr(job_module, "fit", None)
    rows = run(make(train_steps=1))
    assert [row.value for row in rows] == [row.value for row in expected]
    assert {row.train_steps for row in rows} == {1}
    assert {row.adapter_id for row in rows} == {row.adapter_id for row in expected}


def test_what_a_network_does_not_have_is_said_before_weights_are_loaded(make, monkeypatch):
    monkeypatch.setattr("motionexp.backbones.latte.LatteBackbone.attentions", ("motion",))
    monkeypatch.setattr("motionexp.backbones.latte.LatteBackbone.from_pretrained", None)
    with pytest.raises(InputError, match=r"attention=spatial: tiny has no such attention.*one of motion"):
        run(make(attention="spatial"))


def test_a_spatial_adapter_is_another_cell(make):
    lora = {"_target_": "motionexp.methods.lora.LoRA", "rank": 2, "alpha": 2.0, "projections": ["v", "o"]}
    cfg = make()

    def cell_of(cfg):
        return plan_job(cfg).cells[0].cell

    assert cell_of(make(method={**lora, "attention": "motion"})) == cell_of(cfg), "an older cell"
    assert cell_of(make(method={**lora, "attention": "spatial"})) != cell_of(cfg)
    run(make(method={**lora, "attention": "spatial"}, attention="spatial"))
    (cell,) = cells(cfg)
    kept = load_adapter(cell / "adapter", plan_job(cfg).backbone)
    assert kept.settings["attention"] == "spatial"
    assert kept.window == Window(500)
    kept.remove()
