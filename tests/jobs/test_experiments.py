"""What experiments/*.yaml say: their keys, their sweeps, and which rows they take."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from motionexp.cli import main
from motionexp.config.compose import EXPERIMENTS
from motionexp.config.schema import JobConfig
from motionexp.jobs.experiment import experiment_jobs
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows

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
    assert method is not None
    return Row(
        metric="text_alignment",
        metric_version=1,
        value=1.0,
        score_id=f"{cfg.model.name} {method} {reference}",
        suite="shapes",
        reference=reference,
        reference_hash="hash",
        strata={"split": cfg.data["split"], "contrast": "motion-dominant", "motion": "uncaptioned"},
        edit_kind=kind,
        tau_start="900",
        tau_end="0",
        model=cfg.model.name,
        method=method,
        tau=1000.0,
        steps=cfg.probe_steps,
        settings=asdict(cfg),
        precision=cfg.precision,
    )


def energy_of(row: Row) -> Row:
    own = {
        "strata": {"contrast": "motion-dominant", "factor": "shape"},
        "edit_kind": "",
        "tau_start": "",
        "tau_end": "",
    }
    about = {
        "metric": "energy",
        "method": "energies",
        "steps": 0,
        "reference": "energies",
        "reference_hash": "",
    }
    settings = {"model": row.settings["model"], "frames": row.settings["frames"]}
    return replace(row, **own, **about, settings=settings, score_id=f"energy {row.model} {row.method}")


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
    return [replace(row, **each, score_id=f"{number} other") for number, each in enumerate(changed)]


@pytest.mark.parametrize(("name", "kind"), PROBES.items())
def test_a_probes_experiment_takes_the_rows_of_its_own_jobs_alone(name, kind, tmp_path):
    layout, _, jobs = experiment_jobs(name, [f"output={tmp_path}"])
    assert len(jobs) == 3
    own = [row_of(cfg, reference, kind) for cfg in jobs for reference in cfg.references]
    assert len({row.reference for row in own}) == 12
    energies = [energy_of(row_of(cfg, "", kind)) for cfg in jobs]
    longer = replace(energies[0], settings={**energies[0].settings, "frames": 32}, score_id="longer")
    append_rows(tmp_path / "rows.jsonl", [*own, *others_than(own[0]), *energies, longer])
    wanted = [*own, *energies] if name == "probe-tampering" else own
    assert {row.score_id for row in selected_rows(layout, tmp_path)} == {row.score_id for row in wanted}


@pytest.mark.parametrize("name", ["tau", "tau_selection"])
def test_tables_of_tuning_take_no_row_of_a_probe(name, tmp_path):
    layout = read_layout(EXPERIMENTS / f"{name}.yaml")
    base = _tuned(layout)
    probed = replace(base, method="tampering", tau_start="900", tau_end="0", score_id="probed")
    append_rows(
        tmp_path / "rows.jsonl", [base, replace(base, method="lora", tau=700.0, score_id="lora"), probed]
    )
    assert {row.score_id for row in selected_rows(layout, tmp_path)} == {"base", "lora"}


def _tuned(layout: Layout) -> Row:
    split = layout.select["split"]
    return Row(
        metric="text_alignment",
        metric_version=1,
        value=1.0,
        score_id="base",
        suite="shapes",
        reference="01-wander-cyan-square",
        reference_hash="hash",
        strata={"split": split, "contrast": "motion-dominant", "motion": "named"},
        model="tiny_latte",
        method="base",
        tau=1000.0,
        steps=25,
        precision="fp32",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": None}, "question: the key is missing"),
        ({"sweep": None}, "sweep: the key is missing"),
        ({"swep": "[]"}, "swep: there is no such key; there are question, cost, sweep"),
        ({"sweep": '[""]'}, "line 1 of `sweep` is empty"),
        ({"sweep": '[model=tiny_latte tau=0, " "]'}, "line 2 of `sweep` is empty"),
        ({"sweep": "[]"}, "`sweep` in {path} has no line, so that there is nothing to run"),
        (
            {"sweep": "[tau=0]"},
            "line 1 of `sweep` names no model; add model= and one or more",
        ),
        (
            {"sweep": "[model=tiny_latte tau=0, model.path=a tau=0]"},
            "line 2 of `sweep` names no model",
        ),
        ({"sweep": "[model= tau=0]"}, "model=: one of "),
        (
            {"sweep": '["model=tiny_latte tau=0", "model=tiny_latte caption=\'a ball"]'},
            "{path}: line 2 of `sweep` has a quote that is not closed (model=tiny_latte caption='a ball)",
        ),
        (
            {"sweep": "[model: tiny_latte]"},
            "{path}: sweep 1: is {{'model': 'tiny_latte'}} and no text; put it in quotes",
        ),
        ({"sweep": "[5]"}, "{path}: line 1 of `sweep` is no text but 5; write"),
        ({"paper": "[null]"}, "{path}: line 1 of `paper` is empty"),
        ({"sweep": "null"}, "{path}: sweep: is None and no list; each sweep is a line under it"),
        ({"sweep": "model=tiny_latte"}, "{path}: sweep: is 'model=tiny_latte' and no list"),
        (
            {"sweep": "[model=tiny_latte tau=0 model=tiny_unet3d]"},
            "{path}: line 1 of `sweep` gives model more than once",
        ),
        (
            {"sweep": "[model=tiny_latte tau=0, model=tiny_latte tauu=700]"},
            "{path}, line 2 of `sweep` with {output}: tauu: there is no such setting; did you mean tau?",
        ),
        ({"sweep": "[model=tiny_lattte]"}, "{path}, line 1 of `sweep` with {output}: model=tiny_lattte: one"),
        ({"sweep": '["model=tiny_latte tau=[0"]'}, "{path}, line 1 of `sweep` with {output}: cannot read"),
        (
            {"tables": "[{file: one, title: 1, labels: [], settings: [], groups: [{title: a, selct: {}}]}]"},
            "{path}: tables 1 (one): groups 1 (a): selct: there is no such key; there are title, select",
        ),
        ({"tables": "[{file: one}]"}, "{path}: tables 1 (one): title: the key is missing"),
        ({"figures": "[{foo: 1}]"}, "{path}: figures 1: foo: there is no such key; there are file, title, x"),
        (
            {"settings": "{a: {labels: [], select: {}, bse: true}}"},
            "{path}: settings a: bse: there is no such key; there are labels, select, or_select, base",
        ),
    ],
)
def test_what_is_wrong_with_an_experiment_is_said_before_anything_is_loaded(
    changes, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("motionexp.jobs.experiment.EXPERIMENTS", tmp_path)
    monkeypatch.setattr("motionexp.jobs.inputs.get_object", None)  # which loads a model
    path = tmp_path / "mine.yaml"
    whole = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    path.write_text("".join(f"{key}: {value}\n" for key, value in whole.items()))
    assert main(["experiment=mine", f"output={tmp_path}"]) == 2
    (shown,) = [" ".join(capsys.readouterr().err.split())]
    assert said.format(path=path, output=f"output={tmp_path}") in shown


def test_a_model_may_be_named_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("motionexp.jobs.experiment.EXPERIMENTS", tmp_path)
    text = "".join(f"{key}: {value}\n" for key, value in {**WHOLE, "sweep": "[tau=0]"}.items())
    (tmp_path / "mine.yaml").write_text(text)
    _, _, (cfg,) = experiment_jobs("mine", ["model=tiny_unet3d", f"output={tmp_path}"])
    assert cfg.model.name == "tiny_unet3d"


def test_make_reproduce_runs_every_experiment_whose_rows_are_published():
    said = re.search(r"^REPRODUCED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert said is not None
    layouts = {path.stem: read_layout(path) for path in EXPERIMENTS.glob("*.yaml")}
    assert sorted(said[1].split()) == sorted(
        name for name, each in layouts.items() if each.rows and each.sweep
    )
