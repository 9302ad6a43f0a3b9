"""What the command line refuses of a sweep as a whole, before its first job runs."""

import pytest

from motionexp.jobs import waiting
from tests.support.stub_jobs import run

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tau=0,0"], ["tau=0 and tau=0"]),
        (["tau=0,700,-0.0"], ["tau=0 and tau=-0.0"]),
        (["alpha=2,2.0", "seed=1,2"], ["alpha=2 seed=1 and alpha=2.0 seed=1"]),
        (["model=tiny_latte,tiny_latte"], ["model=tiny_latte and model=tiny_latte"]),
        (["seed=range(0,1001)"], ["seed=range(0,1001)", "1,001 jobs"]),
        (["seed=shuffle(range(0,1000000000000))"], ["1,000,000,000,000 jobs"]),
        (["tau=range(0,1000,0.1)", "rank=1,2"], ["20,000 jobs"]),
        (["seed=range(3,3)"], ["seed=range(3,3)", "0 jobs"]),
        (["tau=range(0,9,0)"], ["tau=range(0,9,0)"]),
    ],
)
def test_equal_jobs_and_too_many_are_refused_in_one_line(words, named, jobs, tmp_path, capsys):
    assert run(["-m", *words, f"output={tmp_path}"]) == 2
    # On a slow machine a line before it says what takes so long.
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("checking"))
    assert all(text in line for text in named), line
    assert not jobs.ran


def test_jobs_with_equal_results_and_unequal_settings_run(jobs, tmp_path):
    assert run(["-m", "tau=auto,550", f"output={tmp_path}"]) == 0
    assert len(jobs.ran) == 2


def test_a_long_check_says_how_many_jobs_it_checks(jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    assert run(["-m", "seed=range(0,2)", f"output={tmp_path}"]) == 0
    assert "2 jobs" in capsys.readouterr().err
