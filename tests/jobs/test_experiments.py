"""What experiments/*.yaml say: their keys, their sweeps, and which rows they take."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from motionexp.cli import main
from motionexp.config.options import EXPERIMENTS
from motionexp.config.schema import JobConfig
from motionexp.jobs.experiment import experiment_jobs
from motionexp.results.layout import selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows
from tests.support.kept_results import job_row

ROOT = Path(__file__).parents[2]
PROBES = {"probe-tampering": "multiple", "probe-motion": "motion", "probe-guidance": "multiple"}
WHOLE = {
    "question": "Which?",
    "cost": "nothing",
    "sweep": "[model=tiny_latte tau=0]",
    "rows": '""',
    "select": "{}",
    "settings": "{}",
    "columns": "{}",
    "tables": "[]",
}


def row_of(cfg: JobConfig, reference: str, kind: str) -> Row:
    """One of the rows that a probe's job leaves."""
    method = f"motion_{cfg.probe}" if kind == "motion" else cfg.probe
    where = {"reference": reference, "edit_kind": kind, "tau_start": "900", "tau_end": "0"}
    changes = {"method": method, "steps": cfg.probe_steps, "score_id": f"{cfg.model.name} {reference}"}
    return job_row(cfg, **where, **changes, tau=1000.0)


def energy_of(cfg: JobConfig) -> Row:
    """One of the energies that a job of probes leaves."""
    strata = {"contrast": "motion-dominant", "factor": "shape"}
    about = {"metric": "energy", "method": "energies", "reference": "energies", "edit_kind": "", "steps": 0}
    about |= {"settings": {"model": asdict(cfg.model), "frames": cfg.frames}, "reference_hash": ""}
    return job_row(cfg, **about, strata=strata, score_id=f"energy {cfg.model.name}", tau=1000.0)


def others_than(row: Row) -> list[Row]:
    """Rows of other probes of the same model in the same precision, and one in another."""
    changed: list[dict[str, object]] = [
        {"strata": {**row.strata, "split": "tuning"}},
        {"strata": {**row.strata, "captions": "captioned"}},
        {"edit_kind": "style"},
        {"edit_kind": "caption"},
        {"reference": "04-wander-pink-cross"},
        {"steps": 10},
        {"settings": {**row.settings, "frames": 32}},
        {"precision": "bf16"},
        {"method": "lora"},
        {"suite": "clip"},
    ]
    return [replace(row, **change, score_id=f"{number} other") for number, change in enumerate(changed)]


@pytest.mark.parametrize(("name", "kind"), PROBES.items())
def test_a_probes_experiment_takes_the_rows_of_its_own_jobs_alone(name, kind, tmp_path):
    layout, _, jobs = experiment_jobs(name, [f"output={tmp_path}"])
    assert len(jobs) == 3
    probed = [row_of(cfg, reference, kind) for cfg in jobs for reference in cfg.references]
    assert len({row.reference for row in probed}) == 12
    energies = [energy_of(cfg) for cfg in jobs]
    longer = replace(energies[0], settings={**energies[0].settings, "frames": 32}, score_id="longer")
    append_rows(tmp_path / "rows.jsonl", [*probed, *others_than(probed[0]), *energies, longer])
    expected = [*probed, *energies] if name == "probe-tampering" else probed
    assert {row.score_id for row in selected_rows(layout, tmp_path)} == {row.score_id for row in expected}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"question": None}, "question: "),
        ({"swep": "[]"}, "swep: "),
        ({"sweep": '[model=tiny_latte tau=0, " "]'}, "{path}: line 2 of `sweep`"),
        ({"sweep": "[]"}, "`sweep` in {path}"),
        ({"sweep": "[model=tiny_latte tau=0, model.path=a tau=0]"}, "line 2 of `sweep`"),
        ({"sweep": '["model=tiny_latte caption=\'a ball"]'}, "{path}: line 1 of `sweep`"),
        ({"sweep": "[model: tiny_latte]"}, "{{'model': 'tiny_latte'}}"),
        ({"sweep": "[5]"}, "{path}: line 1 of `sweep`"),
        ({"paper": "[null]"}, "{path}: line 1 of `paper`"),
        ({"sweep": "null"}, "{path}: sweep: "),
        ({"sweep": "[model=tiny_latte tau=0 model=tiny_unet3d]"}, "line 1 of `sweep`"),
        ({"sweep": "[model=tiny_latte tauu=700]"}, "{path}, line 1 of `sweep` with {output}: tauu"),
        ({"sweep": '["model=tiny_latte tau=[0"]'}, "{path}, line 1 of `sweep` with {output}: "),
        (
            {"tables": "[{file: one, title: 1, labels: [], settings: [], groups: [{title: a, selct: {}}]}]"},
            "{path}: tables 1 (one): groups 1 (a): selct: ",
        ),
        ({"settings": "{a: {labels: [], select: {}, bse: true}}"}, "{path}: settings a: bse"),
    ],
)
def test_a_wrong_experiment_is_an_error_before_anything_is_loaded(
    changes, problem, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("motionexp.jobs.plan.get_object", None)  # which loads a model
    path = write_experiment(tmp_path, monkeypatch, changes)
    assert main(["experiment=mine", f"output={tmp_path}"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert problem.format(path=path, output=f"output={tmp_path}") in shown


def write_experiment(folder: Path, monkeypatch, changes: dict[str, str | None]) -> Path:
    """Write experiments/mine.yaml, complete but for the changes; None leaves a key out."""
    monkeypatch.setattr("motionexp.jobs.experiment.EXPERIMENTS", folder)
    lines = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


def test_a_model_may_be_named_on_the_command_line(tmp_path, monkeypatch):
    write_experiment(tmp_path, monkeypatch, {"sweep": "[tau=0]"})
    _, _, (cfg,) = experiment_jobs("mine", ["model=tiny_unet3d", f"output={tmp_path}"])
    assert cfg.model.name == "tiny_unet3d"


def test_make_reproduce_runs_every_experiment_whose_rows_are_published():
    (names,) = re.findall(r"^REPRODUCED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    layouts = {path.stem: read_layout(path) for path in EXPERIMENTS.glob("*.yaml")}
    assert sorted(names.split()) == sorted(
        name
        for name, layout in layouts.items()
        if layout.rows and layout.sweep and (ROOT / layout.rows).exists()
    )
