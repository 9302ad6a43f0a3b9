from pathlib import Path

import numpy as np
import pytest

from motionexp.config.compose import load
from motionexp.config.metrics import chosen_metrics
from motionexp.metrics.scorer import Scorer
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import to_markdown
from motionexp.results.layout_file import read_layout
from motionexp.results.tables import build
from motionexp.scripts import bench
from tests.support.squares import Squares
from tests.support.tiny_models import FRAMES, SIZE, tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def reference():
    return Squares().read("one", FRAMES, SIZE, SIZE)


def test_training_is_timed_step_by_step_against_the_bare_step(backbone, reference, monkeypatch):
    monkeypatch.setattr(bench, "TRAINING_STEPS", 4)
    times = {
        metric: value for metric, on, value in bench.training_times(backbone, reference, 2) if on == "batch 2"
    }
    assert times["training_step_ratio"] == pytest.approx(
        times["training_step_seconds"] / times["bare_training_step_seconds"]
    )
    assert all(np.isfinite(value) and value > 0 for value in times.values())
    # The model is as it was: nothing is attached to it.
    bench.training_times(backbone, reference, 1)


def test_sampling_and_metrics_are_timed_a_step_and_a_video(backbone, reference):
    ((metric, on, seconds),) = bench.sampling_times(backbone, reference, 4)
    assert (metric, on) == ("sampling_step_seconds", "batch 4")
    assert 0 < seconds < 10
    scorer, larger = Scorer(["flow_similarity"]), Squares().read("one", FRAMES, 32, 32)
    videos = bench.different_videos(larger.frames)
    times = bench.metric_times(scorer, larger, videos)
    together = ("all, one by one", "all together")
    assert [entry[:2] for entry in times] == [
        ("metric_seconds", "flow_similarity"),
        *(("metric_seconds", entry) for entry in together),
        *(("metrics_frames_per_second", entry) for entry in together),
    ]
    assert times[4][2] == pytest.approx(FRAMES / times[2][2])
    assert len({video.tobytes() for _, video in zip(range(20), videos, strict=False)}) == 20


def test_the_layout_shows_all_that_is_measured_of_the_metrics(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "training_times", lambda *_: [])
    monkeypatch.setattr(bench, "sampling_times", lambda *_: [])
    rows = bench.measure(
        load(["precision=fp32", f"output={tmp_path}"]), 1, [spec.name for spec in chosen_metrics(None)]
    )
    layout = read_layout(Path(__file__).parents[2] / "experiments" / "bench.yaml")
    shown = [
        line.split(" | ")
        for table in layout.tables
        if "/metrics" in table.file
        for line in to_markdown(build(Comparison(layout, rows), table)[0]).splitlines()
    ]
    for row in rows:
        faster = row.metric == "metrics_frames_per_second"
        assert row.higher_is_better == faster
        (line,) = [cells for cells in shown if row.strata["part"] in cells]
        assert (f"{row.value:.1f}" if faster else f"{row.value:.4f}") in line
    assert {"motion_fidelity", "mf_ditflow", "all together"} <= {row.strata["part"] for row in rows}
