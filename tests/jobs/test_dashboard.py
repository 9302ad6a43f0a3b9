"""The workspace of W&B: its panels show what loggers write, and its JSON is W&B's own."""

import importlib.util
import json

import pytest
import wandb

from motionexp.cli import main
from motionexp.config.metrics import chosen_metrics
from motionexp.jobs import dashboard
from motionexp.jobs.dashboard import CURVES, PLANES, make_workspace, to_json
from motionexp.jobs.summary import headings

installed = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="needs motionexp[dashboard]"
)


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch):
    monkeypatch.setattr(wandb, "login", lambda *, prompt: False)


def test_its_scores_are_those_that_runs_have():
    names = {heading for heading, _ in headings(chosen_metrics(None)).values()}
    assert names >= {*CURVES, *(name for plane in PLANES for name in plane)}


def test_where_the_package_is_missing_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda _: None)
    assert main(["dashboard"]) == 2
    assert "motionexp[dashboard]" in capsys.readouterr().err


def test_another_word_is_refused(capsys):
    assert main(["dashboard", "projects=x"]) == 2
    assert "did you mean project" in capsys.readouterr().err


@installed
def test_without_a_login_it_writes_json_that_wandb_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert main(["dashboard", "project=mine", f"output={tmp_path}"]) == 0
    path = tmp_path / "dashboard.json"
    assert str(path) in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert content["project"] == "mine"
    sections = content["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections][:3] == [
        *("Scores over tau", "Motion against leakage", "Samples by reference"),
    ]
    curve = sections[0]["panels"][0]["config"]
    assert (curve["xAxis"], curve["metrics"], curve["groupArea"]) == (
        "tau",
        ["scores/motion similarity"],
        "stderr",
    )
    assert curve["groupBy"] == "curve.value"  # one key for all that makes a line one thing
    assert '"failures"' in json.dumps(sections[-1])
    assert content["spec"]["section"]["runSets"][0]["grouping"] == [
        {"section": "config", "name": "reference.value"}
    ]


@installed
def test_a_panel_that_wandb_does_not_know_is_an_error(monkeypatch):
    workspace = make_workspace("", "mine")
    model = workspace._to_model()
    monkeypatch.setattr(type(model), "model_dump_json", lambda *_, **__: '{"spec": {"section": 3}}')
    with pytest.raises(ValueError, match="validation error"):
        to_json(workspace)
