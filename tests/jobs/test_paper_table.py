"""Experiments on real models: what they cost, the table made of their jobs, and the data that they need."""

import socket
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from motionexp.cli import main
from motionexp.config.schema import JobConfig
from motionexp.jobs.experiment import experiment_jobs
from motionexp.jobs.paper_table import cost_of
from motionexp.results.comparisons import Comparison
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.rows import Row, append_rows
from motionexp.results.tables import Table, build
from tests.support.kept_results import job_row
from tests.support.made_suites import make_tgve

# Of a line of the table: what tells the job, and a column's key with its place.
COLUMNS = {
    "text_alignment": 100,
    "frame_consistency_consecutive": 200,
    "pick_score": 300,
    "flow_similarity": 400,
}


@pytest.fixture(scope="module")
def tgve(tmp_path_factory) -> str:
    return str(make_tgve(tmp_path_factory.mktemp("tgve") / "data"))


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    """Neither a network nor anything in the hub's cache; a job's plan, which loads weights, is a mistake."""

    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("motionexp.cli._run_hydra", None)


def jobs_of(name: str, model: str, tgve: str, output: Path, *more: str) -> tuple[Layout, list[JobConfig]]:
    overrides = [f"model={model}", "data=tgve", f"data.path={tgve}", "references=2", "seeds=2", *more]
    layout, _, jobs = experiment_jobs(name, [*overrides, f"output={output}"])
    return layout, jobs


def rows_of(cfg: JobConfig, number: int) -> list[Row]:
    """The rows of a job: its number and the column's, and around that by reference and seed, mean 0."""
    return [
        job_row(
            cfg,
            metric=metric,
            value=column + number + (0.5 if reference == "dav-0" else -0.5) + (0.1 if seed else -0.1),
            score_id=f"{cfg.model.name} {number} {metric} {reference} {kind} {seed}",
            suite="tgve",
            reference=reference,
            reference_hash=reference,
            strata={"source": "DAVIS_480p"},
            edit_kind=kind,
            seed=seed,
        )
        for metric, column in COLUMNS.items()
        for reference, kind, seed in product(("dav-0", "dav-1"), ("style", "object"), range(cfg.seeds))
    ]


def others_than(row: Row) -> list[Row]:
    """Rows that lie in the same folder and are of no job of the experiment."""
    changed = [{"settings": {**row.settings, "frames": 12}}, {"settings": {**row.settings, "rank": 2}},
               {"seed": 2}, {"reference": "dav-2"}, {"model": "show1"}, {"suite": "davis"},
               {"precision": "bf16"}, {"method": "tampering"}]  # fmt: skip
    return [replace(row, **change, value=9e9, score_id=f"other {n}") for n, change in enumerate(changed)]


def table_of(layout: Layout, jobs: list[JobConfig], output: Path) -> Table:
    rows = [row for number, cfg in enumerate(jobs) for row in rows_of(cfg, number)]
    append_rows(output / "rows.jsonl", [*rows, *others_than(rows[-1])])
    (table,) = build(Comparison(layout, selected_rows(layout, output)), *layout.tables)
    return table


