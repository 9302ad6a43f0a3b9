"""Does the sample move as the reference does, place by place? Lucas-Kanade flow of both, by direction.

The papers name the Lucas-Kanade method and the mean cosine and leave the rest open. Fixed here: fixed grid,
seeded anew in each pair of neighbouring frames; only points that can be followed forwards and back in both
videos; only points that move in either; direction alone, not speed; no mask, so camera and object count
alike.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motionexp.errors import InputError
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric
from motionexp.metrics.lucas_kanade import Flow, FlowSettings, flow


@dataclass(frozen=True)
class FlowComparison:
    """What comparing two flows gives.

    Attributes:
        value: mean over pairs of frames of the mean cosine over points that move in either video: 1 for the
            same directions, -1 for opposite ones, 0 where one stands still. NaN where `reason` says why.
        reason: why `value` is NaN, or that it is 1 by definition since nothing moves.
        coverage: share of the grid's points, over all pairs of frames, that can be followed in both videos.
        moving: share of those that move in either video.
        one_still: share of the moving ones that move in one video alone.
        series: (F - 1,) the mean cosine in each pair of frames, NaN where nothing moves.
    """

    value: float
    reason: str
    coverage: float
    moving: float
    one_still: float
    series: np.ndarray


def compare_flows(sample: Flow, reference: Flow, settings: FlowSettings) -> FlowComparison:
    """Compare two flows of one grid; see `FlowComparison`."""
    # 1. Which points count, (F - 1, P): those that both videos show, and that move in either.
    usable = sample.valid & reference.valid
    speed = np.linalg.norm(sample.vectors, axis=-1), np.linalg.norm(reference.vectors, axis=-1)
    moves = speed[0] >= settings.still, speed[1] >= settings.still
    seen_moving = (moves[0] & sample.valid) | (moves[1] & reference.valid)
    compared = usable & (moves[0] | moves[1])
    both = moves[0] & moves[1]
    # 2. Mean cosine over those points in each pair of frames; a point that moves in one video alone gives 0.
    dot = (sample.vectors * reference.vectors).sum(-1)
    cosine = np.divide(dot, speed[0] * speed[1], out=np.zeros_like(dot), where=both)
    counts = compared.sum(1)
    series = np.divide((cosine * compared).sum(1), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    coverage, floor = float(usable.mean()), settings.floor
    # 3. Abstain where too little is seen; a pair in which nothing moves is alike by definition.
    value, reason = ABSTAINED, ""
    if coverage < floor:
        reason = f"only {coverage:.0%} of the points can be followed in both videos (floor {floor:.0%})"
    elif not seen_moving.any():
        reason, value = "nothing moves in either video: 1 by definition", 1.0
    elif compared.sum() < floor * seen_moving.sum():
        reason = f"under {floor:.0%} of the moving points can be followed in both videos"
    else:
        value = float(np.nanmean(series))
    return FlowComparison(
        value=value,
        reason=reason,
        coverage=coverage,
        moving=float(compared.sum() / max(usable.sum(), 1)),
        one_still=float((compared & ~both).sum() / max(compared.sum(), 1)),
        series=series,
    )


def flow_similarity(sample: np.ndarray, reference: np.ndarray) -> FlowComparison:
    """Compare the motion of two videos of the same shape.

    Args:
        sample: (F, H, W, 3) uint8 RGB, F >= 2.
        reference: the same.

    Raises:
        InputError: the videos differ in shape or are too short: resample them first, and say how.
    """
    settings = _settings_for(sample, reference)
    return compare_flows(flow(sample, settings), flow(reference, settings), settings)


class FlowSimilarity(VideoMetric):
    """`flow_similarity` of sample and reference; beside it the score of a frozen sample, and the shares.

    `flow_similarity_frozen` is the score of the sample's first frame held for the whole length: 0 where the
    reference moves, 1 where it does not.
    """

    version = 1
    values: ClassVar = {
        "flow_similarity": True,
        "flow_similarity_frozen": None,
        "flow_coverage": None,
        "flow_moving": None,
        "flow_one_still": None,
    }
    used_by = ("jobs", "probes")
    order = 50
    summary: ClassVar = {"flow_similarity": "flow similarity"}
    columns: ClassVar = {"flow": {"label": "flow ↑", "metric": "flow_similarity"}}

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, Flow] | None = None

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its reference."""
        sample, reference = inputs.frames, inputs.reference.frames
        settings = _settings_for(sample, reference)
        reference_flow, still = self._flow_of(reference, settings), flow(sample[[0, 0]], settings)
        # A frozen sample: the flow of its first frame onto itself, for all pairs of frames.
        held = Flow(*(np.repeat(part, len(sample) - 1, axis=0) for part in (still.vectors, still.valid)))
        score = compare_flows(flow(sample, settings), reference_flow, settings)
        frozen = compare_flows(held, reference_flow, settings)
        return {
            "flow_similarity": Measurement(score.value, score.reason, score.series),
            "flow_similarity_frozen": Measurement(frozen.value, frozen.reason),
            "flow_coverage": Measurement(score.coverage),
            "flow_moving": Measurement(score.moving),
            "flow_one_still": Measurement(score.one_still),
        }

    def _flow_of(self, reference: np.ndarray, settings: FlowSettings) -> Flow:
        """Flow of the reference, which many samples in a row have in common."""
        if self._last is None or not np.array_equal(self._last[0], reference):
            self._last = reference, flow(reference, settings)
        return self._last[1]


def _settings_for(sample: np.ndarray, reference: np.ndarray) -> FlowSettings:
    """The settings for frames of this size. Raises `InputError` on videos that cannot be compared."""
    settings = FlowSettings.for_size(*sample.shape[1:3])
    if sample.shape != reference.shape or len(sample) < 2:
        raise InputError(
            f"flow_similarity compares two videos of the same two or more frames, not {sample.shape} and "
            f"{reference.shape}: bring them to one length and size first"
        )
    if min(sample.shape[1:3]) < 2 * settings.window:
        raise InputError(
            f"flow_similarity follows windows of {settings.window} pixels; frames of {sample.shape[1]} x "
            f"{sample.shape[2]} are too small: give at least {2 * settings.window} each way"
        )
    return settings
