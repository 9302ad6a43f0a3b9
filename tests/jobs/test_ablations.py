"""Experiments on the bundled models: each job is one line of a table, and each file says what it has to."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from motionexp.config.options import EXPERIMENTS
from motionexp.config.schema import JobConfig
from motionexp.jobs import experiment
from motionexp.jobs.experiment import experiment_jobs
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows
from tests.support.kept_results import job_row

ABLATIONS = (
    *("comparison", "contrast", "edit-kinds", "full_rank", "length", "models", "projections", "rank"),
    *("references", "soft-window", "steps", "tau", "window"),
)
PUBLISHED = ("text", "consistency", "pick")
ALWAYS = ("motion", "replaced", "nuisances")


@cache
def ablation(name: str) -> tuple[Layout, list[JobConfig]]:
    """The layout of an experiment, and its jobs on the bundled models without most adapter scales."""
    jobs_of = experiment._jobs

    def at_scale_one(overrides):  # to check a job takes 0.03 s
        fixed, jobs = jobs_of(overrides)
        return fixed, [
            job for job in jobs if "adapter_scale=1" in job or "adapter_scale" not in str(job)
        ] or jobs[:1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_jobs", at_scale_one)
        layout, _, jobs = experiment_jobs(name, ["output=outputs"])
    return layout, jobs


def row_of(cfg: JobConfig, **changes) -> Row:
    """One of the rows that a job leaves."""
    strata = {"split": "benchmark", "contrast": "motion-dominant", "motion": "uncaptioned"}
    if cfg.data.get("appearances", 1) > 1:
        strata["appearances"] = str(cfg.data["appearances"])
    if "Captioned" in cfg.data["_target_"]:
        strata["captions"] = "captioned"
    return job_row(cfg, strata=strata, **changes)


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_job_is_one_line_of_an_ablations_tables(name, tmp_path):
    layout, jobs = ablation(name)
    rows = [row_of(cfg, score_id=str(number)) for number, cfg in enumerate(jobs)]
    base = next(row for row in rows if row.method == "base")
    probed = replace(base, method="tampering", tau_start="900", tau_end="0", score_id="probed")
    append_rows(tmp_path / "rows.jsonl", [*rows, probed])
    assert len(selected_rows(layout, tmp_path)) == len(rows)
    filled = set()
    for row in rows:
        names = [key for key, setting in layout.settings.items() if setting.selects(row, layout.select)]
        # The curve of scales is no line of its own.
        assert len(names) == (row.adapter_scale == 1), (names, row.settings["tau"])
        filled |= set(names)
    assert filled == set(layout.settings)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_says_what_it_has_to(name):
    path = EXPERIMENTS / f"{name}.yaml"
    layout, text = read_layout(path), path.read_text()
    assert all(line in text for line in (f"# python run.py experiment={name}", "# cost", "# last run: "))
    assert layout.verdict
    assert layout.decision
    cost = " ".join(layout.cost.split())
    assert ("on 2 cores" in cost and "on one H100" in cost) or "the cells of experiment=tau" in cost
    for table in (table for table in layout.tables if not table.dominance):
        assert {*PUBLISHED, *ALWAYS} <= set(table.columns)
        assert table.default in table.settings
        assert all({"contrast", "frames"} & set(group.select) for group in table.groups)
    assert sum(setting.base for setting in layout.settings.values()) == 1


def test_the_soft_windows_have_the_hard_ones_area():
    layout, jobs = ablation("soft-window")
    windows = [cfg.soft_window for cfg in jobs if cfg.soft_window]
    areas = [
        sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise([*knots, [1000.0, 1.0]]))
        for knots in windows
    ]
    assert areas == pytest.approx([300, 300, 300, 300, 293])
    selects = [setting.select for setting in layout.settings.values()]
    assert {str(knots) for knots in windows} == {
        select["soft_window"] for select in selects if "soft_window" in select
    }
