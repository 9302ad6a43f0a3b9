"""Samples are decoded once, sets of samples and anchors have rows of their own."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from motionexp.data.videos import write_png
from motionexp.jobs import run
from motionexp.jobs.sanity_baselines import baseline_videos
from motionexp.metrics import scorer
from motionexp.results.rows import SANITY_BASELINES, read_rows
from tests.support.squares import Drifting, Squares
from tests.support.tiny_models import FRAMES


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)


def images(folder: Path, names: Sequence[str]) -> dict:
    """A suite of folders of images, each with two edits."""
    for seed, name in enumerate(names):
        frames = np.random.default_rng(seed).integers(0, 255, (FRAMES, 16, 16, 3), dtype=np.uint8)
        for index, frame in enumerate(frames):
            write_png(folder / name / f"{index}.png", frame)
    entries = [{"video": name, "caption": "a dog", "edits": ["a cat", "a car"]} for name in names]
    (folder / "captions.json").write_text(json.dumps(entries))
    return {"_target_": "motionexp.data.folder.VideoFolder", "path": str(folder)}


def test_references_and_samples_are_decoded_once_in_a_job(make, decoded, tmp_path):
    data = images(tmp_path / "suite", ["a", "b", "c"])
    wanted = {
        "metrics": ["motion_fidelity", "motion_diversity"],
        "seeds": 2,
        "scoring": {"sanity_baselines": True},
    }
    cfg = make(data=data, references=["b", "c"], **wanted)
    rows = run.run(cfg)
    samples = {row.sample_id for row in rows if row.seed is not None and not row.sanity_baseline}
    assert len(samples) == 8
    assert set(decoded) == samples | {str(file) for file in (tmp_path / "suite").rglob("*.png")}
    assert set(decoded.values()) == {1}
    # One sample of each edit stands in the grid, whatever is scored already.
    decoded.clear()
    run.run(cfg)
    assert len(samples & set(decoded)) == 4
    assert set(decoded.values()) == {1}
    decoded.clear()
    adapter = next(Path(cfg.output).rglob("adapter.safetensors")).parent
    run.run(make(data=data, adapter=str(adapter), **wanted))
    assert set(decoded.values()) == {1}


def test_a_sample_is_decoded_once_for_scores_of_its_own_and_of_its_set(make, decoded):
    cfg = make(metrics=["brightness", "colourfulness", "motion_diversity"], seeds=2, tau=1000.0)
    rows = run.run(cfg)
    assert (len(decoded), set(decoded.values())) == (4, {1})
    sets = [row for row in rows if row.metric == "motion_diversity"]
    assert [(row.edit_kind, row.seed) for row in sets] == [("style", None), ("object", None)]
    assert all(row.value > 0 for row in sets)
    more = run.run(make(metrics=cfg.metrics, seeds=3, tau=1000.0))
    wider = [row for row in more if row.metric == "motion_diversity"]
    kept = [row for row in read_rows(Path(cfg.output)) if row.metric == "motion_diversity"]
    assert {row.sample_id for row in kept} == {row.sample_id for row in wider}
    assert {row.sample_id for row in wider}.isdisjoint({row.sample_id for row in sets})


def test_one_sample_is_no_set(make):
    rows = run.run(make(metrics=["brightness", "motion_diversity"], tau=1000.0))
    assert {row.metric for row in rows} == {"brightness", "darkness"}


def test_anchors_are_scored_on_demand_for_every_metric_and_once(make, capsys):
    cfg = make(metrics=["brightness", "motion_fidelity"], tau=1000.0, scoring={"sanity_baselines": True})
    rows = [row for row in run.run(cfg) if row.sanity_baseline]
    values = {(row.sanity_baseline, row.metric, row.edit_kind): row for row in rows}
    metrics = ("brightness", "darkness", "motion_fidelity", "motion_fidelity_chance", "track_coverage")
    assert set(values) == {
        (a, m, kind) for a in SANITY_BASELINES for m in metrics for kind in ("style", "object")
    }
    reference = Squares().read("one", cfg.frames, cfg.model.height, cfg.model.width).frames
    for anchor, frames in (("reference", reference), ("frozen", reference[:1]), ("reversed", reference)):
        assert values[anchor, "brightness", "style"].value == pytest.approx(frames.mean())
    assert values["shuffled", "brightness", "style"].value != pytest.approx(reference.mean())
    assert values["reference", "motion_fidelity", "style"].value == pytest.approx(1)
    assert values["reference", "motion_fidelity", "style"].method == "sanity_baseline"
    shown = capsys.readouterr().out
    assert all(words in shown for words in SANITY_BASELINES.values())
    again = [row for row in run.run(cfg) if row.sanity_baseline]
    assert {row.score_id: row.value for row in again} == {row.score_id: row.value for row in rows}
    kept = read_rows(Path(cfg.output))
    assert len([row for row in kept if row.sanity_baseline]) == len(rows)
    assert not [row for row in run.run(make(metrics=cfg.metrics, tau=1000.0)) if row.sanity_baseline]


def test_anchors_are_the_reference_changed():
    suite = Squares()
    one, two, three = (suite.read(name, 4, 16, 16) for name in suite.names())
    videos = baseline_videos(one, [two, three])
    assert list(videos) == list(SANITY_BASELINES)
    np.testing.assert_array_equal(videos["reversed"][0], one.frames[-1])
    assert (videos["frozen"] == one.frames[0]).all()
    assert any(np.array_equal(videos["shuffled"], each.frames) for each in (two, three))
    assert "shuffled" not in baseline_videos(one, [])
