"""Samples are decoded once, sets of samples and anchors have rows of their own."""

from pathlib import Path

import numpy as np
import pytest

from motionexp.jobs import running
from motionexp.jobs.anchors import anchor_videos
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.metrics import scorer
from motionexp.results import ANCHORS, read_rows
from tests.squares import Drifting, Squares


@pytest.fixture
def decoded(monkeypatch):
    """The samples that were decoded while scoring."""
    monkeypatch.setattr(scorer, "LucasKanadeTracker", Drifting)
    monkeypatch.setattr(Job, "write_grid", lambda self, reference: [])
    read, seen = Cell.read_sample, []

    def counting(self, edit, index, sample_id):
        seen.append(sample_id)
        return read(self, edit, index, sample_id)

    monkeypatch.setattr(Cell, "read_sample", counting)
    return seen


def test_a_sample_is_decoded_once_for_scores_of_its_own_and_of_its_set(make, decoded):
    cfg = make(metrics=["brightness", "colourfulness", "motion_diversity"], seeds=2, tau=1000.0)
    rows = running.run(cfg)
    assert len(decoded) == len(set(decoded)) == 4
    sets = [row for row in rows if row.metric == "motion_diversity"]
    assert [(row.edit_kind, row.seed) for row in sets] == [("style", None), ("object", None)]
    assert all(row.value > 0 for row in sets)
    running.run(cfg)
    assert len(decoded) == 4
    more = running.run(make(metrics=cfg.metrics, seeds=3, tau=1000.0))
    wider = [row for row in more if row.metric == "motion_diversity"]
    kept = [row for row in read_rows(Path(cfg.output)) if row.metric == "motion_diversity"]
    assert {row.sample_id for row in kept} == {row.sample_id for row in wider}
    assert {row.sample_id for row in wider}.isdisjoint({row.sample_id for row in sets})


def test_one_sample_is_no_set(make, decoded):
    rows = running.run(make(metrics=["brightness", "motion_diversity"], tau=1000.0))
    assert {row.metric for row in rows} == {"brightness", "darkness"}


def test_anchors_are_scored_on_demand_for_every_metric_and_once(make, decoded, capsys):
    cfg = make(metrics=["brightness", "motion_fidelity"], tau=1000.0, scoring={"anchors": True})
    rows = [row for row in running.run(cfg) if row.anchor]
    values = {(row.anchor, row.metric, row.edit_kind): row for row in rows}
    metrics = ("brightness", "darkness", "motion_fidelity", "motion_fidelity_chance", "track_coverage")
    assert set(values) == {(a, m, kind) for a in ANCHORS for m in metrics for kind in ("style", "object")}
    reference = Squares().read("one", cfg.frames, cfg.model.height, cfg.model.width).frames
    for anchor, frames in (("reference", reference), ("frozen", reference[:1]), ("reversed", reference)):
        assert values[anchor, "brightness", "style"].value == pytest.approx(frames.mean())
    assert values["shuffled", "brightness", "style"].value != pytest.approx(reference.mean())
    assert values["reference", "motion_fidelity", "style"].value == pytest.approx(1)
    assert values["reference", "motion_fidelity", "style"].method == "anchor"
    shown = capsys.readouterr().out
    assert all(words in shown for words in ANCHORS.values())
    again = [row for row in running.run(cfg) if row.anchor]
    assert {row.score_id: row.value for row in again} == {row.score_id: row.value for row in rows}
    kept = read_rows(Path(cfg.output))
    assert len([row for row in kept if row.anchor]) == len(rows)
    assert not [row for row in running.run(make(metrics=cfg.metrics, tau=1000.0)) if row.anchor]


def test_anchors_are_the_reference_changed():
    suite = Squares()
    one, two, three = (suite.read(name, 4, 16, 16) for name in suite.names())
    videos = anchor_videos(one, [two, three])
    assert list(videos) == list(ANCHORS)
    np.testing.assert_array_equal(videos["reversed"][0], one.frames[-1])
    assert (videos["frozen"] == one.frames[0]).all()
    assert any(np.array_equal(videos["shuffled"], each.frames) for each in (two, three))
    assert "shuffled" not in anchor_videos(one, [])
