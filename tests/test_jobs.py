import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console
from tiny_models import FRAMES, SIZE, save_tiny_pipeline

import motionexp
import motionexp.compose  # registers the settings' resolvers
from motionexp import evaluation, jobs
from motionexp.backbones.latte import LatteBackbone
from motionexp.config import InputError, JobConfig
from motionexp.data.base import Edit, Reference
from motionexp.evaluation import Scorer
from motionexp.jobs import running
from motionexp.jobs.cell import Cell
from motionexp.jobs.showing import print_summary
from motionexp.metrics.base import Measurement, Subject, VideoMetric
from motionexp.results import Row, as_json, read_rows
from motionexp.training import Tuning

TESTS = Path(__file__).parent
METRICS = ["brightness"]


class Brightness(VideoMetric):
    """Mean grey value; costs nothing and takes frames of any size."""

    version = 1
    values: ClassVar = {"brightness": None, "darkness": None}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        series = subject.frames.mean((1, 2, 3))
        value = float(series.mean())
        return {"brightness": Measurement(value, series=series), "darkness": Measurement(255 - value)}


class Colourfulness(VideoMetric):
    """Mean distance of the channels."""

    version = 1
    values: ClassVar = {"colourfulness": True}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        return {"colourfulness": Measurement(float(subject.frames.std(-1).mean()))}


@pytest.fixture(autouse=True)
def metrics(monkeypatch):
    monkeypatch.setitem(evaluation.METRICS, "brightness", Brightness)
    monkeypatch.setitem(evaluation.METRICS, "colourfulness", Colourfulness)


@dataclasses.dataclass(frozen=True)
class Squares:
    """Three references of a square that moves, on grounds of their own."""

    suite: str = "squares"

    def names(self) -> list[str]:
        return ["one", "two", "three"]

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        random = np.random.default_rng(self.names().index(name))
        ground = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        video = np.stack([ground] * frames)
        for index in range(frames):
            video[index, 4:8, index : index + 4] = 255
        edits = (Edit("style", f"{name} red"), Edit("object", f"{name} blue"))
        return Reference(name, self.suite, video, 8.0, f"{name} square", edits, {"contrast": "natural"})


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def make(weights, tmp_path):
    """Makes checked settings: two training steps, two sampling steps, one metric."""

    def settings(**changes) -> JobConfig:
        model = {
            "_target_": "motionexp.backbones.latte.LatteBackbone.from_pretrained",
            "name": "tiny",
            "path": str(weights),
            "frames": FRAMES,
            "height": SIZE,
            "width": SIZE,
            "fps": 8.0,
            "max_caption_tokens": 120,
            "default_tau": 500.0,
            "train_steps": 2,
            "learning_rate": 1e-3,
            "full_rank_learning_rate": 1e-4,
            "batch_size": 1,
            "steps": 2,
            "guidance_scale": 2.0,
        }
        lora = {"_target_": "motionexp.methods.lora.LoRA", "rank": 2, "alpha": 2.0, "projections": ["v", "o"]}
        plain = {
            "model": model,
            "method": lora,
            "data": {"_target_": "test_jobs.Squares"},
            "tau": 500.0,
            "metrics": METRICS,
            "device": "cpu",
            "precision": "fp32",
            "output": str(tmp_path / "out"),
        }
        merged = OmegaConf.merge(OmegaConf.structured(JobConfig), plain, changes)
        cfg = OmegaConf.to_object(merged)
        assert isinstance(cfg, JobConfig)
        return cfg

    return settings


def cells(cfg: JobConfig) -> list[Path]:
    return sorted(path.parent for path in Path(cfg.output).rglob("status.json"))


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by its name, status and locks left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "status.json" and not path.name.endswith(".lock")
    }


def plain(rows: list[Row]) -> list[dict]:
    """Rows in which NaN equals NaN."""
    return [as_json(row) for row in rows]


def scores(row: Row) -> tuple[str, str]:
    return row.score_id, f"{row.value:.6g}"


