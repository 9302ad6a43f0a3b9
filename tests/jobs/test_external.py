"""Videos of another system give the rows that the same videos give in a job."""

import json
import math
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from motionexp.backbones.latte import LatteBackbone
from motionexp.config.schema import BUNDLED, ScoreConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.data.videos import write_png
from motionexp.errors import InputError
from motionexp.jobs import checks, external_system, references
from motionexp.jobs.external import score_external
from motionexp.jobs.run import run
from motionexp.metrics import scorer
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import SANITY_BASELINES, read_rows
from motionexp.results.versions import check_comparable
from tests.metrics.conftest import moving_texture
from tests.support.kept_results import cells, plain, scores
from tests.support.squares import METRICS, Drifting


@pytest.fixture
def scored(tmp_path):
    """Settings of scoring `tmp_path/theirs` against the suite of squares."""

    def settings(**changes) -> ScoreConfig:
        plain = {
            "data": {"_target_": "tests.support.squares.Squares"},
            "folder": str(tmp_path / "theirs"),
            "references": ["one"],
            "metrics": METRICS,
            "device": "cpu",
            "output": str(tmp_path / "out"),
        }
        return ScoreConfig(**(plain | changes))

    return settings


def write_theirs(folder: Path, frames: dict[str, np.ndarray], reference: str = "one") -> None:
    for kind, video in frames.items():
        for index, frame in enumerate(video):
            write_png(folder / "theirs" / reference / kind / f"{index}.png", frame)


