"""A probe's job on a tiny random model: its plan, its rows, its pictures, and what it refuses."""

import io
import re
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

from motionexp.config import metrics
from motionexp.config.checks import check
from motionexp.config.metrics import MetricSpec
from motionexp.config.schema import JobConfig
from motionexp.data.base import Edit, Reference
from motionexp.errors import InputError
from motionexp.jobs import inputs, probe_figures, probe_tree, references, scoring, unfinished
from motionexp.jobs import plan as plan_module
from motionexp.jobs.cell import Cell
from motionexp.jobs.dry_run import plan
from motionexp.jobs.probe_job import probe
from motionexp.metrics.base import Measurement, MetricInput, VideoMetric
from motionexp.probes.analysis import rows
from motionexp.probes.timesteps import PAIRS
from motionexp.results.intervals import resampled_weights
from motionexp.results.rows import Row, read_rows
from tests.support.kept_results import cells, plain, scores
from tests.support.squares import SQUARE_METRICS, Squares
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE

# A limit of 1 GiB lets sixteen videos share a call of the network.
PROBE = {
    "probe": "tampering",
    "probe_steps": 10,
    "references": 1,
    "edit_kinds": ["style"],
    "memory_limit": 1.0,
}
LATTE = "motionexp.backbones.latte.LatteBackbone"


class Text(VideoMetric):
    """Stands for CLIP."""

    version = 1
    values: ClassVar = {"text_alignment": True}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        return {"text_alignment": Measurement(float(inputs.frames.mean()))}


class Flow(VideoMetric):
    """Stands for the flow, with a second value that probes do not keep."""

    version = 2
    values: ClassVar = {"flow_similarity": True, "flow_confidence": None}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        near = 1 - float(abs(inputs.frames.astype(float) - inputs.reference.frames).mean()) / 255
        return {"flow_similarity": Measurement(near), "flow_confidence": Measurement(1.0)}


@pytest.fixture(scope="module", autouse=True)
def _cheap():
    cheap = {
        name: MetricSpec(name, __name__, kind.__name__, False, "", kind.values, used_by=("probes",))
        for name, kind in {"text_alignment": Text, "flow_similarity": Flow}.items()
    }
    of_jobs = {name: spec for name, spec in metrics.METRICS.items() if "probes" not in spec.used_by}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "120")
        patched.setattr(metrics, "METRICS", of_jobs | cheap | SQUARE_METRICS)
        patched.setattr(rows, "resampled_weights", lambda references: resampled_weights(references)[:50])
        yield


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory) -> tuple[JobConfig, list[Row], str]:
    """A whole probe: its settings, its rows, and what it printed."""
    output = str(tmp_path_factory.mktemp("whole") / "out")
    cfg = job_settings(LATTE, weights, (FRAMES, SIZE, SIZE), output=output, **PROBE)
    with redirect_stdout(io.StringIO()) as shown:
        return cfg, probe(cfg), shown.getvalue()


def test_a_plan_counts_pairs_steps_and_evaluations_and_writes_nothing(make, capsys):
    cfg = make(**PROBE)
    plan(cfg)
    shown = capsys.readouterr().out
    assert not Path(cfg.output).exists()
    assert re.search("tiny.* probe=tampering.* fp32 .*cpu", shown)
    # 230 steps of the tree after 50 of the inversion, which has no guidance.
    assert "0 of 56 1 280 510" in " ".join(shown.split())
    # Ten steps are a fifth of fifty: 1,150 as a tree, 2,750 one by one.
    assert re.search(r"\b50 invert.* 230 sample.* 550\b", " ".join(shown.split()))
    assert shown.count("output: ") == 1


