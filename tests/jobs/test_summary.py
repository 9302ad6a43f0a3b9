"""Grids, summaries and plans, and the energies beside a probe."""

import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from rich.console import Console

from motionexp.data.shapes.energies import Energy
from motionexp.jobs import job, probe_rows
from motionexp.jobs.dry_run import plan
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.run import run
from motionexp.jobs.summary import print_summary
from motionexp.results.rows import Row, read_rows


def test_the_grid_has_a_column_for_each_cell_that_is_there(make, monkeypatch):
    seen = []
    original = job.write_grid

    def spy(path, reference, columns):
        seen.append([label for label, samples, requests in columns if samples.cell.has_sample(requests[0])])
        return original(path, reference, columns)

    monkeypatch.setattr(job, "write_grid", spy)
    for tau in (1000.0, 0.0, 500.0, 250.0):
        run(make(tau=tau))
    assert seen[0] == ["base"]
    assert seen[2] == ["base", "τ = 0", "τ = 500"]
    assert seen[3] == ["base", "τ = 0", "τ = 500", "τ = 250"]


def test_the_summary_subtracts_chance_and_leaves_out_what_abstained(capsys):
    row = {"suite": "shapes", "reference": "a", "model": "tiny", "method": "lora", "tau": 500.0, "steps": 50}
    row |= {"metric_version": 1, "adapter_steps": 25, "precision": "fp32", "edit_kind": "style"}
    row |= {"edit_caption": "a [red] ball"}
    rows = [
        Row(metric="nuisance_similarity", value=0.75, sample_id="1", **row),
        Row(metric="nuisance_chance", value=0.25, sample_id="1", **row),
        Row(metric="velocity_similarity", value=float("nan"), reason="lost", sample_id="1", **row),
        Row(metric="velocity_similarity", value=0.8, sample_id="2", seed=1, **row),
        Row(metric="text_alignment", value=-1.25, sample_id="1", **row),
    ]
    print_summary(Console(width=80), rows, [Path("out/[1]")], [])
    shown = capsys.readouterr().out
    assert "25 of 50" in shown
    assert "style: a [red] ball" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["samples", "2"] in lines
    assert ["motion", "similarity", "0.80"] in lines
    assert ["background", "leakage", "0.50"] in lines
    assert ["text", "alignment", "\N{MINUS SIGN}1.25"] in lines, "a sweep's table has another minus sign"
    assert "out/[1]" in shown
    assert "motion similarity: no value for 1 of 2 samples (lost)" in shown
    print_summary(Console(width=80), rows, [], [], of_base=rows[:3])
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["motion", "similarity", "0.80", "–"] in lines  # of the edit, and of the base model
    assert ["samples", "2", "1"] in lines
    reason = "no value for 1 of 2 samples and for 1 of 1 in the column 'base model' (lost)"
    assert reason in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_every_score_is_a_line_of_one_table_with_the_level_of_chance_below_it(capsys):
    row = {"suite": "tgve", "reference": "a", "model": "m", "method": "lora", "tau": 500.0, "steps": 50}
    row |= {"metric_version": 1, "edit_kind": "style", "sample_id": "1"}
    values = {"text_alignment": 31.5, "motion_fidelity": 0.75, "motion_fidelity_chance": 0.5}
    values |= {"mf_ditflow": 0.625, "mf_ditflow_chance": 0.25}
    rows = [Row(metric=name, value=value, **row) for name, value in values.items()]
    rows += [
        Row(metric=name, value=0.0, **row | {"strata": {"sanity_baseline": "frozen"}}) for name in values
    ]
    print_summary(Console(width=80), rows, [], [])
    shown = capsys.readouterr().out
    assert shown.count("means") == 1
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    first = lines.index("text alignment 31.50 0.00")
    assert lines[first + 1 : first + 5] == [
        "motion fidelity 0.75 0.00",
        "motion fidelity by chance 0.50 0.00",
        "DiTFlow's fidelity 0.62 0.00",
        "DiTFlow's fidelity by chance 0.25 0.00",
    ]
    print_summary(Console(width=80), rows[:1], [], [])
    assert "fidelity" not in capsys.readouterr().out


