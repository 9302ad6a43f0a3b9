"""What a metric takes (`MetricInput`), what it returns (measurements), and the two kinds of metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from torch import Tensor

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.scenes import Scene
from motionexp.errors import InputError

ABSTAINED = float("nan")
Need = Literal[
    "clip",
    "preference",
    "dino",
    "classifier",
    "tracks",
    "caption",
    "reference_caption",
    "reference_truth",
    "edit_truth",
]
"""A model (CLIP, the preference model, DINO, the attribute classifier, the tracker), the edit's or the
reference's caption, or ground truth."""


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
    """Features of one video's F frames; every row has unit length.

    Attributes:
        clip: (F, D), CLIP's; None: not computed.
        preference: (F, E), the preference model's; None: not computed.
        dino: (F, D), DINO's; None: not computed.
    """

    clip: Tensor | None = None
    preference: Tensor | None = None
    dino: Tensor | None = None


@dataclass(frozen=True)
class CaptionFeatures:
    """Features of one caption, of unit length, with the temperature that each model learned.

    Attributes:
        clip: (D,), CLIP's; None: not computed.
        preference: (E,), the preference model's; None: not computed.
        clip_scale: exp(logit scale), by which cosines with `clip` are multiplied.
        preference_scale: exp(logit scale), by which cosines with `preference` are multiplied.
    """

    clip: Tensor | None = None
    preference: Tensor | None = None
    clip_scale: float = 1.0
    preference_scale: float = 1.0


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
class MetricInput:
    """One sample with all that metrics may need; parts that no metric needs stay at their defaults.

    Attributes:
        frames: the sample, (F, H, W, 3) uint8 RGB.
        reference: what was tuned on; `reference.truth` is its scene in the bundled world.
        edit: the caption that was sampled; `edit.truth` names its attributes in the bundled world.
        features: of `frames`.
        caption: features of `edit.caption`.
        reference_caption: features of `reference.caption`.
        predictions: the attribute classifier's, of `frames`.
        chance_scenes: scenes of other references, against which chance is measured.
        tracks: points followed through `frames`.
        reference_tracks: points followed through the reference.
        chance_tracks: points followed through other references, against which chance is measured.
    """

    frames: np.ndarray
    reference: Reference
    edit: Edit
    features: FrameFeatures = NO_FRAME_FEATURES
    caption: CaptionFeatures = NO_CAPTION_FEATURES
    reference_caption: CaptionFeatures = NO_CAPTION_FEATURES
    predictions: Predictions | None = None
    chance_scenes: tuple[Scene, ...] = ()
    tracks: Tracks | None = None
    reference_tracks: Tracks | None = None
    chance_tracks: tuple[Tracks, ...] = ()

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


Part = TypeVar("Part")


def needed(part: Part | None, metric: str, need: Need) -> Part:
    """Return `part`, or raise `InputError` that `metric` has nothing to measure with."""
    if part is None:
        raise InputError(
            f"metric {metric} needs the {need}, which was not given: leave {metric} out of `metrics`"
        )
    return part


class MetricClass(ABC):
    """What both kinds of metrics say of themselves.

    The attributes are literals: `motionexp.config.metrics` reads them from the file without importing it. It
    says what each means (`MetricSpec`), and what the optional ones are where a class leaves them out. The
    class takes no argument and keeps no state that a result depends on.
    """

    version: ClassVar[int]
    """Raised when the metric's results change: part of the score's id."""
    values: ClassVar[Mapping[str, bool | None]]
    needs: ClassVar[tuple[Need, ...]] = ()
    used_by: ClassVar[tuple[str, ...]]
    only_named: ClassVar[bool]
    order: ClassVar[int]
    summary: ClassVar[Mapping[str, str]]
    columns: ClassVar[Mapping[str, Mapping[str, Any]]]


class VideoMetric(MetricClass):
    """A metric of one sample."""

    @abstractmethod
    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample: exactly the names in `values`."""


class SetMetric(MetricClass):
    """A metric of all samples of an edit together; it needs their tracks."""

    @abstractmethod
    def measure(self, samples: Sequence[Tracks]) -> dict[str, Measurement]:
        """Measure the samples of one edit: exactly the names in `values`."""
