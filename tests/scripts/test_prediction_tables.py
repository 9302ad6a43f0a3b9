"""The verdict over interventions: half of the predicted change is a slope of a half."""

import math

import numpy as np
import pytest

from motionexp.errors import InputError
from motionexp.probes.analysis.prediction import FACTORS, Energies
from motionexp.probes.analysis.prediction_tables import verdict_table
from motionexp.scripts import prediction_tables
from motionexp.scripts.prediction_tables import BASE, verdicts_of

TODAY = dict(zip(FACTORS, (-5.0, 0.7, -0.9, -0.2, 0.6), strict=True))
NOISE = np.concatenate([[0.0], np.random.default_rng(0).normal(0, 0.3, 200)])
CHANGE = {BASE: 0.0, "cosine": 0.0, "contrast_half": 1.3, "contrast_double": -1.1}
"""Of the colour's ideal log-SNR."""


def energies(model: str) -> dict[str, Energies]:
    names = [("a",), ("b",), ("c",)]
    ideal = dict.fromkeys(FACTORS, -6.0) | {"colour": -5.0 + CHANGE[model]}
    return {name: Energies(np.full(3, 4 / math.exp(value)), names) for name, value in ideal.items()}


@pytest.fixture
def probed(monkeypatch):
    """Probes on the same references whose colours move by half of the predicted change."""

    def measured(analysis, model):
        moved = {"colour": 0.5 * CHANGE[model]}
        return {name: value + moved.get(name, 0.0) + NOISE for name, value in TODAY.items()}

    monkeypatch.setattr(prediction_tables, "measured_of", measured)
    monkeypatch.setattr(prediction_tables, "references_of", lambda analysis, model: analysis or (model,))


def test_half_of_the_predicted_change_is_a_slope_of_a_half(probed):
    of_models = {model: energies(model) for model in CHANGE}
    same = ("one", "two")
    verdicts = verdicts_of(of_models, same, same, ["cosine", "contrast_half", "contrast_double"])
    assert {label: len(predicted) for label, (predicted, _) in verdicts.items()} == {
        "levels": 15,
        "changes": 10,
    }
    levels, changes = verdict_table(verdicts, 8).blocks[0].lines
    # The replicates of both models are paired: the noise that they share drops out.
    slope = changes.cells[0].interval
    assert (slope.mean, slope.low, slope.high) == pytest.approx((0.5, 0.5, 0.5))
    assert levels.cells[1].interval.mean == pytest.approx(-0.5 * (1.3 - 1.1) / 15)


def test_a_verdict_needs_the_references_of_today(probed):
    with pytest.raises(InputError, match="cosine"):
        verdicts_of({model: energies(model) for model in CHANGE}, (), (), ["cosine"])
