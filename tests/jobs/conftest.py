"""Settings of a job on a tiny model and the suite of squares."""

from functools import partial
from pathlib import Path

import pytest

from motionexp.metrics import scorer
from tests.squares import Brightness, Colourfulness
from tests.tiny_jobs import job_settings
from tests.tiny_models import FRAMES, SIZE, save_tiny_pipeline


@pytest.fixture(autouse=True)
def metrics(monkeypatch):
    monkeypatch.setitem(scorer.METRICS, "brightness", Brightness)
    monkeypatch.setitem(scorer.METRICS, "colourfulness", Colourfulness)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def make(weights, tmp_path):
    """Makes checked settings; see `job_settings`."""
    target = "motionexp.backbones.latte.LatteBackbone"
    return partial(job_settings, target, weights, (FRAMES, SIZE, SIZE), output=str(tmp_path / "out"))
