"""Does the object take the reference's path? A tracker, and its velocities against the ground truth's.

For the bundled world, where one compact object differs from its background in luminance or colour and the
reference's path is known exactly. Velocity does not depend on where the object is, so a sample that moves
rightly in another place scores like one in the same place; absolute position stands beside it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np

from motionexp.data.shapes.scenes import Truth
from motionexp.metrics.base import ABSTAINED, Measurement, MetricInput, VideoMetric
from motionexp.metrics.foreground import coverage, foreground

TRACKED = 0.75
"""Least share of the frames in which the object must be found."""
JERK = 2.4
"""Squared change of velocity over squared velocity: at most 1.5 on the bundled world's paths, 2.2 on one
shown in halts, about 3 on shuffled frames."""
JUMP = 4.0
"""Least root mean square of the pixels that an object jumps from frame to frame in a shuffled video."""
FROZEN = 0.1
"""Mean absolute change between neighbouring frames, in grey levels, below which a video is frozen."""


@dataclass(frozen=True)
class Track:
    """Where an object was found; all NaN where the tracker rejects the video, and `reason` says why.

    Attributes:
        position: (F, 2) its centre of area, x and y in pixels; a pixel's centre is at + 0.5.
        size: (F,) square root of its area over pi, pixels.
        turn: (F - 1,) turn from each frame to the next, radians clockwise, at most 0.6 either way.
        reason: why the video was rejected, or empty.
    """

    position: np.ndarray
    size: np.ndarray
    turn: np.ndarray
    reason: str = ""


def track(frames: np.ndarray, region: slice = slice(None)) -> Track:
    """Follow the one object that differs from the background.

    A video is rejected where nothing changes, nothing compact stands out from the background, or the
    object jumps to and fro as in shuffled frames.

    Args:
        frames: (F, H, W, 3) uint8 RGB, F >= 2.
        region: columns to search, where more than one object is shown.
    """
    count = len(frames)
    if np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3)).max() < FROZEN:
        return _rejected(count, "the sample is frozen")
    # 1. One compact piece in most of the frames.
    seen = foreground(frames[:, :, region])
    share = np.mean([piece is not None for piece in seen.pieces])
    if share < TRACKED:
        return _rejected(count, f"one compact object is found in {share:.0%} of the frames only")
    # 2. Its centre of area and its size, by how much of a pixel it covers.
    position, size = np.full((count, 2), np.nan), np.full(count, np.nan)
    for index, piece in enumerate(seen.pieces):
        if piece is not None:
            weight = coverage(seen.distance[index], piece)
            ys, xs = np.indices(piece.shape) + 0.5
            position[index] = (
                np.average(xs, weights=weight) + (region.start or 0),
                np.average(ys, weights=weight),
            )
            size[index] = np.sqrt(weight.sum() / np.pi)
    # 3. Whether it jumps as in shuffled frames. The jitter of an object in its place is small.
    velocity = np.diff(position, axis=0)
    speed, jerk = (np.nanmean((steps**2).sum(1)) for steps in (velocity, np.diff(velocity, axis=0)))
    if speed > JUMP**2 and jerk > JERK * speed:
        return _rejected(count, "the object jumps to and fro, as in shuffled frames")
    return Track(position, size, _turns(frames, position, size))


def _rejected(count: int, reason: str) -> Track:
    nan = np.full((count, 2), np.nan)
    return Track(nan, nan[:, 0], nan[1:, 0], reason)


def _turns(frames: np.ndarray, position: np.ndarray, size: np.ndarray, bins: int = 180) -> np.ndarray:
    """Turn between neighbouring frames: the shift that best matches them in polar coordinates."""
    # The largest turn from frame to frame that is searched, in bins: 0.6 radians.
    reach = round(0.6 * bins / (2 * np.pi))
    polar = []
    for frame, centre, radius in zip(
        frames, np.nan_to_num(position), np.nan_to_num(size, nan=1.0), strict=True
    ):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        at = (float(centre[0] - 0.5), float(centre[1] - 0.5))
        rings = cv2.warpPolar(grey, (24, bins), at, 1.3 * float(radius), cv2.WARP_FILL_OUTLIERS)
        # Outer rings hold more pixels; without the mean of each ring only the angular pattern remains.
        weighted = (rings - rings.mean(0)) * np.sqrt(np.arange(24) + 0.5)
        polar.append(np.fft.rfft(weighted, axis=0))
    turns = []
    for before, after in pairwise(polar):
        match = np.fft.irfft((after * before.conj()).sum(1), bins)
        # Shifts from -reach - 1 to reach + 1; the ends serve only the parabola below.
        near = np.concatenate([match[-reach - 1 :], match[: reach + 2]])
        best = 1 + int(near[1:-1].argmax())
        left, mid, right = near[best - 1 : best + 2]
        # A parabola through the best match and its neighbours gives fractions of a bin.
        curve = left - 2 * mid + right
        peak = best + (0.5 * (left - right) / curve if curve < 0 else 0.0)
        turns.append((peak - reach - 1) * 2 * np.pi / bins)
    return np.where(np.isnan(size[1:] + size[:-1]), np.nan, turns)


def object_motion(position: np.ndarray, size: np.ndarray, turn: np.ndarray, unit: float) -> np.ndarray:
    """Return (F - 1, 4) pixels a frame: centre's x and y, growth and turn at `unit` pixels from it."""
    # Growth and turn as the way of a point at `unit` pixels, so that all four add up in pixels.
    growth = np.diff(np.log(size)) * unit
    return np.concatenate([np.diff(position, axis=0), growth[:, None], (turn * unit)[:, None]], axis=1)