def test_a_probe_leaves_rows_videos_and_figures_and_is_not_run_again(whole, monkeypatch, capsys):
    cfg, rows, shown = whole
    (cell,) = cells(cfg)
    # 1. Rows of every pair, of the control and of the reference.
    pairs = {(row.tau_start, row.tau_end) for row in rows}
    assert pairs == {*((f"{a}", f"{b}") for a, b in PAIRS), ("none", "none"), ("reference", "reference")}
    assert len({row.score_id for row in rows}) == len(rows) == 2 * 57
    assert plain(read_rows(cell)) == plain(rows)
    versions = {("text_alignment", 1), ("flow_similarity", 2)}
    assert {(row.metric, row.metric_version) for row in rows} == versions
    assert [row.value for row in rows if (row.tau_start, row.metric) == ("reference", "flow_similarity")] == [
        1
    ]
    # 2. Videos, a strip and figures, and where they are.
    assert (cell / "pairs.mp4").stat().st_size > 1000
    assert Image.open(cell / "inverted.png").width == 10 * 200 + 8
    folder = Path(cfg.output) / "squares" / "tiny" / "figures" / "tampering"
    drawn = {path.stem for path in folder.glob("*.svg")}
    assert {"tiny-tampering-pairs", "tiny-tampering-trade-off"} <= drawn
    assert {f"{name}.png" for name in drawn} | {"README.md"} <= {path.name for path in folder.iterdir()}
    assert re.search("motion-dominant: undetermined.* 1 .* 3 ", shown)
    assert str(folder) in shown
    assert str(cell / "pairs.mp4") in shown
    # 3. The same command samples and scores nothing, and a plan counts nothing.
    for module, name in ((unfinished, "invert"), (probe_tree, "run_tree"), (scoring, "rows_of")):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr(probe_figures, "write_figures", lambda *of: [])
    assert plain(probe(cfg)) == plain(rows)
    capsys.readouterr()
    plan(cfg)
    assert "56 of 56 0 0 0 0 s 0 B" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_tree_goes_on_from_its_last_block_and_inverts_nothing_again(whole, make, monkeypatch):
    cfg, add = make(**PROBE), unfinished.Unfinished.add_block

    def until_interrupted(self, block, latents):
        add(self, block, latents)
        if block == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(unfinished.Unfinished, "add_block", until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            probe(cfg)
    blocks = []

    def noted(self, block, latents):
        blocks.append(block)
        add(self, block, latents)

    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "invert", None)
        patched.setattr(unfinished.Unfinished, "add_block", noted)
        rows = probe(cfg)
    assert blocks == [3, 2, 1, 0]
    (cell,) = cells(cfg)
    assert not (cell / "unfinished").exists()
    assert [scores(row) for row in rows] == [scores(row) for row in whole[1]]


def test_what_another_process_made_while_this_one_waited_is_not_made_again(make, monkeypatch):
    cfg, locked, calls = make(**PROBE), Cell.locked, Counter()
    by_the_first: list[list[Row]] = []

    @contextmanager
    def after_another_process(cell, on_wait):
        # The first lock that this job waits for is held until another job has made everything.
        if not calls["jobs"]:
            calls["jobs"] += 1
            by_the_first.append(probe(cfg))
        with locked(cell, on_wait):
            yield

    def counted(module, name):
        original = getattr(module, name)

        def counting(*arguments, **named):
            calls[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, counting)

    counted(unfinished, "invert")
    counted(scoring, "rows_of")
    monkeypatch.setattr(probe_figures, "write_figures", lambda *of: [])
    monkeypatch.setattr(Cell, "locked", after_another_process)
    assert plain(probe(cfg)) == plain(by_the_first[0])
    # 56 videos and the reference, two metrics.
    assert calls == {"jobs": 1, "invert": 1, "rows_of": 2 * 57}
    for file in Path(cfg.output).rglob("rows.jsonl"):
        assert len(file.read_text().splitlines()) == len(read_rows(file)), file


class Inverted(Exception):
    """What the reference was inverted with; nothing more needs to be run."""


def test_a_reference_is_inverted_with_what_is_asked_for(make, monkeypatch):
    def invert(backbone, latents, conditioning, negative, settings, **_):
        raise Inverted(conditioning.embeds, settings.guidance_scale)

    def inverted(name: str, **changes: Any) -> tuple[torch.Tensor, float]:
        with pytest.raises(Inverted) as inversion:
            probe(make(**{**PROBE, "probe": name}, **changes))
        return inversion.value.args

    monkeypatch.setattr(unfinished, "invert", invert)
    caption, empty = inverted("tampering")[0], inverted("partial_guidance")[0]
    assert not torch.equal(caption, empty)
    assert torch.equal(inverted("tampering", inversion_prompt="empty")[0], empty)
    assert torch.equal(inverted("partial_guidance", inversion_prompt="caption")[0], caption)
    assert inverted("tampering")[1] == 1
    assert inverted("tampering", inversion_guidance_scale=3.0)[1] == 3