def test_a_job_leaves_settings_status_adapter_media_and_rows(make, capsys):
    cfg = make(seeds=2)
    rows = jobs.run(cfg)
    (cell,) = cells(cfg)
    assert cell.parent == Path(cfg.output) / "squares" / "tiny"
    assert json.loads((cell / "status.json").read_text())["state"] == "done"
    assert OmegaConf.load(cell / "config.yaml").tau == 500
    assert {path.name for path in (cell / "adapter").iterdir()} == {"adapter.safetensors", "fit.json"}
    media = [path.name for path in (cell / "media").iterdir()]
    assert sum(name.endswith(".mp4") for name in media) == 4
    assert sum(name.endswith(".png") for name in media) == 4
    assert sum(name.endswith(".series.json") for name in media) == 4
    assert (cell.parent / "grids" / "one.mp4").stat().st_size > 1000
    assert plain(read_rows(cell)) == plain(rows)
    assert {(row.edit_kind, row.seed) for row in rows} == set(product(("style", "object"), (0, 1)))
    row = rows[0]
    assert (Path(cfg.output) / row.sample_file).exists()
    assert (row.suite, row.reference, row.model, row.method) == ("squares", "one", "tiny", "lora")
    assert (row.tau, row.steps, row.adapter_steps, row.train_steps) == (500, 2, 1, 2)
    assert (row.precision, len(row.weights_hash), row.strata) == ("fp32", 64, {"contrast": "natural"})
    assert set(row.seconds) == {"fit", "sample", "score"}
    assert row.peak_memory > 2**20
    assert row.packages["torch"] == torch.__version__.partition("+")[0]
    assert row.settings["projections"] == ["v", "o"]
    assert "output" not in row.settings
    shown = capsys.readouterr().out
    assert "one red" in shown
    assert cell.name in shown.replace("\n", "")


def test_a_finished_cell_is_not_run_again(make, monkeypatch):
    cfg = make()
    first = jobs.run(cfg)
    before = contents(cells(cfg)[0])
    for name in ("fit", "sample"):
        monkeypatch.setattr(running, name, None)
    assert plain(jobs.run(cfg)) == plain(first)
    assert contents(cells(cfg)[0]) == before


def test_new_edits_seeds_and_metrics_redo_only_what_is_below_them(make, monkeypatch):
    jobs.run(make())
    (cell,) = cells(make())
    kept = contents(cell)
    monkeypatch.setattr(running, "fit", None)
    rows = jobs.run(make(seeds=2, edits=["one red", "one new"]))
    assert {(row.edit_caption, row.seed) for row in rows} == set(product(("one red", "one new"), (0, 1)))
    assert cells(make()) == [cell]
    after = contents(cell)
    changed = {name for name in kept if after[name] != kept[name]}
    assert changed == {"rows.jsonl", "config.yaml"}
    assert sum(name.endswith(".npz") for name in after) == sum(name.endswith(".npz") for name in kept) + 4
    monkeypatch.setattr(running, "sample", None)
    more = jobs.run(make(metrics=["brightness", "colourfulness"]))
    assert {row.metric for row in more} == {"brightness", "darkness", "colourfulness"}
    assert {row.seed for row in more} == {0}


def test_the_base_model_is_one_cell_whatever_the_rank_and_equals_an_adapter_of_no_steps(make):
    cfg = make(tau=1000.0)
    base = jobs.run(cfg)
    assert plain(jobs.run(make(tau=1000.0, rank=8, learning_rate=0.1))) == plain(base)
    (cell,) = cells(cfg)
    assert not (cell / "adapter").exists()
    assert {row.method for row in base} == {"base"}
    assert {(row.adapter_steps, row.train_steps) for row in base} == {(0, 0)}
    # At two steps t is 500 and 0: a window above both never switches on.
    jobs.run(make(tau=900.0))
    other = next(each for each in cells(cfg) if each != cell)
    for name in ("style-0-*.npz", "object-0-*.npz"):
        ours, theirs = (np.load(next((each / "media").glob(name)))["frames"] for each in (cell, other))
        assert np.array_equal(ours, theirs)


def test_the_grid_has_a_column_for_each_cell_that_is_there(make, monkeypatch):
    seen = []
    original = running.write_grid

    def spy(path, reference, wanted, columns):
        seen.append([label for label, cell, ids in columns if cell.has_sample(wanted[0].edit, 0, ids[0])])
        return original(path, reference, wanted, columns)

    monkeypatch.setattr(running, "write_grid", spy)
    for tau in (1000.0, 0.0, 500.0, 250.0):
        jobs.run(make(tau=tau))
    assert seen[0] == ["base"]
    assert seen[2] == ["base", "τ = 0", "τ = 500"]
    assert seen[3] == ["base", "τ = 0", "τ = 500", "τ = 250"]


def test_several_references_load_the_backbone_once(make, monkeypatch):
    loads = []
    original = LatteBackbone.__init__

    def counted(self, **arguments):
        loads.append(1)
        original(self, **arguments)

    monkeypatch.setattr(LatteBackbone, "__init__", counted)
    cfg = make(references=3)
    rows = jobs.run(cfg)
    assert len(loads) == 1
    assert {row.reference for row in rows} == {"one", "two", "three"}
    assert len(cells(cfg)) == 3


