import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torchmetrics import MetricCollection

from motionexp.data.base import Edit
from motionexp.errors import InputError
from motionexp.metrics.base import Measurement, Subject, VideoMetric


class Given(VideoMetric):
    version = 1
    values: ClassVar[Mapping[str, bool | None]] = {"given": True, "doubled": None}

    def measure(self, subject):
        value = float(subject.edit.caption)
        reason = "none was given" if math.isnan(value) else ""
        return {"doubled": Measurement(2 * value, reason), "given": Measurement(value, reason)}


def of(subject, caption):
    full = subject()
    return Subject(full.frames, full.reference, Edit("caption", caption))


def test_the_mean_leaves_abstentions_out_and_counts_them(subject):
    metric = Given()
    for caption in ("1", "nan", "4"):
        metric.update(of(subject, caption))
    assert {name: float(value) for name, value in metric.compute().items()} == {"given": 2.5, "doubled": 5.0}
    assert metric.abstained.tolist() == [1, 1]
    metric.reset()
    metric.update(of(subject, "nan"))
    assert all(torch.isnan(value) for value in metric.compute().values())


def test_metrics_join_a_collection_and_add_up_over_processes(subject):
    collection = MetricCollection([Given()])
    collection.update(of(subject, "3"))
    assert float(collection.compute()["given"]) == 3
    first, second = Given(), Given()
    first.update(of(subject, "1"))
    second.update(of(subject, "5"))
    first.total, first.count = first.total + second.total, first.count + second.count
    assert first._reductions["total"] is not None
    assert float(first.compute()["given"]) == 3


def test_an_abstention_says_why():
    with pytest.raises(ValueError, match="must say why"):
        Measurement(float("nan"))


def test_ground_truth_is_asked_for_in_plain_words(subject):
    full = subject()
    bare = replace(full, reference=replace(full.reference, truth=None), edit=Edit("caption", "a dog"))
    with pytest.raises(InputError, match="no ground truth"):
        _ = bare.scene
    with pytest.raises(InputError, match="names no attributes"):
        _ = bare.target