def test_looks_and_motion_give_one_boundary_together(make, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(probe_figures, "write_figures", lambda *arguments: drawn.append(arguments[:2]))
    cfg = make(**{**PROBE, "edit_kinds": None}, data=MOVED)
    probe(cfg)
    ((folder, analysis),) = drawn
    assert folder == Path(cfg.output) / "squares" / "tiny" / "figures" / "tampering_motion_tampering"
    assert set(analysis.tampering["tiny", "motion-dominant"]) == {"tampering", "motion_tampering"}
    shown = capsys.readouterr().out
    assert shown.count("boundary, motion-dominant: ") == 1
    assert len(re.findall(r"^ reference +\d", shown, re.MULTILINE)) == 2  # a summary of each


class MovedSquares(Squares):
    """With an edit of all looks, and one of the motion."""

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        reference = super().read(name, frames, height, width)
        edits = (*reference.edits, Edit("multiple", f"{name} red ball"))
        return replace(reference, edits=edits, motion_edits=(Edit("motion", f"{name} jumps"),))


MOVED = {"_target_": f"{__name__}.MovedSquares"}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"probe": "tampering"}, ["multiple", "motion"]),
        ({"probe": "tampering", "edit_kinds": ["style"]}, ["style"]),
        ({"probe": "partial_guidance"}, ["multiple"]),
        ({}, ["style", "object", "multiple"]),
    ],
)
def test_a_probe_takes_all_looks_at_once_and_the_motion_unless_told_otherwise(make, changes, kinds):
    (reference,) = references.read_references(make(**changes, references=1), MovedSquares())
    assert [edit.kind for edit in reference.edits] == kinds


def test_a_suite_without_such_edits_gives_all_that_it_has(make):
    (reference,) = references.read_references(make(probe="tampering", references=1), Squares())
    assert [edit.kind for edit in reference.edits] == ["style", "object"]
    with pytest.raises(InputError, match=r"edit_kinds=\[motion\]: .*style, object.* reference one"):
        references.read_references(make(edit_kinds=["motion"], references=1), MovedSquares())


def test_captions_of_one_s_own_are_edits_of_one_kind_and_drawn_together(make, monkeypatch, capsys):
    monkeypatch.setattr("motionexp.probes.analysis.published.save", lambda figure, file: [file])
    changes = {"probe": "partial_guidance", "edit_kinds": None, "edits": ["one red", "one green"]}
    cfg = make(**{**PROBE, **changes})
    rows = probe(cfg)
    assert {row.edit_kind for row in rows} == {"caption"}
    assert len(rows) == 2 * 2 * 56
    folder = Path(cfg.output) / "squares" / "tiny" / "figures" / "partial_guidance"
    assert "motion-dominant, 2 samples of 1 reference." in (folder / "README.md").read_text()
    assert "undetermined" in capsys.readouterr().out


def test_a_probe_takes_six_references_unless_told_otherwise_and_tuning_one(make, monkeypatch):
    def count(**changes):
        return len(references.read_references(make(**changes), Squares()))

    assert make().references is None
    monkeypatch.setattr(Squares, "names", lambda self: [f"{number}" for number in range(9)])
    assert (count(), count(probe="tampering"), count(probe="tampering", references=2)) == (1, 6, 2)


def test_a_probe_with_an_adapter_is_refused(make):
    (problem,) = check(make(**PROBE, adapter="some/adapter", metrics=None))
    assert problem.startswith("adapter=some/adapter")


def test_partial_guidance_with_edits_of_the_motion_is_refused_before_weights_are_loaded(make, monkeypatch):
    kinds = tuple(Edit("motion", edit.caption) for edit in Squares().read("one", FRAMES, SIZE, SIZE).edits)
    read = references.read_references
    monkeypatch.setattr(
        inputs, "read_references", lambda *of, **how: [replace(read(*of, **how)[0], edits=kinds)]
    )
    monkeypatch.setattr(plan_module, "get_object", None)
    with pytest.raises(InputError, match=r"probe=partial_guidance: .*motion"):
        plan(make(probe="partial_guidance"))
