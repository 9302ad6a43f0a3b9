"""What a job makes, and what it makes again."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import motionexp
from motionexp.backbones.latte import LatteBackbone
from motionexp.config.checks import check
from motionexp.errors import InputError
from motionexp.jobs import job
from motionexp.jobs.dry_run import plan
from motionexp.jobs.run import run
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import read_rows
from tests.support.kept_results import cells, contents, plain
from tests.support.squares import METRICS, Squares
from tests.support.tiny_models import FRAMES, SIZE

FULL_RANK = {"_target_": "motionexp.methods.full_rank.FullRank", "projections": ["v", "o"]}


def test_a_job_leaves_settings_status_adapter_media_and_rows(make, capsys):
    cfg = make(seeds=2)
    rows = run(cfg)
    (cell,) = cells(cfg)
    assert cell.parent == Path(cfg.output) / "squares" / "tiny"
    assert json.loads((cell / "status.json").read_text())["state"] == "done"
    assert OmegaConf.load(cell / "config.yaml").tau == 500
    assert {path.name for path in (cell / "adapter").iterdir()} == {"adapter.safetensors", "fit.json"}
    media = Counter(path.name.partition(".")[2] for path in (cell / "media").iterdir())
    assert {media[suffix] for suffix in ("mp4", "png", "npz", "series.json")} == {4}
    (grid,) = (cell.parent / "grids").iterdir()
    assert grid.name.startswith("one-")
    assert grid.stat().st_size > 1000
    assert plain(read_rows(cell)) == plain(rows)
    assert {(row.edit_kind, row.seed) for row in rows} == set(product(("style", "object"), (0, 1)))
    row = rows[0]
    assert (Path(cfg.output) / row.sample_file).exists()
    assert (row.suite, row.reference, row.model, row.method) == ("squares", "one", "tiny", "lora")
    assert (row.tau, row.steps, row.adapter_steps, row.train_steps) == (500, 2, 1, 2)
    assert (row.precision, len(row.weights_hash), row.strata) == ("fp32", 64, {"contrast": "motion-dominant"})
    assert set(row.seconds) == {"fit", "sample", "score"}
    assert row.peak_memory > 2**20
    assert row.packages["torch"] == torch.__version__.partition("+")[0]
    assert row.settings["projections"] == ["v", "o"]
    assert "output" not in row.settings
    shown = capsys.readouterr().out
    assert "one red" in shown
    assert cell.name in shown.replace("\n", "")


def test_training_seeds_are_adapters_of_their_own_on_one_noise_of_sampling(make, capsys):
    cfg = make(training_seeds=2, keep_steps=[1], base_model=True)
    rows = run(cfg)
    adapters = {row.training_seed: row.adapter_id for row in rows}
    assert sorted(adapters) == [0, 1]
    assert {(row.seed, row.versions["training"]) for row in rows} == {(0, 2)}
    assert {seed: {row.edit_kind for row in rows if row.training_seed == seed} for seed in adapters} == {
        0: {"style", "object"}, 1: {"style", "object"}
    }  # fmt: skip
    before = {cell: contents(cell) for cell in cells(cfg)}
    assert len(before) == 3  # with that of the base model
    # A finished job is found again, and one of the seeds alone, as a list or as seed=.
    assert plain(run(cfg)) == plain(rows)
    one = run(replace(cfg, training_seeds=[1]))
    assert plain(one) == plain([row for row in rows if row.training_seed == 1])
    run(replace(cfg, seed=1, training_seeds=1))
    assert {cell for cell in cells(cfg)} == set(before)
    folder = Path(cfg.output) / "squares" / "tiny" / adapters[1]
    assert json.loads((folder / "adapter" / "fit.json").read_text())["seed"] == 1
    assert "training seed 1" in capsys.readouterr().out


def test_adapters_that_are_trained_together_are_those_of_single_references(make, monkeypatch):
    cfg = make(references=2, keep_steps=[1], train_together=2)
    rows = run(cfg)
    alone = run(replace(cfg, train_together=1))
    assert len({row.adapter_id for row in [*rows, *alone]}) == 4  # the last bits may differ: other ids

    def losses(chosen):
        folder = Path(cfg.output) / "squares" / "tiny"
        records = [
            json.loads((folder / row.adapter_id / "adapter" / "fit.json").read_text()) for row in chosen
        ]
        return {record["reference"]: record["losses"] for record in records}

    single = losses(alone)
    assert len(single) == 2
    assert {name: pytest.approx(value, abs=2e-6) for name, value in losses(rows).items()} == single
    # A member alone is never trained again as another adapter: its group is.
    (one, two) = {row.reference: row.adapter_id for row in rows}.values()
    folder = Path(cfg.output) / "squares" / "tiny"
    (folder / two / "adapter" / "adapter.safetensors").unlink()
    kept = contents(folder / one)
    monkeypatch.setattr(motionexp.jobs.run, "read_record", lambda *_: None)
    assert plain(run(cfg)) == plain(rows)
    assert contents(folder / one) == kept
    assert (folder / two / "adapter" / "adapter.safetensors").exists()


@pytest.mark.parametrize("changes", [{"preview_every": 1}, {"method": FULL_RANK}])
def test_what_cannot_be_trained_together_is_refused(make, changes):
    assert any("train_together=2" in problem for problem in check(make(train_together=2, **changes)))


def test_a_kept_adapter_is_compared_with_its_own_reference_or_one_that_is_named(make, tmp_path):
    cfg = make(references=["two"])
    run(cfg)
    (cell,) = cells(cfg)
    stored = {"adapter": str(cell / "adapter"), "tau": None}
    assert {row.reference for row in run(make(references=1, **stored))} == {"two"}
    assert {row.reference for row in run(make(references=["one"], **stored))} == {"one"}
    record = json.loads((cell / "adapter" / "fit.json").read_text())
    for changes in ({"suite": "clip"}, {"reference": "three"}, {"reference_hash": "of another video"}):
        (cell / "adapter" / "fit.json").write_text(json.dumps(record | changes))
        with pytest.raises(InputError, match=r"adapter=.*references="):
            run(make(references=1, **stored))


def test_a_finished_cell_is_not_run_again(make, monkeypatch):
    cfg = make()
    first = run(cfg)
    before = contents(cells(cfg)[0])
    for name in ("fit", "sample"):
        monkeypatch.setattr(job, name, None)
    assert plain(run(cfg)) == plain(first)
    assert contents(cells(cfg)[0]) == before


def test_new_edits_seeds_and_metrics_redo_only_what_is_below_them(make, monkeypatch):
    run(make())
    (cell,) = cells(make())
    before = contents(cell)
    monkeypatch.setattr(job, "fit", None)
    rows = run(make(seeds=2, edits=["one red", "one new"]))
    assert {(row.edit_caption, row.seed) for row in rows} == set(product(("one red", "one new"), (0, 1)))
    assert cells(make()) == [cell]
    after = contents(cell)
    changed = {name for name in before if after[name] != before[name] and not name.startswith("logs/")}
    assert changed == {"rows.jsonl", "config.yaml", "progress.json"}
    assert sum(name.endswith(".npz") for name in after.keys() - before) == 4
    monkeypatch.setattr(job, "sample", None)
    more = run(make(metrics=["brightness", "colourfulness"]))
    assert {row.metric for row in more} == {"brightness", "darkness", "colourfulness"}
    assert {row.seed for row in more} == {0}


def test_the_base_model_is_one_cell_whatever_the_rank_and_equals_an_adapter_of_no_steps(make):
    cfg = make(tau=1000.0)
    base = run(cfg)
    before = contents(cells(cfg)[0])
    assert plain(run(make(tau=1000.0, rank=8, learning_rate=0.1))) == plain(base)
    assert contents(cells(cfg)[0]) == before, "config.yaml holds a setting of tuning"
    (cell,) = cells(cfg)
    assert not (cell / "adapter").exists()
    assert {row.method for row in base} == {"base"}
    assert {(row.adapter_steps, row.train_steps) for row in base} == {(0, 0)}
    # At two steps t is 500 and 0: a window above both never switches on.
    run(make(tau=900.0))
    for name in ("style-0-*.npz", "object-0-*.npz"):
        one, two = (np.load(next((path / "media").glob(name)))["frames"] for path in cells(cfg))
        assert np.array_equal(one, two)


def test_several_references_load_the_backbone_once(make):
    cfg = make(references=3)
    with patch.object(LatteBackbone, "__init__", autospec=True, side_effect=LatteBackbone.__init__) as load:
        rows = run(cfg)
    assert load.call_count == 1
    assert {row.reference for row in rows} == {"one", "two", "three"}
    assert len(cells(cfg)) == 3


def test_a_kept_adapter_samples_new_captions_of_its_own_reference(make, monkeypatch):
    run(make(references="two"))
    (cell,) = cells(make())
    monkeypatch.setattr(job, "fit", None)
    cfg = make(adapter=str(cell / "adapter"), tau=None, edits=["two green"], seeds=2)
    rows = run(cfg)
    samples = {(row.reference, row.edit_caption, row.seed) for row in rows}
    assert samples == {("two", "two green", seed) for seed in (0, 1)}
    assert {(row.tau, row.adapter_steps, row.train_steps) for row in rows} == {(500.0, 1, 2)}
    same = run(make(adapter=str(cell / "adapter"), tau=None))
    file = next(row.sample_file for row in same if row.edit_kind == "style")
    again = np.load((Path(cfg.output) / file).with_suffix(".npz"))["frames"]
    assert np.array_equal(again, np.load(next((cell / "media").glob("style-0-*.npz")))["frames"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metrics": ["flow"]}, "metrics=.flow.*flow_similarity"),
        ({"references": 4}, "references=4"),
        ({"edits": ["word " * 500]}, " 120"),
        ({"negative_prompt": "word " * 500}, " 120"),
        ({"metrics": ["trajectory"]}, r"metrics=\[trajectory\]"),
    ],
)
def test_wrong_input_is_an_error_before_weights_are_loaded(make, changes, problem, monkeypatch):
    monkeypatch.setattr(LatteBackbone, "from_pretrained", None)
    for act in (run, plan):
        with pytest.raises(InputError, match=problem):
            act(make(**changes))


def test_the_python_api_is_lazy_and_gives_what_a_job_gives(make):
    program = "import sys, motionexp; assert 'torch' not in sys.modules; assert 'fit' in motionexp.__all__"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
    with pytest.raises(AttributeError, match="nothing"):
        motionexp.nothing  # noqa: B018

    from motionexp.diffusion.schedule import Window
    from motionexp.jobs.inputs import sample_settings, training_settings
    from motionexp.methods.lora import LoRA

    cfg = make()
    rows = run(cfg)
    reference = Squares().read("one", FRAMES, SIZE, SIZE)
    backbone = motionexp.load_backbone(cfg.model.path, device="cpu", precision="fp32")
    method = LoRA(backbone, Window(500), rank=2, alpha=2.0)
    folder = Path(cfg.output) / "api"
    motionexp.fit(backbone, method, [motionexp.encode(backbone, reference)], training_settings(cfg), folder)
    samples = list(motionexp.sample(backbone, method, reference.edits, sample_settings(cfg)))
    scores = motionexp.score(samples, reference, Scorer(METRICS))
    values = [measured.value for score in scores for measured in score["brightness"].values()]
    assert values == pytest.approx([row.value for row in rows], nan_ok=True)


def test_rows_that_were_scored_before_say_where_this_jobs_tau_came_from(make):
    first = run(make())
    folder, weights = cells(make())[0], first[0].weights_hash
    boundary = {"boundary": 500.0, "boundary_weights": weights[:12]}
    auto = make(tau_from="boundary", model={**asdict(make().model), **boundary})
    for cfg, source, stored in ((auto, "boundary", 500.0), (make(), "given", None)):
        rows = run(cfg)
        assert [row.score_id for row in rows] == [row.score_id for row in first]
        assert [row.value for row in rows] == [row.value for row in first]
        assert {row.settings["tau_from"] for row in rows} == {source}
        assert {row.settings["model"]["boundary"] for row in rows} == {stored}
        assert plain(read_rows(folder)) == plain(rows)
        before = (folder / "rows.jsonl").read_bytes()
        run(cfg)
        assert (folder / "rows.jsonl").read_bytes() == before


def test_the_base_model_is_sampled_once_for_all_jobs_and_is_a_line_of_each(make, capsys):
    first, second = (make(tau=tau, base_model=True) for tau in (500.0, 250.0))
    rows = run(first)
    assert {row.method for row in rows} == {"lora"}, "a job returns the rows of its own samples"
    (base,) = (cell for cell in cells(first) if not (cell / "adapter").exists())
    before = contents(base)
    run(second)
    assert len(cells(first)) == 3
    assert {name: content for name, content in contents(base).items() if name.startswith("media")} == {
        name: content for name, content in before.items() if name.startswith("media")
    }
    # The job of the base model itself finds them too, and what is finished is found without a model.
    assert len(run(make(tau=1000.0, base_model=True))) == len(rows)
    assert len(cells(first)) == 3
    run(second)
    assert "nothing left" in capsys.readouterr().out
    assert (base.parent / "index.md").read_text().count("| done |") == 3
    assert len(list((base.parent / "grids").iterdir())) == 3


def test_exact_frames_as_a_video_give_equal_scores_and_are_found_again(make, monkeypatch):
    arrays = run(make(exact_frames="npz"))
    cfg = make(exact_frames="video", output=str(Path(make().output) / "videos"))
    videos = run(cfg)
    assert [(row.metric, row.value) for row in videos] == [(row.metric, row.value) for row in arrays]
    (cell,) = cells(cfg)
    assert not list((cell / "media").glob("*.npz"))
    # Another metric reads them, whatever the setting is now.
    monkeypatch.setattr(job.Job, "generate", None)
    again = run(replace(cfg, exact_frames="npz", metrics=["colourfulness"]))
    assert [row.sample_id for row in again] == [row.sample_id for row in videos if row.metric == "brightness"]
