"""Launchers on a machine that lacks what they need: refused before a task starts. It starts no process."""

import pytest

from motionexp.config import launcher, ranks
from motionexp.jobs import engine_submitit
from tests.support.stub_jobs import run

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_more_gpus_than_there_are_start_no_task(name, base, jobs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(ranks, "visible_gpus", lambda *_: 0)
    words = [word for word in base if not word.startswith("device=")]
    assert run(["-m", f"hydra/launcher={name}", *words, "tau=0,300", "trainer.devices=4"]) == 2
    assert "trainer.devices=4: this machine has no GPUs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_for_slurm_needs_no_cluster(base, jobs, monkeypatch, capsys):
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(engine_submitit, "_answer", lambda _: None)
    words = ["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", *base, "tau=0,300"]
    assert run(words) == 2
    assert "the cluster does not answer" in capsys.readouterr().err
    assert run([*words, "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert "the partition is not checked" in shown
    assert "submitit_slurm: 2 tasks, 3 cells to do" in shown


@pytest.mark.parametrize("name", ["joblib", "ray", "submitit_local", "submitit_slurm"])
def test_a_launcher_that_is_not_installed_names_its_extra(name, base, jobs, monkeypatch, capsys):
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _: None)
    assert run(["-m", *base, f"hydra/launcher={name}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"motionexp[{'slurm' if 'submitit' in name else name}]" in line
