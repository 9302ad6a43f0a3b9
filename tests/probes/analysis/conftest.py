"""Fewer draws of references than in earnest: the suite is to stay quick."""

import pytest

from motionexp.probes.analysis import rows
from motionexp.results.intervals import resampled_weights


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(rows, "resampled_weights", lambda references: resampled_weights(references)[:400])
