"""What a metric is given (a subject) and what it gives back (measurements)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.scenes import Scene, edited
from motionexp.errors import InputError

ABSTAINED = float("nan")
Need = Literal["clip", "scorer", "classifier", "tracks", "truth"]


@dataclass(frozen=True)
class Measurement:
    """One value; NaN with a reason where the metric abstains. A reason beside a number flags a special case.

    `series` holds the values per frame or pair of frames that `value` was made of, where that is natural.
    """

    value: float
    reason: str = ""
    series: np.ndarray | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.value) and not self.reason:
            raise ValueError("a measurement that abstains (NaN) must say why")


@dataclass(frozen=True)
class FrameFeatures:
    """Of one video's F frames, each row of unit length.

    Attributes:
        clip: (F, D) or None. scorer: (F, E) or None.
    """

    clip: Tensor | None = None
    scorer: Tensor | None = None


@dataclass(frozen=True)
class CaptionFeatures:
    """Of one caption, of unit length, with the temperature that each model learned.

    Attributes:
        clip: (D,) or None. scorer: (E,) or None.
        clip_scale: exp(logit scale), by which cosines with `clip` are multiplied. scorer_scale: likewise.
    """

    clip: Tensor | None = None
    scorer: Tensor | None = None
    clip_scale: float = 1.0
    scorer_scale: float = 1.0


@dataclass(frozen=True)
class Predictions:
    """A classifier's reading of one video.

    Attributes:
        labels: {attribute: value, or None where the classifier abstains}.
        confidence: {attribute: probability of the answer}.
    """

    labels: Mapping[str, str | None]
    confidence: Mapping[str, float]


@dataclass(frozen=True)
class Tracks:
    """P points of the first frame, followed through F frames.

    Attributes:
        position: (F, P, 2) pixels, x and y, float64; where a point is not seen, the tracker's guess.
        visible: (F, P), whether the point is seen.
        still: pixels a step below which a point stands still.
    """

    position: np.ndarray
    visible: np.ndarray
    still: float

    @property
    def steps(self) -> np.ndarray:
        """(P, F - 1, 2) displacements from frame to frame, pixels."""
        return np.diff(self.position, axis=0).transpose(1, 0, 2)

    @property
    def seen_steps(self) -> np.ndarray:
        """(P, F - 1), whether a point is seen before and after each step."""
        return (self.visible[1:] & self.visible[:-1]).T


NO_FRAME_FEATURES, NO_CAPTION_FEATURES = FrameFeatures(), CaptionFeatures()


@dataclass(frozen=True)
class Subject:
    """One sample with all that scores of it may need; what was not computed is left at its default.

    Attributes:
        frames: the sample, (F, H, W, 3) uint8 RGB.
        reference: what was tuned on; `reference.truth` is its scene in the bundled world.
        edit: the caption that was sampled; `edit.truth` names its attributes in the bundled world.
        features: of `frames`.
        caption: features of `edit.caption`.
        reference_caption: features of `reference.caption`.
        predictions: the attribute classifier's, of `frames`.
        others: scenes of other references, against which chance is measured.
        tracks: points followed through `frames`.
        reference_tracks: through the reference.
        other_tracks: through other references, against which chance is measured.
    """

    frames: np.ndarray
    reference: Reference
    edit: Edit
    features: FrameFeatures = NO_FRAME_FEATURES
    caption: CaptionFeatures = NO_CAPTION_FEATURES
    reference_caption: CaptionFeatures = NO_CAPTION_FEATURES
    predictions: Predictions | None = None
    others: tuple[Scene, ...] = ()
    tracks: Tracks | None = None
    reference_tracks: Tracks | None = None
    other_tracks: tuple[Tracks, ...] = ()

    @property
    def scene(self) -> Scene:
        """The reference's scene. Raises `InputError` where the suite has no ground truth."""
        if not isinstance(self.reference.truth, Scene):
            raise InputError(
                f"reference {self.reference.name} of suite {self.reference.suite} has no ground truth; "
                "metrics from ground truth are for the bundled world: leave them out of `metrics`"
            )
        return self.reference.truth

    @property
    def target(self) -> dict[str, Any]:
        """The edit's attributes. Raises `InputError` where they are not known."""
        if self.edit.truth is None:
            raise InputError(
                f"the edit {self.edit.caption!r} names no attributes; metrics from ground truth are for the "
                "bundled world's own edits: leave them out of `metrics`"
            )
        return dict(self.edit.truth)

    @property
    def target_scene(self) -> Scene:
        """The reference's scene with the edit's looks: what a sample that keeps everything else shows."""
        looks = ("colour", "surface", "shape", "background")
        return edited(self.scene, {name: self.target[name] for name in looks if name in self.target})


Part = TypeVar("Part")


def needed(part: Part | None, metric: str, need: Need) -> Part:
    """Return `part`, or raise `InputError` that `metric` has nothing to measure with."""
    if part is None:
        raise InputError(
            f"metric {metric} needs the {need}, which was not given: leave {metric} out of `metrics`"
        )
    return part


class VideoMetric(Metric, ABC):
    """Mean of named values over subjects; subjects on which a value abstains are counted apart.

    A subclass states its `values`, what it `needs`, its `version` (raised when its results change) and
    `measure`. `compute` gives {name: mean over the subjects that were measured, NaN where none was}.
    """

    is_differentiable = False
    full_state_update = False
    version: ClassVar[int]
    needs: ClassVar[frozenset[Need]] = frozenset()
    """Models and knowledge without which it cannot measure."""
    values: ClassVar[Mapping[str, bool | None]]
    """{name of a value: whether more is better, or None where neither is}, the main value first."""

    total: Tensor
    count: Tensor
    abstained: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(len(self.values), dtype=torch.float64)
        for state in ("total", "count", "abstained"):
            self.add_state(state, zeros.clone(), dist_reduce_fx="sum")

    @abstractmethod
    def measure(self, subject: Subject) -> dict[str, Measurement]:
        """Measure one subject: exactly the names in `values`."""

    def update(self, subject: Subject) -> None:
        """Add one subject."""
        measured = self.measure(subject)
        numbers = torch.tensor([measured[name].value for name in self.values], dtype=torch.float64)
        numbers = numbers.to(self.total.device)
        self.total += torch.nan_to_num(numbers, nan=0.0)
        self.count += ~torch.isnan(numbers)
        self.abstained += torch.isnan(numbers)

    def compute(self) -> dict[str, Tensor]:
        """Return the means."""
        return dict(zip(self.values, self.total / self.count, strict=True))
