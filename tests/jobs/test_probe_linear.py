"""The linear probe as a job on a tiny random model: its rows, measured where they are missing."""

import re
from pathlib import Path

import pytest
import torch

from motionexp.config.compose import load
from motionexp.data.select import check_source
from motionexp.data.shapes.render import render
from motionexp.errors import InputError
from motionexp.jobs import probe_linear
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.probe_job import probe, probe_of
from motionexp.probes.analysis import linear_figures, linear_rows
from motionexp.probes.analysis import rows as analysis_rows
from motionexp.probes.analysis.linear_rows import BLOCKS, METRICS, OBSERVER, X_T, X_T_CLEAN, read_accuracies
from motionexp.results.intervals import resampled_weights
from motionexp.results.rows import read_rows
from tests.support.kept_results import plain
from tests.support.published_lines import to_published
from tests.support.tiny_models import SIZE

PROBE = {"probe": "linear_probe", "references": 3}


@pytest.fixture
def _small(monkeypatch):
    """Three timesteps, four training videos and two test videos of a group."""
    for module in (probe_linear, linear_rows):
        monkeypatch.setattr(module, "TIMESTEPS", (0, 600, 999))
    monkeypatch.setattr(probe_linear, "TRAIN", 4)
    monkeypatch.setattr(probe_linear, "TEST", 2)
    monkeypatch.setattr(probe_linear.grammar, "CONTRASTS", ("motion-dominant",))
    monkeypatch.setattr(
        analysis_rows, "resampled_weights", lambda references: resampled_weights(references)[:50]
    )

    def small(scene, frames, period=None):
        return render(scene, 16)[:frames, :: 64 // SIZE, :: 64 // SIZE]

    monkeypatch.setattr(probe_linear, "render", small)


@pytest.mark.usefixtures("_small")
def test_an_interrupted_probe_continues_and_ends_with_the_rows_of_a_whole_one(make, monkeypatch, capsys):
    cfg, read = make(**PROBE), probe_linear.LinearUnit.read
    (unit,) = probe_of(plan_job(cfg)).units

    def until_interrupted(unit, job, probe, distances, t, progress):
        if t == 999:
            raise KeyboardInterrupt
        return read(unit, job, probe, distances, t, progress)

    with monkeypatch.context() as patched:
        patched.setattr(probe_linear.LinearUnit, "read", until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            probe(cfg)
    assert (unit.missing, unit.stored, unit.cell.status()["state"]) == ([999], (2, 3), "interrupted")
    with pytest.raises(InputError, match="t = 999"):
        read_accuracies(unit.cell.rows())
    rows = probe(cfg)
    shown = capsys.readouterr().out
    # The cost comes first: 12 and 6 videos, and three pairs of five attributes.
    assert re.search(r"\b48 .*\b54 ", shown.splitlines()[0])
    assert "middle block" in shown
    folder = Path(cfg.output) / "squares" / "tiny" / "figures" / "linear_probe"
    assert {"linear-probe-all.csv", "tiny-motion-dominant.svg"} <= {path.name for path in folder.iterdir()}
    # A whole run, and the same command again, which reads nothing; to draw is the most of their time.
    monkeypatch.setattr(linear_figures, "write", lambda *of: [])
    assert [(row.metric, row.value) for row in probe(make(**PROBE, output=f"{cfg.output}-whole"))] == [
        (row.metric, row.value) for row in rows
    ]
    monkeypatch.setattr(probe_linear.LinearUnit, "run", None)
    assert plain(probe(cfg)) == plain(rows) == plain(read_rows(unit.cell.folder))
    capsys.readouterr()
    plan(cfg)
    assert "3 of 3 0 0 0 0 s 0 B" in " ".join(capsys.readouterr().out.split())
    # What the rows hold, and a published line for each timestep and each group of test videos and of pairs.
    assert {METRICS[row.metric][1] for row in rows} == {OBSERVER, X_T_CLEAN, X_T, *BLOCKS[1:]}
    names = ["temporal_transformer_blocks.0", "temporal_transformer_blocks.1"]
    assert list(rows[0].settings["blocks"].values()) == names
    assert to_published(rows).count('{"sample"') == 3 * (3 + 3)
    assert len({row.score_id for row in rows}) == len(rows)


def test_a_row_is_the_mean_of_its_group(make):
    (unit, _) = probe_of(plan_job(make(**PROBE))).units
    job = type("OfJob", (), {"model": unit.job.model, "origin": lambda self: {"model": "tiny"}})()
    values = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    rows = list(unit.rows(job, {}, 600, "accuracy: shape from x_t", values))
    assert [(row.reference, row.value) for row in rows] == [
        ("test 001-002", 0.5),
        ("test 003-004", 1.0),
        ("test 005-006", 0.0),
    ]


def test_settings_of_sampling_change_no_id_and_the_number_of_groups_does(make):
    def cells(**changes):
        return [unit.cell.folder.name for unit in probe_of(plan_job(make(**PROBE | changes))).units]

    first = cells()
    assert len({*first}) == 2
    assert cells(probe_steps=10, guidance_scale=3.0, inversion_guidance_scale=2.0) == first
    assert not {*first} & {*cells(references=None)}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("references=2", "references=2: .* from 3"),
        ("references=[01-wander-cyan-square]", "references=.* from 3"),
        ("edits=['a b']", "edits=: probe=linear_probe"),
        ("data=davis", "bundled world; leave out data="),
    ],
)
def test_videos_that_it_would_ignore_are_refused(base, override, words):
    with pytest.raises(InputError, match=words):
        load([*base, "probe=linear_probe", override])


def test_a_model_of_larger_videos_is_refused_without_advice_that_the_probe_refuses():
    with pytest.raises(InputError, match=r"probe=linear_probe: .*64 x 64.* 512 x 512: take a bundled model"):
        check_source(load(["model=latte", "probe=linear_probe"]))
