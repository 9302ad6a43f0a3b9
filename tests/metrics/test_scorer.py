"""A scorer asks of a run only what its metrics read, and says what is missing before it computes."""

from dataclasses import replace

import pytest
import torch

from motionexp.data.base import Edit, Reference
from motionexp.errors import InputError
from motionexp.metrics.scorer import Scorer
from tests.metrics.conftest import moving_texture

LONG = "a red plain circle is moving on sand and " * 14
SHORT = Edit("object", "a blue plain star is moving on sand")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("pan", "folder", moving_texture(0, (1, 0)), 8.0, LONG, (SHORT,))


@pytest.mark.parametrize("metric", ["text_alignment", "pick_score"])
def test_a_score_has_the_same_bits_with_any_number_of_threads(reference: Reference, metric: str) -> None:
    threads, values = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            measured = Scorer([metric]).score(reference.frames, reference, SHORT)
            values.append({name: value.value for name, value in measured[metric].items()})
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("metric", ["frame_consistency", "text_alignment", "pick_score"])
def test_a_long_caption_stops_no_metric_that_does_not_read_it(reference: Reference, metric: str) -> None:
    scorer = Scorer([metric])
    scorer.check_captions(reference, [SHORT])
    assert list(scorer.score(reference.frames, reference, SHORT)) == [metric]


def test_the_metrics_that_read_a_long_caption_are_named(reference: Reference) -> None:
    scorer = Scorer(["frame_consistency", "text_alignment", "appearance_leakage"])
    with pytest.raises(InputError, match=r"metrics=\[appearance_leakage\]"):
        scorer.check_captions(reference, [SHORT])
    with pytest.raises(InputError, match=r"metrics=\[text_alignment,appearance_leakage\]"):
        scorer.check_captions(replace(reference, caption=SHORT.caption), [replace(SHORT, caption=LONG)])


def test_a_caption_is_read_by_the_models_of_its_readers_alone(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CLIP is there for the frames; the caption is the preference model's to read.
    scorer = Scorer(["frame_consistency", "pick_score"])
    assert scorer.features.clip is not None
    monkeypatch.setattr(scorer.features.clip, "embed_captions", None)
    scores = scorer.score(reference.frames, reference, SHORT)
    assert set(scores) == {"frame_consistency", "pick_score"}