def velocity_similarity(sample: Track, truth: Truth) -> Measurement:
    """Compare how the object moves in a sample with how it truly moves in the reference.

    With u and v the motions (`object_motion`) over all frames, 2 u.v / (u.u + v.v): 1 for equal motion, 0 for
    a sample that stands still or moves at random, -1 for the opposite motion; speed counts. Growth and turn
    enter only where the reference's object grows or turns. The series is the same per pair of frames.

    Args:
        sample: of F frames.
        truth: the reference object's, of F frames.
    """
    if sample.reason:
        return Measurement(ABSTAINED, sample.reason)
    unit = float(truth.size.mean())
    expected = object_motion(truth.position, truth.size, np.diff(truth.angle), unit)
    # x, y, growth, turn.
    relevant = [True, True, bool(np.ptp(np.log(truth.size)) > 0.1), bool(np.ptp(truth.angle) > 0.3)]
    shown = object_motion(sample.position, sample.size, sample.turn, unit)[:, relevant]
    expected = expected[:, relevant]
    # (F - 1,). NaN where the object was not found: such pairs count in neither sum.
    dot, energy = 2 * (shown * expected).sum(1), (shown**2).sum(1) + (expected**2).sum(1)
    series = np.divide(dot, energy, out=np.full(len(dot), np.nan), where=energy > 0)
    return Measurement(float(np.nansum(dot) / np.nansum(energy)), series=series)


def position_error(sample: Track, truth: Truth, *, align: bool) -> Measurement:
    """Return the mean distance of the object from the reference's, in pixels, per frame as series.

    Args:
        sample: of F frames.
        truth: the reference object's, of F frames.
        align: first move the sample's path so that both have one mean position.
    """
    if sample.reason:
        return Measurement(ABSTAINED, sample.reason)
    difference = sample.position - truth.position
    if align:
        # The best shift in the mean-square sense.
        difference = difference - np.nanmean(difference, axis=0)
    series = np.linalg.norm(difference, axis=1)
    return Measurement(float(np.nanmean(series)), series=series)


class Trajectory(VideoMetric):
    """Path of the first object against ground truth.

    `velocity_similarity` abstains where the tracker rejects the sample; `velocity_similarity_counted` is 0
    there, so that a method cannot gain by samples that nobody can follow. `path_error` is `position_error`
    after aligning the mean positions. Of two objects the first is on the left.
    """

    version = 1
    needs = ("reference_truth",)
    values: ClassVar = {
        "velocity_similarity": True,
        "velocity_similarity_counted": True,
        "path_error": False,
        "position_error": False,
    }
    used_by = ("jobs", "probes")
    order = 40
    summary: ClassVar = {"velocity_similarity": "motion similarity"}
    columns: ClassVar = {"motion": {"label": "motion ↑", "metric": "velocity_similarity"}}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Track the sample's object and compare it with the truth of the reference's."""
        scene, frames = inputs.scene, inputs.frames
        truth = scene.truth(len(frames))
        # Of two objects the first is in the left half.
        half = slice(0, frames.shape[2] // 2) if len(scene.things) > 1 else slice(None)
        tracked = track(frames, half)
        similarity = velocity_similarity(tracked, truth)
        counted = Measurement(0.0, similarity.reason) if similarity.reason else similarity
        return {
            "velocity_similarity": similarity,
            "velocity_similarity_counted": counted,
            "path_error": position_error(tracked, truth, align=True),
            "position_error": position_error(tracked, truth, align=False),
        }
