"""A probe's job on a tiny random model: its plan, its rows, its pictures, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from kept_results import cells, plain
from PIL import Image
from squares import Squares
from tiny_models import FRAMES, SIZE

from motionexp import jobs
from motionexp.atlas import readings
from motionexp.config import PAIRS, InputError, check
from motionexp.data.base import Edit
from motionexp.intervals import resampled_weights
from motionexp.jobs import inputs, probing, running
from motionexp.metrics.base import Measurement, Subject, VideoMetric
from motionexp.results import read_rows

PROBE = {"probe": "tampering", "probe_steps": 10, "edit_kinds": ["style"]}


class Text(VideoMetric):
    """Stands for CLIP."""

    version = 1
    values: ClassVar = {"text_alignment": True}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        return {"text_alignment": Measurement(float(subject.frames.mean()))}


class Flow(VideoMetric):
    """Stands for the flow, with a second value that probes do not keep."""

    version = 2
    values: ClassVar = {"flow_similarity": True, "flow_confidence": None}

    def measure(self, subject: Subject) -> dict[str, Measurement]:
        near = 1 - float(abs(subject.frames.astype(float) - subject.reference.frames).mean()) / 255
        return {"flow_similarity": Measurement(near), "flow_confidence": Measurement(1.0)}


@pytest.fixture(autouse=True)
def _cheap(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(running, "PROBE_METRICS", {"text_alignment": Text, "flow_similarity": Flow})
    monkeypatch.setattr(readings, "resampled_weights", lambda references: resampled_weights(references)[:50])


def test_a_probe_is_planned_leaves_rows_and_pictures_and_is_not_run_again(make, capsys, monkeypatch):
    cfg = make(**PROBE)
    jobs.plan(cfg)
    shown = capsys.readouterr().out
    assert not Path(cfg.output).exists()
    assert "tiny, probe=tampering, fp32 on cpu" in shown
    assert "0 of 56 230 460" in " ".join(shown.split())
    # Ten steps are a fifth of fifty: 1,150 as a tree, 2,750 one by one, of two evaluations each.
    assert "230 steps (460 network evaluations) as a tree, in place of 550 (1,100) one by one" in shown
    assert "each is inverted first: 10 steps (10 network evaluations)" in shown
    assert shown.count("output: ") == 1

    rows = jobs.probe(cfg)
    (cell,) = cells(cfg)
    shown = capsys.readouterr().out
    pairs = {(row.tau_start, row.tau_end) for row in rows}
    assert pairs == {*((f"{a}", f"{b}") for a, b in PAIRS), ("none", "none"), ("reference", "reference")}
    assert len({row.score_id for row in rows}) == len(rows) == 2 * 57
    assert plain(read_rows(cell)) == plain(rows)
    assert {(row.metric, row.metric_version) for row in rows} == {
        ("text_alignment", 1),
        ("flow_similarity", 2),
    }
    own = [row.value for row in rows if (row.tau_start, row.metric) == ("reference", "flow_similarity")]
    assert own == [1.0]
    assert (cell / "pairs.mp4").stat().st_size > 1000
    assert Image.open(cell / "inverted.png").width == 10 * 200 + 8
    folder = Path(cfg.output) / "squares" / "tiny" / "figures" / "tampering"
    drawn = {each.stem for each in folder.glob("*.svg")}
    assert {"tiny-tampering-pairs", "tiny-tampering-trade-off"} <= drawn
    assert {f"{name}.png" for name in drawn} | {"README.md"} <= {each.name for each in folder.iterdir()}
    assert "boundary, natural: cannot tell: 1 of the 3 references that an interval needs" in shown
    assert f"figures: {folder}" in shown
    assert f"all pairs side by side: {cell / 'pairs.mp4'}" in shown

    for name in ("invert", "run_tree", "rows_of"):
        monkeypatch.setattr(probing, name, None)
    assert plain(jobs.probe(cfg)) == plain(rows)
    capsys.readouterr()
    jobs.plan(cfg)
    shown = " ".join(capsys.readouterr().out.split())
    assert "56 of 56 0 0 0 s 0 B" in shown
    assert "about 0 s and 0 B" in shown


def test_captions_of_one_s_own_are_edits_of_one_kind_and_drawn_together(make, capsys):
    own = {**PROBE, "probe": "partial_guidance", "edit_kinds": None, "edits": ["one red", "one green"]}
    cfg = make(**own)
    rows = jobs.probe(cfg)
    assert {row.edit_kind for row in rows} == {"caption"}
    assert len(rows) == 2 * 2 * 56
    folder = Path(cfg.output) / "squares" / "tiny" / "figures" / "partial_guidance"
    assert "natural, 2 samples of 1 reference." in (folder / "README.md").read_text()
    assert "boundary: not told from this" in capsys.readouterr().out


def test_a_probe_with_an_adapter_is_refused(make):
    (problem,) = check(make(**PROBE, adapter="some/adapter", metrics=None))
    assert problem.startswith("adapter=some/adapter: a probe measures the backbone as it is")


def test_partial_guidance_with_edits_of_the_motion_is_refused_before_weights_are_loaded(make, monkeypatch):
    kinds = tuple(Edit("motion", edit.caption) for edit in Squares().read("one", FRAMES, SIZE, SIZE).edits)
    read = inputs.read_references
    monkeypatch.setattr(
        inputs, "read_references", lambda *of: [replace(each, edits=kinds) for each in read(*of)]
    )
    monkeypatch.setattr(running, "get_object", None)
    with pytest.raises(InputError, match="probe=partial_guidance: edits of the motion alone"):
        jobs.plan(make(probe="partial_guidance"))
