"""Settings of a job on a tiny model and the suite of squares."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from motionexp.config import launcher, metrics
from motionexp.data.videos import reading
from motionexp.jobs import cell, launch
from motionexp.jobs.cell import Cell
from tests.support.engine_here import EngineHere
from tests.support.squares import SQUARE_METRICS
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE, save_tiny_pipeline


@pytest.fixture(autouse=True)
def square_metrics(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | SQUARE_METRICS)


@pytest.fixture(autouse=True)
def _media_of_their_own_size(monkeypatch):
    """Samples are not enlarged for the eye: a video of 256 pixels takes six times as long as one of 16."""
    monkeypatch.setattr(cell, "enlarged", lambda frames: frames)
    monkeypatch.setattr(cell, "contact_sheet", lambda frames: frames[0])


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """How often each image of a folder of frames, and each kept sample, was decoded."""
    seen: Counter[str] = Counter()
    load, read = reading.load_image, Cell.read_sample

    def loading(file):
        seen[str(file)] += 1
        return load(file)

    def counting(self, request):
        seen[request.sample_id] += 1
        return read(self, request)

    monkeypatch.setattr(reading, "load_image", loading)
    monkeypatch.setattr(Cell, "read_sample", counting)
    return seen


@pytest.fixture
def make(weights, tmp_path):
    """Makes checked settings; see `job_settings`."""
    target = "motionexp.backbones.latte.LatteBackbone"
    return partial(job_settings, target, weights, (FRAMES, SIZE, SIZE), output=str(tmp_path / "out"))


@pytest.fixture
def engine(monkeypatch) -> EngineHere:
    """Stands for the engine of every launcher."""
    engine = EngineHere()
    monkeypatch.setattr(launch, "engine_of", lambda *_: engine)
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _: True)
    return engine