def noise(seed: int, count: int = 4, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def test_the_same_videos_give_the_same_rows_as_in_a_job(make, scored, tmp_path, monkeypatch, capsys):
    ours = run(make())
    (cell,) = cells(make())
    videos = {
        kind: np.load(next((cell / "media").glob(f"{kind}-0-*.npz")))["frames"]
        for kind in ("style", "object")
    }
    write_theirs(tmp_path, videos)
    monkeypatch.setattr(LatteBackbone, "from_pretrained", None)
    rows = score_external(scored(system="tune-a-thing"))
    assert {(row.edit_kind, row.metric): row.value for row in rows} == {
        (row.edit_kind, row.metric): row.value for row in ours
    }
    row, same = rows[0], ours[0]
    shared = attrgetter("suite", "reference", "reference_hash", "strata", "edit_caption", "seed")
    assert shared(row) == shared(same)
    assert (row.model, row.method, row.sample_file) == ("tune-a-thing", "external", "one/style")
    assert plain(read_rows(tmp_path / "out" / "squares" / "tune-a-thing" / "one")) == plain(rows)
    assert len(read_rows(tmp_path / "out")) == len(rows) + len(ours)
    check_comparable([*rows, *ours])
    assert "tune-a-thing, 1 " in capsys.readouterr().out


def test_what_is_scored_is_not_scored_again_unless_it_changed(scored, tmp_path, monkeypatch):
    write_theirs(tmp_path, {"style": noise(0), "object": noise(1)})
    first = score_external(scored())
    with monkeypatch.context() as context:
        context.setattr(Scorer, "score", None)
        assert plain(score_external(scored())) == plain(first)
    write_theirs(tmp_path, {"object": noise(2)})
    again = score_external(scored())
    assert [scores(before) == scores(after) for before, after in zip(first, again, strict=True)] == [
        row.edit_kind == "style" for row in first
    ]
    # Another system with the very same videos has rows of its own.
    score_external(scored(system="other"))
    assert len(read_rows(tmp_path / "out")) == 2 * len(first) + len(first) // 2


def test_each_video_is_compared_at_its_own_size(scored, tmp_path, monkeypatch):
    write_theirs(tmp_path, {"style": noise(0), "object": noise(1, side=32)})
    read = []
    monkeypatch.setattr(
        external_system.Scorer,
        "score",
        lambda self, frames, reference, *_: read.append((frames.shape, reference)) or {},
    )
    with pytest.raises(KeyError):
        score_external(scored(edit_kinds=["object"]))
    ((shape, reference),) = read
    assert shape == reference.frames.shape == (4, 32, 32, 3)


@pytest.fixture
def of_lengths(scored, tmp_path):
    """Settings of scoring a folder's references, of so many frames each, by all metrics."""

    def settings(lengths: dict[str, int], **changes) -> ScoreConfig:
        folder = tmp_path / "references"
        for seed, (name, count) in enumerate(lengths.items()):
            for index, frame in enumerate(moving_texture(seed, (2, 1), count)):
                write_png(folder / name / f"{index}.png", frame)
            write_theirs(tmp_path, {"style": moving_texture(10 + seed, (1, 2), count)}, name)
        entries = [{"video": name, "caption": "a ball", "edits": {"style": "a red ball"}} for name in lengths]
        (folder / "captions.json").write_text(json.dumps(entries))
        scoring = ScoringConfig(clip=str(BUNDLED / "clip"), scorer=str(BUNDLED / "scorer"), resize=0)
        data = {"_target_": "motionexp.data.folder.VideoFolder", "path": str(folder)}
        return scored(**({"data": data, "references": None, "metrics": None, "scoring": scoring} | changes))

    return settings


def test_chance_is_measured_against_references_that_are_long_enough(of_lengths):
    rows = score_external(of_lengths({"short": 4, "long": 9}))
    chance = {(row.metric, row.reference): row for row in rows if row.metric.endswith("_chance")}
    assert math.isfinite(chance["motion_fidelity_chance", "short"].value)
    # A point that stands exactly still: compared, and not measured.
    assert "peers' code" in chance["mf_ditflow_chance", "short"].reason
    for metric in ("motion_fidelity_chance", "mf_ditflow_chance"):
        assert math.isnan(chance[metric, "long"].value)
        assert chance[metric, "long"].reason == "no other reference of 9 frames"


def test_anchors_are_scored_on_demand_as_in_a_job(make, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    monkeypatch.setattr(checks, "check_trackable", lambda frames, height, width: None)  # it takes any size
    metrics = ["brightness", "motion_fidelity"]
    in_job = run(make(metrics=metrics, tau=1000.0, scoring={"sanity_baselines": True}))
    write_theirs(tmp_path, {"style": noise(0), "object": noise(1)})
    cfg = scored(metrics=metrics, scoring=ScoringConfig(sanity_baselines=True), system="theirs")
    rows = score_external(cfg)
    ours, anchors = (
        {row.score_id: row for row in rows_of if row.sanity_baseline} for rows_of in (in_job, rows)
    )
    assert {score: row.value for score, row in anchors.items()} == {s: row.value for s, row in ours.items()}
    assert {row.sanity_baseline for row in anchors.values()} == set(SANITY_BASELINES)
    assert {(row.model, row.method) for row in anchors.values()} == {("theirs", "sanity_baseline")}
    assert len(rows) == len(anchors) + 2 * 5
    # Of the edits that its videos show, which may be others than the suite's.
    (tmp_path / "theirs" / "videos.csv").write_text("video,reference,caption\none/style,one,a new one\n")
    new = [row for row in score_external(cfg) if row.sanity_baseline]
    assert {(row.sanity_baseline, row.edit_caption) for row in new} == {
        (anchor, "a new one") for anchor in SANITY_BASELINES
    }


def test_every_video_is_decoded_once(of_lengths, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    monkeypatch.setattr(references, "CHANCE_REFERENCES", 1)
    # As TGVE: the shorter ones, the longer ones, and shorter ones again.
    lengths = {"a": 3, "b": 3, "c": 4, "d": 4, "e": 3}
    cfg = of_lengths(lengths, metrics=["motion_fidelity"], scoring=ScoringConfig(sanity_baselines=True))
    for name, count in lengths.items():
        write_theirs(tmp_path, {"style-1": noise(2, count, 64)}, name)
    rows = score_external(cfg)
    assert len({row.sample_id for row in rows if not row.sanity_baseline}) == 2 * len(lengths)
    assert len(decoded) == 3 * sum(lengths.values())  # of a reference and of its two samples
    assert set(decoded.values()) == {1}


def test_what_is_wrong_is_said_before_a_metric_s_model_is_loaded(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(external_system, "Scorer", None)
    write_theirs(tmp_path, {"style": noise(0), "object": noise(1, count=3)})
    problems = {
        "object: .* 3 ": {},
        "style: .* 4 ": {"frames": 3},
        "references: .*four": {"references": ["four"]},
        "reference two: ": {"references": None},
        r"metrics=\[trajectory\]": {"metrics": ["trajectory"], "edit_kinds": ["style"]},
    }
    for problem, changes in problems.items():
        with pytest.raises(InputError, match=problem):
            score_external(scored(**changes))
