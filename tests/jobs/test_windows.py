"""Jobs with other windows, other numbers of frames, extra references, and adapters of other trainings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motionexp.config.checks import check
from motionexp.config.compose import load
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.solvers import AdapterSteps
from motionexp.errors import InputError
from motionexp.jobs import job as job_module
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.run import run
from motionexp.jobs.window_notes import boundary_notes, recipe_notes, window_warnings
from motionexp.methods.adapters import load_adapter
from tests.support.kept_results import cells
from tests.support.squares import Squares
from tests.support.tiny_flow import save_tiny_wan
from tests.support.tiny_models import CLIP_TOKENS, save_tiny_unet3d


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
    assert [{row.off_t for row in rows} for rows in (everywhere, early, late)] == [{None}, {0.0}, {None}]
    assert early[0].off_log_snr == pytest.approx(9.2, abs=0.1)
    assert len({row.sample_id for rows in (everywhere, early, late) for row in rows}) == 6
    assert {row.settings["sampling_tau"] for row in early} == {300.0}
    assert len({frames.tobytes() for frames in videos(make()).values()}) == 6


def test_a_window_with_none_or_all_of_the_steps_is_announced(make):
    # Two steps have t = 500 and 0.
    def warnings(**settings):
        job = plan_job(make(**settings))
        return window_warnings(job.adapter_steps, job.sampling_window, job.backbone.schedule)

    assert warnings(tau=300.0) == warnings(tau=1000.0) == []
    (none,) = warnings(tau=700.0)
    assert none.startswith("window [700, 1000]: none of the 2 ")
    (everything,) = warnings(tau=300.0, steps=1, timestep_spacing="trailing")
    assert everything.startswith("window [300, 1000]: all of the 1 ")


EXPERTS = {
    "_target_": "motionexp.backbones.wan.WanExpertsBackbone.from_pretrained",
    "name": "experts",
    "frames": 5,
    "frame_range": [5, 81],
    "height": 16,
    "width": 32,
    "max_caption_tokens": 512,
    "recipe": "owners",
    "recipes": {"owners": {"shift": 12.0, "steps": 4, "sampler": "unipc"}},
}


def test_an_adapter_of_one_expert_is_counted_in_its_steps_and_its_recipe_told(make, tmp_path):
    model = EXPERTS | {"path": str(save_tiny_wan(tmp_path / "model", experts=True))}
    # Four steps at shift 12 begin at about t = 1000, 973, 923 and 799.
    low = make(model=model, tau=0.0, tau_high=800.0, sampling_tau_high=1000.0, references="one")
    job = plan_job(low)
    assert job.adapter_steps == AdapterSteps(1, 4)
    (note,) = job.window_notes
    assert "t < 875" in note
    assert recipe_notes(job) == ["recipe=owners: 4 steps of unipc, shift 12, guidance 2, no negative prompt"]
    assert {(row.adapter_steps, row.off_t) for row in run(low)} == {(1, None)}
    high = plan_job(
        make(model=model, tau=900.0, sampling_tau=0.0, steps=5, guidance_scale=[[0, 3], [875, 4]])
    )
    assert (high.adapter_steps.on, high.adapter_steps.steps) == (4, 5)
    (line,) = recipe_notes(high)
    assert line.endswith(
        "guidance 3, 4 from t = 875, no negative prompt; not the recipe's: steps, guidance_scale"
    )
    none = plan_job(make(model=model, tau=900.0, sampling_tau=0.0, sampling_tau_high=500.0))
    assert [note.partition(":")[0] for note in none.window_notes][1] == "window [0, 500]"
    # A guidance method acts in both.
    assert plan_job(make(model=model, tau=1000.0)).span == Window(0)


def test_the_shift_of_a_boundary_is_told():
    model = load(["model=wan_1_3b", "recipe=diffusers"]).model
    (note,) = boundary_notes("boundary", replace(model, boundary_shift=3.0), FlowSchedule(8.0))
    assert "shift 3" in note
    assert "shift 8" in note
    assert boundary_notes("given", model, FlowSchedule(8.0)) == []


def test_a_window_ends_where_it_is_told_to(make):
    low = run(make(tau=0.0, tau_high=300.0))
    run(make(tau=0.0))
    assert len(cells(make())) == 2
    assert {row.adapter_steps for row in low} == {1}
    adapter = next(cell for cell in cells(make()) if cell.name == low[0].adapter_id) / "adapter"
    # The first is the window of the file.
    for window, steps in (({"tau": None}, 1), ({"tau": None, "tau_high": 0.0}, 1), ({"tau": 200.0}, 0)):
        # The method of the rows is the file's, not that of the settings.
        method = {"_target_": "motionexp.methods.full_rank.FullRank"}
        rows = run(make(adapter=str(adapter), references="one", method=method, **window))
        assert {(row.adapter_steps, row.method) for row in rows} == {(steps, "lora")}


def test_a_lora_of_another_trainer_is_gated(make, capsys, tmp_path):
    run(make(tau=0.0))
    (cell,) = cells(make())
    tensors = load_file(cell / "adapter" / "adapter.safetensors")
    odd = {"text_encoder.layers.0.lora_A.weight": torch.ones(2, 2)}
    save_file(tensors | odd, tmp_path / "their.safetensors")
    for low, steps in ((0.0, 2), (300.0, 1), (900.0, 0)):
        cfg = make(adapter=str(tmp_path / "their.safetensors"), references="one", tau=None, sampling_tau=low)
        rows = run(cfg)
        assert {(row.adapter_steps, row.method, row.tau) for row in rows} == {(steps, "external_lora", 0)}
        assert {row.settings["sampling_tau"] for row in rows} == {low}
    printed = capsys.readouterr().out.replace("\n", " ")
    assert f"{len(tensors)} of {len(tensors) + 1} tensors loaded" in printed
    assert next(iter(odd)) in printed


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


def test_an_adapter_is_tuned_on_the_extra_references_too(make, monkeypatch):
    plain = run(make())
    original, seen = Squares.read, []

    def read(self, name, *size):
        extra = [original(self, more, *size) for more in ("two", "three") if name == "one"]
        return replace(original(self, name, *size), extra_references=tuple(extra))

    def fit(backbone, method, examples, *arguments, **options):
        seen.append(len(examples))
        return trained(backbone, method, examples, *arguments, **options)

    trained = job_module.fit
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
    records = Path(long.output).rglob("fit.json")
    assert sorted(json.loads(path.read_text())["steps"] for path in records) == [1, 2, 3]
    monkeypatch.setattr(job_module, "fit", None)
    rows = run(make(train_steps=1))
    assert [row.value for row in rows] == [row.value for row in expected]
    assert {row.train_steps for row in rows} == {1}
    assert {row.adapter_id for row in rows} == {row.adapter_id for row in expected}


def test_what_a_network_does_not_have_is_said_before_weights_are_loaded(make, monkeypatch):
    monkeypatch.setattr("motionexp.backbones.latte.LatteBackbone.attentions", ("motion",))
    monkeypatch.setattr("motionexp.backbones.latte.LatteBackbone.from_pretrained", None)
    with pytest.raises(InputError, match=r"attention=spatial: tiny .* motion"):
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
    method = load_adapter(cell / "adapter", plan_job(cfg).backbone)
    assert method.settings["attention"] == "spatial"
    assert method.window == Window(500)
    method.remove()


LAYER = "lora_transformer_temporal_transformer_blocks_0_attn1_to_v"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """In kohya's keys, for the tiny Latte: 16 channels."""
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 16, generator=g), torch.randn(16, 2, generator=g)
    tensors = {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}
    save_file(tensors, tmp_path / "theirs.safetensors")
    return tmp_path / "theirs.safetensors"


