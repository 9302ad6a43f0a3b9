"""A suite of moving squares, and metrics and a tracker that cost nothing."""

import dataclasses
from typing import ClassVar

import numpy as np

from motionexp.config.metrics import MetricSpec
from motionexp.data.base import Description, Edit, Reference
from motionexp.metrics.base import Measurement, MetricInput, Tracks, VideoMetric

METRICS = ["brightness"]


class Brightness(VideoMetric):
    """Mean grey value; costs nothing and takes frames of any size."""

    version = 1
    values: ClassVar = {"brightness": None, "darkness": None}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        series = inputs.frames.mean((1, 2, 3))
        value = float(series.mean())
        return {"brightness": Measurement(value, series=series), "darkness": Measurement(255 - value)}


class Colourfulness(VideoMetric):
    """Mean distance of the channels."""

    version = 1
    values: ClassVar = {"colourfulness": True}

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        return {"colourfulness": Measurement(float(inputs.frames.std(-1).mean()))}


SQUARE_METRICS = {
    kind.__name__.lower(): MetricSpec(kind.__name__.lower(), __name__, kind.__name__, False, "", kind.values)
    for kind in (Brightness, Colourfulness)
}


class Drifting:
    """Stands for a tracker: one point, which moves by the video's brightness."""

    identity = "drifting"

    def __call__(self, frames):
        steps = np.cumsum(frames.mean((1, 2, 3)) + np.arange(len(frames)) % 2)
        position = np.stack([steps, np.zeros_like(steps)], -1)[:, None]
        return Tracks(position, np.ones((len(frames), 1), bool), 0.5)

    def to(self, device):
        """It computes on the CPU alone."""


@dataclasses.dataclass(frozen=True)
class Squares:
    """Three references of a square that moves, on grounds of their own."""

    suite: str = "squares"

    def names(self) -> list[str]:
        return ["one", "two", "three"]

    def describe(self, name: str) -> Description:
        reference = self.read(name, 4, 16, 16)
        return Description(reference.caption, reference.edits, 4)

    def long_enough(self, name: str, frames: int) -> bool:
        return True

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        random = np.random.default_rng(self.names().index(name))
        ground = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        video = np.stack([ground] * frames)
        for index in range(frames):
            video[index, 4:8, index : index + 4] = 255
        edits = (Edit("style", f"{name} red"), Edit("object", f"{name} blue"))
        return Reference(
            name, self.suite, video, 8.0, f"{name} square", edits, {"contrast": "motion-dominant"}
        )
