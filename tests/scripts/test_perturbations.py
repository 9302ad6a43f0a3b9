"""Each score follows what it measures and does not care for the rest."""

from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import edited
from motionexp.metrics.base import Measurement
from motionexp.scripts import perturbations
from motionexp.scripts.perturbations import (
    EXPECTED,
    HEAD,
    PERTURBATIONS,
    Response,
    dose_response,
    markdown,
    measure,
    restore_appearance,
    surprises,
)
from tests.metrics.conftest import CHANGES, make_scene


def reference(motion, index):
    scene = make_scene(motion, index)
    truth = edited(scene, CHANGES).attributes
    return Reference(motion, "shapes", render(scene), 8.0, "", (Edit("multiple", "", truth),), {}, scene)


@pytest.fixture(scope="module")
def responses():
    """All metrics on the bundled models, at no dose and at the largest; `make dose-response` takes all."""
    ends = {
        name: replace(perturbation, doses=(perturbation.doses[0], perturbation.doses[-1]))
        for name, perturbation in PERTURBATIONS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perturbations, "PERTURBATIONS", ends)
        return measure()


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_scores_answer_as_expected(responses, perturbation):
    assert set(chain(*EXPECTED[perturbation].values())) <= {response.value for response in responses}
    assert surprises([response for response in responses if response.perturbation == perturbation]) == []


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_dose_changes_more_than_the_one_before(name):
    """The doses in between, which `responses` leaves out."""
    scene, perturbation = make_scene("wander", 2), PERTURBATIONS[name]
    target = edited(scene, CHANGES)
    videos = [perturbation.apply(target, scene, 16, dose).astype(float) for dose in perturbation.doses]
    assert np.array_equal(videos[0], render(target, 16))
    changes = [np.abs(video - videos[0]).mean() for video in videos]
    assert all(before < after for before, after in pairwise(changes))


def test_restored_attributes_add_up(monkeypatch):
    scene = make_scene("wander", 2)
    monkeypatch.setattr(perturbations, "render", lambda shown, frames: shown.attributes)
    for count in range(5):
        attributes = restore_appearance(edited(scene, CHANGES), scene, 16, count)
        assert [attributes[name] == scene.attributes[name] for name in CHANGES].count(True) == count


def test_the_page_leaves_out_what_abstains_everywhere_and_says_so(responses):
    values = {response.value for response in responses if "chance" not in response.value}
    assert values - {response.value for response in responses if response.count} == {"mf_ditflow"}
    assert "`mf_ditflow` is left out" in HEAD
    page = (Path(__file__).parents[2] / "docs" / "dose_response.md").read_text()
    assert page.startswith(HEAD)


def test_the_table_has_a_row_for_each_dose():
    lines = markdown([Response("path bent", 0, "x", 0.5, 2)], []).splitlines()
    assert len(lines) == 2 + sum(len(perturbation.doses) for perturbation in PERTURBATIONS.values())
    assert lines[2].startswith("| path bent (px) | 0 |")


def test_a_score_that_turns_back_or_strays_is_a_surprise():
    def of(*means):
        doses = PERTURBATIONS["hue turned"].doses
        return [
            Response("hue turned", dose, value, mean, 3)
            for value, series in zip(("attribute_accuracy", "velocity_similarity"), means, strict=True)
            for dose, mean in zip(doses, series, strict=True)
        ]

    assert surprises(of((1, 0.5, 0.5, 0.2, 0.2), (0.9, 0.9, 0.91, 0.9, 0.9))) == []
    assert "attribute_accuracy" in surprises(of((1, 0.5, 0.6, 0.2, 0.2), (1, 1, 1, 1, 1)))[0]
    assert "attribute_accuracy" in surprises(of((1, 1, 1, 1, 1), (1, 1, 1, 1, 1)))[0]
    assert "velocity_similarity" in surprises(of((1, 0.5, 0.4, 0.2, 0.2), (1, 1, 1, 1, 0.9)))[0]
    assert "attribute_accuracy" in surprises(of((1, np.nan, 0.6, 0.2, 0.1), (1, 1, 1, 1, 1)))[0]


def test_abstentions_are_left_out_and_their_number_is_shown():
    def score(frames, reference, edit):
        half = Measurement(np.nan, "no") if reference.name == "wander" else Measurement(0.25)
        return {"metric": {"half": half, "none": Measurement(np.nan, "no"), "full": Measurement(1.0)}}

    references = [reference("wander", 2), reference("zigzag", 4)]
    responses = dose_response(references, SimpleNamespace(score=score))
    assert {(row.mean, row.count) for row in responses if row.value == "half"} == {(0.25, 1)}
    assert "| 0.250 (1) | 1.000 | – |" in markdown(responses, ["half", "full", "none"])