def test_a_kept_adapter_samples_new_captions_of_its_own_reference(make, monkeypatch):
    jobs.run(make(references="two"))
    (cell,) = cells(make())
    monkeypatch.setattr(running, "fit", None)
    cfg = make(adapter=str(cell / "adapter"), tau=None, edits=["two green"], seeds=2)
    rows = jobs.run(cfg)
    assert {(row.reference, row.edit_caption, row.seed) for row in rows} == {
        ("two", "two green", 0),
        ("two", "two green", 1),
    }
    assert {(row.tau, row.adapter_steps, row.train_steps) for row in rows} == {(500.0, 1, 2)}
    same = jobs.run(make(adapter=str(cell / "adapter"), tau=None))
    file = next(row.sample_file for row in same if row.edit_kind == "style")
    theirs = np.load((Path(cfg.output) / file).with_suffix(".npz"))["frames"]
    own = np.load(next((cell / "media").glob("style-0-*.npz")))["frames"]
    assert np.array_equal(theirs, own)


@pytest.mark.parametrize("stage", ["fit", "sample", "score"])
def test_an_interrupt_is_recorded_and_resumed_to_the_same_rows(make, tmp_path, monkeypatch, stage):
    whole = jobs.run(make(output=str(tmp_path / "whole")))
    cfg = make()
    with monkeypatch.context() as patch:
        _interrupt(patch, stage)
        with pytest.raises(KeyboardInterrupt):
            jobs.run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "interrupted"
    again = jobs.run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert [scores(row) for row in again] == [scores(row) for row in whole]
    assert len(read_rows(cell)) == len(whole)


def _interrupt(patch, stage: str) -> None:
    """Ctrl-C in the second of the stage's steps."""
    owner, name = {
        "fit": (Tuning, "training_step"),
        "sample": (Cell, "keep_sample"),
        "score": (Scorer, "score"),
    }[stage]
    original, calls = getattr(owner, name), []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    patch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("kind", ["fit.json", "adapter.safetensors", ".npz", "rows.jsonl"])
def test_a_full_disk_is_one_clear_line_and_the_same_command_goes_on(make, monkeypatch, kind):
    cfg = make()
    original = os.replace
    with monkeypatch.context() as patch:

        def full(source, target):
            if str(target).endswith(kind):
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            original(source, target)

        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left"):
            jobs.run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "failed"
    jobs.run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert {path.name for path in (cell / "adapter").iterdir()} == {"adapter.safetensors", "fit.json"}
    assert {path.name for path in cell.rglob(".*")} <= {".lock", ".rows.jsonl.lock"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ["flow"]}, "metrics=.flow.*flow_similarity"),
        ({"references": 4}, "references=4"),
        ({"references": ["four"]}, "four"),
        ({"edits": ["word " * 200]}, "at most 120"),
        ({"metrics": ["trajectory"]}, "ground truth"),
    ],
)
def test_wrong_input_is_one_clear_line(make, changes, said):
    with pytest.raises(InputError, match=said):
        jobs.run(make(**changes))


def test_captions_are_checked_before_weights_are_loaded(make, monkeypatch):
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(LatteBackbone, "from_pretrained", loaded)
    for changes in ({"edits": ["word " * 500]}, {"negative_prompt": "word " * 500}):
        for act in (jobs.run, jobs.plan):
            with pytest.raises(InputError, match="at most 120"):
                act(make(**changes))
    with pytest.raises(AssertionError, match="were loaded"):
        jobs.run(make())


@pytest.mark.parametrize("name", ["rows.jsonl", "fit.json", "adapter.safetensors", ".npz"])
def test_a_damaged_file_is_named(make, name):
    cfg = make()
    jobs.run(cfg)
    (cell,) = cells(cfg)
    if name == "adapter.safetensors":
        next(cell.rglob("*.npz")).unlink()
    if name == ".npz":
        (cell / "rows.jsonl").unlink()
    path = next(path for path in sorted(cell.rglob("*")) if path.name.endswith(name))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError) as caught:
        jobs.run(cfg)
    assert path.name in str(caught.value)


