"""Samples are stored exactly and decoded once; sets, sanity baselines and real videos have their rows."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from motionexp.data.base import Edit
from motionexp.data.videos import grids, write_png
from motionexp.errors import InputError
from motionexp.jobs import checks, plan
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.evaluation import Sample
from motionexp.jobs.run import run
from motionexp.jobs.sanity_baselines import baseline_videos
from motionexp.metrics import scorer
from motionexp.results.rows import SANITY_BASELINES, read_rows
from tests.support.made_suites import make_davis, make_tgve
from tests.support.made_videos import encode, moving, numbered
from tests.support.squares import Drifting, Squares
from tests.support.tiny_models import FRAMES


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    monkeypatch.setattr(checks, "check_trackable", lambda frames, height, width: None)  # it takes any size


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
    scored = {"metrics": ["motion_fidelity", "motion_diversity"], "scoring": {"sanity_baselines": True}}
    cfg = make(data=data, references=["b", "c"], seeds=2, **scored)
    rows = run(cfg)
    samples = {row.sample_id for row in rows if row.seed is not None and not row.sanity_baseline}
    assert len(samples) == 8
    assert set(decoded) == samples | {str(file) for file in (tmp_path / "suite").rglob("*.png")}
    assert set(decoded.values()) == {1}
    # One sample of each edit stands in the grid, whatever is scored already.
    decoded.clear()
    run(cfg)
    assert len(samples & set(decoded)) == 4
    assert set(decoded.values()) == {1}
    decoded.clear()
    adapter = next(Path(cfg.output).rglob("adapter.safetensors")).parent
    run(make(data=data, adapter=str(adapter), seeds=2, **scored))
    assert set(decoded.values()) == {1}


def test_a_sample_is_decoded_once_for_scores_of_its_own_and_of_its_set(make, decoded):
    cfg = make(metrics=["brightness", "colourfulness", "motion_diversity"], seeds=2, tau=1000.0)
    rows = run(cfg)
    assert (len(decoded), set(decoded.values())) == (4, {1})
    sets = [row for row in rows if row.metric == "motion_diversity"]
    assert [(row.edit_kind, row.seed) for row in sets] == [("style", None), ("object", None)]
    assert all(row.value > 0 for row in sets)
    more = run(make(metrics=cfg.metrics, seeds=3, tau=1000.0))
    wider = [row for row in more if row.metric == "motion_diversity"]
    stored = [row for row in read_rows(Path(cfg.output)) if row.metric == "motion_diversity"]
    assert {row.sample_id for row in stored} == {row.sample_id for row in wider}
    assert {row.sample_id for row in wider}.isdisjoint({row.sample_id for row in sets})
    single = run(make(metrics=["brightness", "motion_diversity"], tau=1000.0))
    assert {row.metric for row in single} == {"brightness", "darkness"}, "one sample is no set"


def test_anchors_are_scored_on_demand_for_every_metric_and_once(make, capsys):
    cfg = make(metrics=["brightness", "motion_fidelity"], tau=1000.0, scoring={"sanity_baselines": True})
    rows = [row for row in run(cfg) if row.sanity_baseline]
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
    assert {word for words in SANITY_BASELINES.values() for word in words.split()} <= set(shown.split())
    again = [row for row in run(cfg) if row.sanity_baseline]
    assert {row.score_id: row.value for row in again} == {row.score_id: row.value for row in rows}
    assert len([row for row in read_rows(Path(cfg.output)) if row.sanity_baseline]) == len(rows)
    assert not [row for row in run(make(metrics=cfg.metrics, tau=1000.0)) if row.sanity_baseline]


def test_anchors_are_the_reference_changed():
    suite = Squares()
    one, two, three = (suite.read(name, 4, 16, 16) for name in suite.names())
    videos = baseline_videos(one, [two, three])
    assert list(videos) == list(SANITY_BASELINES)
    np.testing.assert_array_equal(videos["reversed"][0], one.frames[-1])
    assert (videos["frozen"] == one.frames[0]).all()
    assert any(np.array_equal(videos["shuffled"], chance.frames) for chance in (two, three))
    assert "shuffled" not in baseline_videos(one, [])


def test_a_sample_is_stored_exactly_and_shown_enlarged(tmp_path, monkeypatch):
    monkeypatch.setattr("motionexp.jobs.cell.enlarged", grids.enlarged)
    monkeypatch.setattr("motionexp.jobs.cell.contact_sheet", grids.contact_sheet)
    cell, request, frames = Cell(tmp_path), SampleRequest(Edit("style", "a red ball"), 0, "abc"), moving(4)
    cell.save_sample(request, Sample(request.edit, 0, frames, 0, 1.0, 0), 8)
    assert np.array_equal(cell.read_sample(request).frames, frames)
    with av.open(cell.sample_path(request, ".mp4")) as file:
        assert (file.streams.video[0].height, file.streams.video[0].width) == (256, 256)
    with Image.open(cell.sample_path(request, ".png")) as sheet:
        assert sheet.size == (4 * 192 + 3 * 2, 192)


PROMPTS = {"video": "bear", "caption": "a bear", "subject": "a cat", "scene": "a car"}
PROMPTS |= {"frame_range": [0, 72, 3]}


def tgve(folder: Path) -> dict:
    return {"_target_": "motionexp.data.tgve.TGVE", "path": str(make_tgve(folder / "tgve"))}


def davis(folder: Path) -> dict:
    path = make_davis(folder / "DAVIS", [PROMPTS])
    data = {"_target_": "motionexp.data.davis.DAVIS", "path": str(path)}
    return data | {"prompts": str(path / "prompts.json")}


def videos(folder: Path) -> dict:
    encode(folder / "dog.mp4", numbered(8))
    entry = {"video": "dog.mp4", "caption": "a dog", "edits": {"object": "a cat"}}
    (folder / "captions.json").write_text(json.dumps([entry]))
    return {"_target_": "motionexp.data.folder.VideoFolder", "path": str(folder)}


@pytest.mark.parametrize(
    ("write", "suite", "name", "kind", "caption"),
    [
        (tgve, "tgve", "dav-3", "multiple", "thing 3 by multiple"),
        (davis, "davis", "bear", "scene", "a car"),
        (videos, "folder", "dog", "object", "a cat"),
    ],
)
def test_a_suite_is_tuned_sampled_and_scored(make, tmp_path, write, suite, name, kind, caption):
    cfg = make(data=write(tmp_path), references=[name], edit_kinds=[kind])
    rows = run(cfg)
    assert {(row.suite, row.reference, row.edit_kind, row.edit_caption) for row in rows} == {
        (suite, name, kind, caption)
    }
    assert len(list((Path(cfg.output) / suite / "tiny" / "grids").glob(f"{name}-*.mp4"))) == 1


def test_a_job_is_measured_against_references_that_are_long_enough(make, tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    lengths = {"short": FRAMES - 1, "own": FRAMES, "slow": 2 * FRAMES, "other": FRAMES}
    for name, count in lengths.items():
        encode(tmp_path / f"{name}.mp4", numbered(count))
    entries = [{"video": f"{name}.mp4", "caption": "a dog", "edits": ["a cat"]} for name in lengths]
    entries[2]["fps"] = 2  # of 8 a second: too few
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    data = {"_target_": "motionexp.data.folder.VideoFolder", "path": str(tmp_path)}
    job = {"metrics": ["motion_fidelity"], "references": ["own"], "tau": 1000.0}
    rows = {row.metric: row for row in run(make(data=data, **job))}
    assert math.isfinite(rows["motion_fidelity_chance"].value)
    (tmp_path / "captions.json").write_text(json.dumps(entries[:3]))
    alone = {row.metric: row for row in run(make(data=data, **job, output=str(tmp_path / "alone")))}
    assert alone["motion_fidelity"].value == rows["motion_fidelity"].value
    assert math.isnan(alone["motion_fidelity_chance"].value)
    assert alone["motion_fidelity_chance"].reason == f"no other reference of {FRAMES} frames"


def test_a_missing_video_stops_a_job_before_weights_are_loaded(make, tmp_path, monkeypatch):
    data = tgve(tmp_path)
    for image in (tmp_path / "tgve" / "videvo_480p" / "480p_frames" / "vid-9").iterdir():
        image.unlink()
    monkeypatch.setattr(plan, "get_object", None)
    with pytest.raises(InputError, match="vid-9"):
        run(make(data=data))