def test_a_plan_says_what_would_run_and_writes_nothing(make, capsys):
    cfg = make(references=2, seeds=3)
    plan(cfg)
    shown = capsys.readouterr().out
    assert not Path(cfg.output).exists()
    # Rank 2 on v and o of two blocks of width 16: 2 x 2 x 2 x (16 + 16).
    assert re.search(r"\b256 .*lora", shown)
    assert "1 of 2" in shown
    assert shown.count("output: ") == 2
    run(cfg)
    plan(cfg)
    assert "done" in capsys.readouterr().out


def test_energies_are_measured_once_for_each_thing_that_they_depend_on(make, monkeypatch, tmp_path):
    measured: list[str] = []

    def measure(contrast, factor, encode, frames, chroma):
        measured.append(factor)
        return Energy(contrast, factor, float(measured.count(factor)), 1)

    def energies_of(precision="fp32", weights="a" * 64, size=(4, 16, 16)):
        plan = SimpleNamespace(model=make().model, size=size, folder=lambda suite: tmp_path / suite)
        plan.references = [SimpleNamespace(truth=None)]
        plan.precision, plan.backbone = precision, SimpleNamespace(weights_hash=weights)
        origin = {"model": "tiny", "precision": precision, "weights_hash": weights}
        job = SimpleNamespace(plan=plan, backbone=plan.backbone, precision=precision, origin=lambda: origin)
        job.locked = lambda cell: cell.locked(lambda: None)
        return probe_rows.energy_rows(job)

    kinds = tuple(("motion-dominant", factor) for factor in ("shape", "motion"))
    monkeypatch.setattr(probe_rows, "KINDS", kinds)
    # An interrupt loses none that is measured.
    monkeypatch.setattr(
        probe_rows, "energy_of", Mock(side_effect=[measure(*kinds[0], None, 4, 1.0), KeyboardInterrupt])
    )
    with pytest.raises(KeyboardInterrupt):
        energies_of()
    monkeypatch.setattr(probe_rows, "energy_of", measure)
    first, again, bf16 = energies_of(), energies_of(), energies_of(precision="bf16")
    rest = [
        energies_of(weights="b" * 64),
        *(energies_of(size=s) for s in ((32, 16, 16), (4, 32, 16), (4, 16, 32))),
    ]
    monkeypatch.setattr(probe_rows, "METRIC_VERSION", probe_rows.METRIC_VERSION + 1)
    rows = [first, again, bf16, *rest, energies_of()]
    assert [[row.value for row in of_call] for of_call in rows] == [[n] * 2 for n in (1, 1, 2, 3, 4, 5, 6, 7)]
    assert len(measured) == 14
    # The ids differ, so that nothing is lost where rows of several cells are read together.
    assert len(read_rows(tmp_path)) == 14
    assert {(row.precision, row.settings["frames"]) for row in bf16 + rest[1]} == {("bf16", 4), ("fp32", 32)}


def test_a_grid_is_labelled_by_what_differs_and_no_other_setting_overwrites_it(make):
    changes = ({}, {"train_steps": 3}, {"seed": 1}, {"adapter_scale": 0.5}, {"edits": ["two red"]})
    plans = [plan_job(make(tau=250.0, **changed)).cells[0] for changed in changes]
    assert len({cell.grid_name for cell in plans}) == len(changes)
    last = [cell.columns[-1][0] for cell in plans]
    assert [label.split(", ") for label in last[:3]] == [
        ["τ = 250"],
        ["τ = 250", "train_steps = 3"],
        ["τ = 250", "seed = 1"],
    ]
    assert plans[1].grid_name.startswith("one-tau-250-train_steps-3")