def test_a_cell_that_another_process_has_is_waited_for(make, monkeypatch):
    cfg = make()
    first = jobs.run(cfg)
    (cell,) = cells(cfg)
    entered, release, left = threading.Event(), threading.Event(), []

    def other() -> None:
        with Cell(cell).running({}, lambda: None):
            entered.set()
            release.wait(60)
            left.append(True)

    def told(console: Console, *objects: object, **named: object) -> None:
        if "another process works on" in str(objects[0]):
            assert not left
            release.set()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    monkeypatch.setattr(Console, "print", told)
    assert plain(jobs.run(cfg)) == plain(first)
    assert left
    thread.join()


def test_a_killed_process_leaves_a_cell_that_goes_on(make, monkeypatch):
    class Killed(BaseException):
        """What nobody catches or records, like the end of the process."""

    cfg = make(train_steps=8, checkpoint_every=3)
    with monkeypatch.context() as patch:
        original = Tuning.training_step

        def killed(self, batch, batch_idx):
            if self.global_step == 5:
                raise Killed
            original(self, batch, batch_idx)

        patch.setattr(Tuning, "training_step", killed)
        patch.setattr(Cell, "_write_last_status", lambda self, status: None)
        with pytest.raises(Killed):
            jobs.run(cfg)
    (cell,) = cells(cfg)
    assert Cell(cell).status()["state"] == "running"
    again = jobs.run(cfg)
    assert Cell(cell).status()["state"] == "done"
    assert json.loads((cell / "adapter" / "fit.json").read_text())["resumed_from"] == 3
    whole = jobs.run(make(train_steps=8, output=f"{cfg.output}-whole"))
    assert [scores(row) for row in again] == [scores(row) for row in whole]


def test_the_summary_subtracts_chance_and_leaves_out_what_abstained(capsys):
    row = {"suite": "shapes", "reference": "a", "model": "tiny", "method": "lora", "tau": 500.0, "steps": 50}
    row |= {"metric_version": 1, "adapter_steps": 25, "precision": "fp32", "edit_kind": "style"}
    row |= {"edit_caption": "a [red] ball"}
    rows = [
        Row(metric="nuisance_similarity", value=0.75, sample_id="1", **row),
        Row(metric="nuisance_chance", value=0.25, sample_id="1", **row),
        Row(metric="velocity_similarity", value=float("nan"), reason="lost", sample_id="1", **row),
        Row(metric="velocity_similarity", value=0.8, sample_id="2", seed=1, **row),
    ]
    print_summary(Console(width=80), rows, [Path("out/[1]")], [])
    shown = capsys.readouterr().out
    assert "adapter on in 25 of 50 steps" in shown
    assert "style: a [red] ball" in shown
    assert ["style", "0.80", "0.50", "2"] in [line.split() for line in shown.splitlines()]
    assert "rows and media: out/[1]" in shown


def test_a_plan_says_what_would_run_and_writes_nothing(make, capsys):
    cfg = make(references=2, seeds=3)
    jobs.plan(cfg)
    shown = capsys.readouterr().out
    assert not Path(cfg.output).exists()
    # Rank 2 on v and o of two blocks of width 16: 2 x 2 x 2 x (16 + 16).
    assert "256 trainable parameters (LoRA)" in shown
    assert "1 of 2 sampling steps" in shown
    assert shown.count("output: ") == 2
    jobs.run(cfg)
    jobs.plan(cfg)
    assert "done" in capsys.readouterr().out


def test_the_python_api_is_lazy_and_gives_what_a_job_gives(make):
    program = "import sys, motionexp; assert 'torch' not in sys.modules; assert 'fit' in motionexp.__all__"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=TESTS.parent)
    with pytest.raises(AttributeError, match="no attribute"):
        motionexp.nothing  # noqa: B018

    from motionexp.jobs.inputs import sample_settings, training_settings
    from motionexp.methods.lora import LoRA
    from motionexp.schedule import Window

    cfg = make()
    rows = jobs.run(cfg)
    reference = Squares().read("one", FRAMES, SIZE, SIZE)
    backbone = motionexp.load_backbone(cfg.model.path, device="cpu", precision="fp32")
    method = LoRA(backbone, Window(500), rank=2, alpha=2.0)
    folder = Path(cfg.output) / "api"
    motionexp.fit(backbone, method, [motionexp.encode(backbone, reference)], training_settings(cfg), folder)
    wanted = [(edit, 0) for edit in reference.edits]
    samples = list(motionexp.sample(backbone, method, wanted, sample_settings(cfg)))
    scores = motionexp.score(samples, reference, Scorer(METRICS))
    ours = [each.value for score in scores for each in score["brightness"].values()]
    assert ours == pytest.approx([row.value for row in rows], nan_ok=True)