def test_it_samples_within_the_window_that_tau_gives(make, lora):
    cfg = make(adapter=str(lora), tau=600.0)
    assert check(replace(cfg, metrics=None)) == []
    rows = run(cfg)
    assert {(row.method, row.tau, row.train_steps) for row in rows} == {("external_lora", 600.0, 0)}
    (cell,) = cells(cfg)
    assert not (cell / "adapter").exists()


def test_without_tau_it_is_refused_before_weights_are_loaded(make, lora):
    cfg = make(adapter=str(lora), tau=None)
    assert check(replace(cfg, metrics=None)) == []
    nowhere = replace(cfg, model=replace(cfg.model, path=str(lora.parent / "nowhere")))
    with pytest.raises(InputError, match=r"theirs.safetensors: .*tau="):
        run(nowhere)


@pytest.fixture(scope="session")
def unet(tmp_path_factory):
    return {
        "_target_": "motionexp.backbones.unet3d.UNet3DBackbone.from_pretrained",
        "name": "tiny_unet3d",
        "path": str(save_tiny_unet3d(tmp_path_factory.mktemp("unet3d"))),
        "frames": 5,
        "frame_range": [2, 7],
        "max_caption_tokens": CLIP_TOKENS,
    }


def problems(cfg):
    return check(replace(cfg, metrics=None))


def test_a_job_reads_and_makes_as_many_frames_as_it_is_asked_for(make, unet, tmp_path, capsys):
    for frames in (3, 7):
        cfg = make(model=unet, frames=frames, output=str(tmp_path / str(frames)))
        assert problems(cfg) == []
        assert {row.settings["frames"] for row in run(cfg)} == {frames}
        (cell,) = cells(cfg)
        samples = [np.load(file)["frames"] for file in (cell / "media").glob("*.npz")]
        assert [sample.shape for sample in samples] == [(frames, 16, 16, 3)] * 2
    with safe_open(cell / "adapter" / "adapter.safetensors", framework="np") as file:
        assert all(name.startswith("unet.") for name in file.keys())  # noqa: SIM118  # not a dict
    # An adapter has no number of frames either: this one, tuned on 7, samples 3.
    stored = {"adapter": str(cell / "adapter"), "tau": None, "references": ["one"]}
    assert {row.method for row in run(make(model=unet, frames=3, **stored))} == {"lora"}
    plan(make(model=unet, frames=6))
    assert "lora" in capsys.readouterr().out


def test_frames_outside_the_models_range_are_refused(make, unet):
    for frames in (1, 8):
        (problem,) = problems(make(model=unet, frames=frames))
        assert problem.startswith(f"frames={frames}: ")
    odd = {**unet, "frame_range": [3, 7], "frame_step": 2}
    (problem,) = problems(make(model=odd, frames=6))
    assert problem.startswith("frames=6: ")
    assert problems(make(model=odd)) == []
    assert len(problems(make(frames=5))) == 1
    for legal in ([2], [7, 2], [0, 7]):
        (problem,) = problems(make(model={**unet, "frame_range": legal}))
        assert problem.startswith(f"model.frame_range={legal}: the fewest and the most")
