"""Fewer draws of references than in earnest: the suite is to stay quick."""

import pytest

from motionexp.atlas import readings
from motionexp.intervals import resampled_weights

DRAWS = 400


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(
        readings, "resampled_weights", lambda references: resampled_weights(references)[:DRAWS]
    )
