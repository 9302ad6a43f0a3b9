"""Jobs with a guidance method: cells that train nothing, ids, rows, costs and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from motionexp.config.checks import check
from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.config.ids import adapter_id, sample_id
from motionexp.config.schema import guides, trains
from motionexp.data.select import make_reader
from motionexp.diffusion import sampling
from motionexp.errors import InputError
from motionexp.jobs.costs import Rates, cell_cost
from motionexp.jobs.dry_run import job_cost, job_phases
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.measurement import StepSeconds
from motionexp.jobs.run import run
from motionexp.jobs.window_notes import window_line
from tests.support.kept_results import cells

CONTENT = {"weights_hash": "w", "precision": "fp32", "reference_hash": "r"}
DITFLOW = {"_target_": "motionexp.methods.ditflow.DiTFlow", "optimization_steps": 1}


@pytest.fixture
def guided(make):
    """Makes settings of a job that DiTFlow guides at all timesteps."""

    def settings(method=DITFLOW, **changes):
        # `make` would merge it with the default method.
        return replace(make(**{"tau": 0.0} | changes), method=method)

    return settings


def test_a_cell_is_guided_and_nothing_is_trained(guided, monkeypatch):
    cfg = guided(base_model=True, references="one")
    rows = run(cfg)
    of_method = [row for row in rows if row.method != "base"]
    assert {(row.method, row.tau, row.train_steps, row.adapter_steps) for row in of_method} == {
        ("ditflow", 0, 0, 2)
    }
    assert of_method[0].versions == {"guidance": 2, "sampling": 2}
    (cell,) = [cell for cell in cells(cfg) if cell.name == of_method[0].adapter_id]
    assert not (cell / "adapter").exists()
    monkeypatch.setattr(sampling, "sample_latents", None)
    assert [row.value for row in run(cfg) if row.method != "base"] == [row.value for row in of_method]


def test_without_strength_a_sample_is_the_base_models(make, guided):
    def exact(cfg):
        rows = run(cfg)
        (cell,) = [cell for cell in cells(cfg) if cell.name == rows[0].adapter_id]
        return [np.load(path)["frames"] for path in sorted((cell / "media").glob("*.npz"))]

    off = exact(guided(references="one", adapter_scale=0.0))
    base = exact(make(references="one", tau=1000.0))
    assert sorted(map(np.ndarray.tobytes, off)) == sorted(map(np.ndarray.tobytes, base)) != []


def test_an_id_is_of_the_methods_settings_and_window_and_of_no_training():
    cfg = load(["method=ditflow", "tau=800"])
    first = adapter_id(cfg, **CONTENT)
    assert guides(cfg)
    assert not trains(cfg)
    for same in ({"train_steps": 7}, {"learning_rate": 1.0}, {"seed": 3}, {"batch_size": 5}):
        assert adapter_id(replace(cfg, **same), **CONTENT) == first
    changes = ({"tau": 700.0}, {"tau_high": 900.0}, {"method": {**cfg.method, "temperature": 5.0}})
    assert len({first, *(adapter_id(replace(cfg, **change), **CONTENT) for change in changes)}) == 4
    samples = [
        replace(cfg, **change) for change in ({}, {"seed": 3}, {"adapter_scale": 0.5}, {"sampling_tau": 9.0})
    ]
    assert len({sample_id(job, first, caption="c", index=0) for job in samples}) == 4
    assert adapter_id(replace(cfg, tau=1000.0), **CONTENT) == adapter_id(load(["tau=1000"]), **CONTENT)


@pytest.mark.parametrize("name", ["train_steps", "learning_rate", "training_seeds", "keep_steps", "rank"])
def test_settings_of_trainings_are_refused(name):
    value = {"training_seeds": 2, "keep_steps": "[5]"}.get(name, 9)
    cfg = load(["method=ditflow", f"{name}={value}"])
    with pytest.raises(InputError, match=f"{name}="):
        check_effects([(cfg, [name])])
    check_effects([(cfg, ["method", "tau", "steps", "adapter_scale"])])


def test_what_a_job_lacks_is_refused_before_weights(guided, monkeypatch):
    monkeypatch.setattr("motionexp.backbones.parts.load_part", None)
    positions = DITFLOW | {"optimise": "positions"}
    for changes, named in (
        ({"method": DITFLOW | {"blocks": [7]}}, "block=7"),
        ({"method": positions, "memory_limit": 1.0}, "memory_limit"),
    ):
        with pytest.raises(InputError, match=named):
            plan_job(guided(**changes))
    for words in (
        "ditflow method.zero_shot=true eta=0.5",
        "motionclone eta=0.5",
        "time_to_move adapter_scale=2",
        "injection adapter_scale=2",
        "inversion adapter_scale=2",
    ):
        name, *changed = words.split()
        of_file = load([f"method={name}", "tau=800", "model.guided_block=null", *changed])
        given = {"eta": of_file.eta, "adapter_scale": of_file.adapter_scale}
        with pytest.raises(InputError, match=changed[-1]):
            plan_job(guided(of_file.method, **given))
    assert any("train_together" in problem for problem in check(guided(train_together=2)))


def test_a_plan_says_that_inversion_sets_the_start_alone(guided):
    inversion = {"_target_": "motionexp.methods.inversion.Inversion"}
    for ends, warned in (((0.0, 1000.0), False), ((400.0, 450.0), True)):
        job = plan_job(guided(inversion, tau=ends[0], tau_high=ends[1], dry_run=True))
        notes = job_cost(job, StepSeconds(sampling=1.0, decoding=0.0), 0).notes
        assert "nothing is trained: inversion sets the latents that the sampling starts from" in notes
        assert any("the first sampling step" in note for note in notes) is warned
        assert window_line(job).endswith(": the method sets the latents that the sampling starts from")


def test_a_plan_counts_the_networks_evaluations(make, guided):
    job = plan_job(guided(dry_run=True, base_model=True))
    assert (job.trains, job.reads_references) == (False, True)
    # Two guided steps, of one forward and backward pass and one for the injection; two branches.
    assert job.batch_steps == 2 + 2 * (2 + 2 * 1) / 2
    cost = job_cost(job, StepSeconds(sampling=1.0, decoding=0.0), 0)
    assert {line.seconds for line in cost.lines if "base" not in line.columns[0]} == {job.batch_steps * 2}
    assert any("4 forward and 2 backward" in note for note in cost.notes)
    plain = plan_job(make(tau=1000.0))
    names = [phase.name for phase in job_phases(job, 0)]
    assert names == ["captions", "video", "guidance", "sampling, 1 at once", "decoding"]
    assert "guidance" not in [phase.name for phase in job_phases(plain, 0)]
    cfg = load(["method=ditflow"])
    about = "01-wander-cyan-square", Rates(), make_reader(cfg.data)
    assert cell_cost(cfg, *about) > cell_cost(load(["tau=1000"]), *about)
