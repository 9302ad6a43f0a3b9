"""What a training shows and logs."""

import logging
import os
import warnings
from dataclasses import replace

import pandas
import pytest

from motionexp.diffusion import progress
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.loggers import make_logger
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from tests.support.training_runs import SETTINGS, run


def test_csv_has_the_losses(backbone, examples, tmp_path):
    logger = make_logger("csv", tmp_path / "log", {"tau": 700})
    settings = replace(SETTINGS, log_every=2)
    result, _ = run(backbone, examples, tmp_path, settings=settings, loggers=[logger])
    (file,) = (tmp_path / "log").rglob("metrics.csv")
    table = pandas.read_csv(file)
    assert table.step.tolist() == [2, 4, 6, 8]
    assert table.loss.tolist() == pytest.approx(result.losses[1::2])
    assert "tau: 700" in file.with_name("hparams.yaml").read_text()


def test_tensorboard_writes_events(backbone, examples, tmp_path):
    logger = make_logger("tensorboard", tmp_path / "log", {"tau": 700})
    run(backbone, examples, tmp_path, loggers=[logger])
    assert list((tmp_path / "log").rglob("events.out.tfevents.*"))


def test_wandb_writes_offline_and_leaves_no_run_behind(backbone, examples, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logger = make_logger("wandb", tmp_path / "log", {"tau": 700})
    run(backbone, examples, tmp_path, loggers=[logger])
    logger.experiment.finish()
    assert "WANDB_MODE" not in os.environ
    assert list((tmp_path / "log").glob("wandb/offline-run-*/run-*.wandb"))


def test_an_unknown_logger_is_refused(tmp_path):
    with pytest.raises(InputError, match="logger=neptune"):
        make_logger("neptune", tmp_path / "log", {})
    assert not (tmp_path / "log").exists()


def test_it_shows_the_loss_and_nothing_of_lightnings(backbone, examples, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 1e-9)  # this is no terminal
    method = LoRA(backbone, Window(700))
    level = logging.getLogger("lightning.pytorch").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(backbone, method, examples, SETTINGS, tmp_path)
    out, err = capfd.readouterr()
    assert not [str(warning.message) for warning in caught]
    assert out == ""
    assert f"loss={result.losses[-1]:.4f}" in err
    assert "8/8" in err
    assert all(line.startswith("fit:") for line in err.replace("\r", "\n").splitlines() if line)
    assert logging.getLogger("lightning.pytorch").level == level
