"""Real benchmarks in their own layouts go through the same jobs as the bundled world."""

import json
import math
from pathlib import Path

import pytest

from motionexp.errors import InputError
from motionexp.jobs import plan
from motionexp.jobs.run import run
from motionexp.metrics import scorer
from tests.support.made_suites import make_davis, make_tgve
from tests.support.made_videos import encode, numbered
from tests.support.squares import Drifting
from tests.support.tiny_models import FRAMES

PROMPTS = {
    "video": "bear",
    "caption": "a bear",
    "subject": "a cat",
    "scene": "a car",
    "frame_range": [0, 72, 3],
}


def tgve(folder: Path) -> dict:
    return {"_target_": "motionexp.data.tgve.TGVE", "path": str(make_tgve(folder / "tgve"))}


def davis(folder: Path) -> dict:
    path = make_davis(folder / "DAVIS", [PROMPTS])
    return {
        "_target_": "motionexp.data.davis.DAVIS",
        "path": str(path),
        "prompts": str(path / "prompts.json"),
    }


def videos(folder: Path) -> dict:
    encode(folder / "dog.mp4", numbered(8))
    entry = {"video": "dog.mp4", "caption": "a dog", "edits": {"object": "a cat"}}
    (folder / "captions.json").write_text(json.dumps([entry]))
    return {"_target_": "motionexp.data.folder.VideoFolder", "path": str(folder)}


@pytest.mark.parametrize(
    ("made", "suite", "name", "kind", "caption"),
    [
        (tgve, "tgve", "dav-3", "multiple", "thing 3 by multiple"),
        (davis, "davis", "bear", "scene", "a car"),
        (videos, "folder", "dog", "object", "a cat"),
    ],
)
def test_a_suite_is_tuned_sampled_and_scored(make, tmp_path, made, suite, name, kind, caption):
    cfg = make(data=made(tmp_path), references=[name], edit_kinds=[kind])
    rows = run(cfg)
    assert {(row.suite, row.reference, row.edit_kind, row.edit_caption) for row in rows} == {
        (suite, name, kind, caption)
    }
    assert (Path(cfg.output) / suite / "tiny" / "grids" / f"{name}.mp4").exists()


def test_a_job_is_measured_against_references_that_are_long_enough(make, tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    lengths = {"short": FRAMES - 1, "own": FRAMES, "slow": 2 * FRAMES, "other": FRAMES}
    for name, count in lengths.items():
        encode(tmp_path / f"{name}.mp4", numbered(count))
    entries = [{"video": f"{name}.mp4", "caption": "a dog", "edits": ["a cat"]} for name in lengths]
    entries[2]["fps"] = 2  # of 8 a second: too few
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    data = {"_target_": "motionexp.data.folder.VideoFolder", "path": str(tmp_path)}
    wanted = {"metrics": ["motion_fidelity"], "references": ["own"], "tau": 1000.0}
    rows = {row.metric: row for row in run(make(data=data, **wanted))}
    assert math.isfinite(rows["motion_fidelity_chance"].value)
    (tmp_path / "captions.json").write_text(json.dumps(entries[:3]))
    alone = {row.metric: row for row in run(make(data=data, **wanted, output=str(tmp_path / "alone")))}
    assert alone["motion_fidelity"].value == rows["motion_fidelity"].value
    assert math.isnan(alone["motion_fidelity_chance"].value)
    assert alone["motion_fidelity_chance"].reason == f"no other reference of {FRAMES} frames"


def test_a_missing_video_stops_a_job_before_weights_are_loaded(make, tmp_path, monkeypatch):
    data = tgve(tmp_path)
    for image in (tmp_path / "tgve" / "videvo_480p" / "480p_frames" / "vid-9").iterdir():
        image.unlink()
    monkeypatch.setattr(plan, "get_object", None)
    with pytest.raises(InputError, match=r"vid-9: holds no images"):
        run(make(data=data))