@pytest.mark.parametrize(
    ("name", "model", "labels", "reported"),
    [
        ("tau", "latte", [f"tau={tau}" for tau in (1000, 750, 700, 650, 0)], "750, window"),
        (
            "full_rank",
            "modelscope",
            [
                f"tau={tau} train_steps={steps} method={method}"
                for method, steps in (("lora", 200), ("full_rank", 150))
                for tau in (600, 0)
            ],
            None,
        ),
        (
            "projections",
            "latte",
            ["projections=['v', 'o']", "projections=['q', 'k', 'v', 'o']"],
            "motion attention, v, o",
        ),
    ],
)
def test_a_run_on_a_real_model_has_a_table_with_a_line_a_job(name, model, labels, reported, tgve, tmp_path):
    layout, jobs = jobs_of(name, model, tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    measured, *below = table.blocks
    assert measured.title == model
    assert [set(line.labels[0].split()) for line in measured.lines] == [
        set(label.split()) for label in labels
    ]
    # Two references x two kinds x two seeds; no column of ground truth.
    assert {line.n for line in measured.lines} == {"8 (2)"}
    assert table.columns == ["text alignment ↑", "consistency ↑", "pick score ↑", "flow ↑"]
    for number, line in enumerate(measured.lines):
        means = [cell.interval.mean for cell in line.cells]
        assert means == pytest.approx([column + number for column in COLUMNS.values()])
    lines = [line for block in below for line in block.lines]
    assert {line.source for line in lines} == ({"reported"} if reported else set())
    assert not reported or [reported] in [line.labels for line in lines]


def test_each_real_model_has_a_block_of_its_own(tgve, tmp_path):
    layout, jobs = jobs_of("tau", "latte,cogvideox_2b", tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    assert [block.title for block in table.blocks[:2]] == ["latte", "cogvideox_2b"]
    for block, taus in zip(table.blocks, ((1000, 750, 700, 650, 0), (1000, 950, 900, 850, 0)), strict=False):
        assert [line.labels for line in block.lines] == [[f"tau={tau}"] for tau in taus]
    assert [block.title.partition(": ")[0] for block in table.blocks[2:]] == ["Reported"] * 3


def test_edit_kinds_stay_apart_on_real_models(tgve, tmp_path):
    layout, jobs = jobs_of("edit-kinds", "latte", tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    titles = [block.title for block in table.blocks if not block.title.startswith("Reported")]
    assert titles == ["latte, style", "latte, object"]


def test_the_table_is_printed_after_the_run(tgve, tmp_path, monkeypatch, capsys):
    _, jobs = jobs_of("tau", "latte", tgve, tmp_path)
    rows = [row for number, cfg in enumerate(jobs) for row in rows_of(cfg, number)]
    monkeypatch.setattr("motionexp.cli._run_hydra", lambda _: append_rows(tmp_path / "rows.jsonl", rows))
    overrides = ["model=latte", "data=tgve", f"data.path={tgve}", "references=2", "seeds=2"]
    assert main(["experiment=tau", *overrides, f"output={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "tau=700" in shown
    assert "31.96" in shown


def test_a_dry_run_without_weights_counts_and_asks_nobody(tgve, tmp_path, offline, capsys):
    overrides = ["model=latte", "data=tgve", f"data.path={tgve}", f"output={tmp_path}", "dry_run=true"]
    assert main(["experiment=tau", *overrides]) == 0
    shown = capsys.readouterr().out
    # Four of five jobs train; 76 references x 4 edits x 4 seeds; two branches of 50 steps.
    assert f"{4 * 76 * 200:,} training steps, {5 * 1216:,} samples, {5 * 1216 * 100:,} network" in shown
    assert "`python run.py model=latte dry_run=true` on the machine itself times a step" in shown
    assert "2 cores" not in shown
    assert "5. tau=0: 76 cells" in shown
    assert "hf download maxin-cn/Latte-1 --revision" in shown


def test_adapters_that_an_earlier_job_keeps_cost_no_training(tgve, tmp_path):
    _, jobs = jobs_of("steps", "latte", tgve, tmp_path, "guidance_scale=1")
    assert len(jobs) == 12
    samples = 12 * 2 * 4 * 2
    assert cost_of(jobs).startswith(
        f"{2 * 2 * 800:,} training steps, {samples} samples, {samples * 50:,} netw"
    )


def test_a_real_model_is_not_run_on_the_shapes(tmp_path, offline, capsys):
    for more in ([], ["dry_run=true"]):
        assert main(["experiment=tau", "model=latte", f"output={tmp_path}", *more]) == 2
        assert "model=latte is for real videos" in capsys.readouterr().err
