"""What a training shows."""

import logging
import warnings

from motionexp.diffusion import progress
from motionexp.diffusion.schedule import Window
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from tests.support.training_runs import SETTINGS


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
