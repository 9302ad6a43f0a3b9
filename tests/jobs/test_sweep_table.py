"""The table at the end of a sweep, as the command line makes it from the rows of its jobs."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from motionexp.errors import InputError
from motionexp.jobs.experiment import _row_of
from motionexp.results.rows import append_rows, read_rows
from tests.support.stub_jobs import Jobs, run

VALUES = {
    "velocity_similarity": 0.5,
    "nuisance_similarity": 0.4,
    "nuisance_chance": 0.1,
    "text_alignment": 30.0,
}

pytestmark = pytest.mark.usefixtures("quiet")


class Writing(Jobs):
    """Jobs that write rows of their samples, and of the base model, and do nothing else."""

    def run(self, cfg):
        super().run(cfg)
        for job in (replace(cfg, tau=1000.0), cfg):
            row = _row_of(job)
            folder = (
                Path(cfg.output) / row.suite / row.model / f"{row.method} {cfg.tau} {cfg.rank} {cfg.seed}"
            )
            append_rows(folder / "rows.jsonl", list(self.rows_of(row, cfg)))

    def rows_of(self, row, cfg):
        for seed in range(cfg.seeds):
            for metric, value in VALUES.items():
                sample = f"{row.method} {row.tau} {cfg.rank} {cfg.seed} {seed}"
                about = {"edit_kind": "style", "edit_caption": "a", "seed": seed, "sample_id": sample}
                number = value + row.tau / 1e4
                yield replace(row, metric=metric, value=number, score_id=f"{sample} {metric}", **about)


@pytest.fixture
def writing(monkeypatch):
    jobs = Writing()
    for module in ("run", "dry_run", "probe_job", "sweep_cost"):
        monkeypatch.setitem(sys.modules, f"motionexp.jobs.{module}", jobs)
    return jobs


def lines_of(shown: str, first: str) -> list[list[str]]:
    """The lines that begin with a word, split into words."""
    return [line.split() for line in shown.splitlines() if line.startswith(f" {first} ")]


def test_a_sweep_prints_one_table_and_says_where_it_lies(base, writing, capsys):
    assert run(["-m", *base, "tau=0,650,1000"]) == 0
    shown = capsys.readouterr().out
    assert "3 jobs by tau" in shown
    assert [line[0] for line in lines_of(shown, "650")] == ["650", "650"]  # its means, its differences
    assert lines_of(shown, "650")[0][3:5] == ["0.56", "0.30"]
    assert "difference to all timesteps (tau=0), paired" in shown
    table = shown[shown.index("3 jobs by") :].splitlines()
    assert max(len(line) for line in table if not line.startswith("table")) <= 80
    (file,) = re.findall(r"table.*: (\S+)\.md and \.csv", shown)
    assert "| 650 |" in Path(file + ".md").read_text()
    assert ",650," in Path(file + ".csv").read_text()


def test_rows_of_other_jobs_in_the_folder_stay_out(base, writing, capsys):
    assert run(["-m", *base, "tau=300", "rank=2"]) == 0
    capsys.readouterr()
    assert run(["-m", *base, "rank=4,8", "seeds=2"]) == 0
    shown = capsys.readouterr().out
    assert "300" not in shown
    assert [line[1] for line in lines_of(shown, "700")] == ["4", "8", "4", "8"]
    assert "base model" in shown, "no job of the sweep is that of the base model"
    assert len(read_rows(Path(base[1].removeprefix("output=")))) > 4 * len(VALUES)


def test_a_sweep_of_seeds_has_a_base_model_for_each(base, writing, capsys):
    assert run(["-m", *base, "seed=0,1"]) == 0
    shown = capsys.readouterr().out
    assert [line[2] for line in lines_of(shown, "base model")] == ["0", "1"]


def test_two_models_have_a_block_each(base, writing, capsys):
    assert run(["-m", base[1], "model=tiny_latte,tiny_unet3d", "rank=1,4"]) == 0
    shown = capsys.readouterr().out
    assert "tiny_latte on shapes" in shown
    assert "tiny_unet3d on shapes" in shown
    assert [line[1] for line in lines_of(shown, "700")][:2] == ["1", "4"]


def test_full_rank_beside_lora_shows_the_learning_rate_that_comes_with_it(base, writing, capsys):
    assert run(["-m", *base, "method=lora,full_rank"]) == 0
    shown = capsys.readouterr().out
    assert "learning" in shown
    assert lines_of(shown, "700")[0][1] in ("lora", "full_rank")


def test_where_a_job_fails_the_table_has_those_that_finished(base, writing, capsys):
    writing.error = {300: InputError("no")}
    original = writing.rows_of
    writing.rows_of = lambda row, cfg: original(row, cfg) if cfg.tau != 300 else []
    assert run(["-m", *base, "tau=0,300,650"]) == 1
    shown = capsys.readouterr()
    assert "2 of 3 jobs by tau" in shown.out
    assert lines_of(shown.out, "650")
    assert not lines_of(shown.out, "300")
    assert "tau=300" in shown.err


def test_an_interrupted_sweep_has_its_table_when_it_is_run_again(base, writing, capsys):
    writing.error = {650: KeyboardInterrupt()}
    assert run(["-m", *base, "tau=650"]) == 130
    assert " by tau" not in capsys.readouterr().out
    writing.error = {}
    assert run(["-m", *base, "tau=650"]) == 0
    assert "1 job by tau" in capsys.readouterr().out


def test_a_dry_run_prints_no_table(base, writing, capsys):
    assert run(["-m", *base, "tau=0", "dry_run=true"]) == 0
    assert " by tau" not in capsys.readouterr().out


def test_a_sweep_over_probes_says_where_the_results_of_each_job_lie(base, writing, capsys):
    output = Path(base[1].removeprefix("output="))
    (output / "shapes" / "tiny_latte" / "figures").mkdir(parents=True)
    assert run(["-m", base[1], "model=tiny_latte,tiny_unet3d", "probe=tampering"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("probe=")]
    assert lines == [
        f"probe=tampering model=tiny_latte: {output}/shapes/tiny_latte/figures/",
        "probe=tampering model=tiny_unet3d: no result",
    ]


def test_table_takes_any_rows_and_refuses_what_cannot_be_compared(base, writing, capsys):
    assert run(["-m", *base, "tau=0,650", "rank=1,4"]) == 0
    output = base[1]
    capsys.readouterr()
    assert run(["table", output, "by=tau,rank"]) == 0
    by_hand = capsys.readouterr().out
    assert [line[1] for line in lines_of(by_hand, "650")] == ["1", "4", "1", "4"]
    assert run(["table", output, "rank=4", "by=tau"]) == 0
    assert run(["table", output]) == 0
    shown = " ".join(capsys.readouterr().out.split())  # a long path is broken into lines
    assert "by tau, rank" in shown
    for words, problem in (
        (["by=tau"], "rank (1, 4)"),
        (["by=tau", "rank=3"], "rank=3"),
        (["by=,"], "by=,"),
        (["rnak=4"], "did you mean rank?"),
        (["tau"], "tau: "),
    ):
        assert run(["table", output, *words]) == 2
        assert problem in capsys.readouterr().err
    assert run(["table", "output=/nowhere", "by=tau"]) == 2
    assert "/nowhere" in capsys.readouterr().err
