"""All metrics by name, the models behind them, and the one pass that feeds them."""

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from motionexp.config.schema import BUNDLED
from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.scenes import Scene
from motionexp.errors import InputError
from motionexp.metrics.appearance_leakage import AppearanceLeakage, ReplacedAttributes
from motionexp.metrics.attributes import AttributeAccuracy, AttributeClassifier, AttributeReadings
from motionexp.metrics.base import Measurement, Need, Subject, VideoMetric
from motionexp.metrics.cotracker import CoTracker
from motionexp.metrics.encoders import OpenClip, PreferenceScorer
from motionexp.metrics.feature_cache import VISION, FeaturePass
from motionexp.metrics.flow_similarity import FlowSimilarity
from motionexp.metrics.frame_consistency import FrameConsistency
from motionexp.metrics.motion_diversity import MotionDiversity
from motionexp.metrics.motion_fidelity import DitflowFidelity, MotionFidelity
from motionexp.metrics.nuisances import Nuisances
from motionexp.metrics.pick_score import PickScore
from motionexp.metrics.text_alignment import TextAlignment
from motionexp.metrics.tracks import LucasKanadeTracker, Tracker
from motionexp.metrics.trajectory import Trajectory

Kind = type[VideoMetric] | type[MotionDiversity]
METRICS: Mapping[str, Kind] = {
    "text_alignment": TextAlignment,
    "frame_consistency": FrameConsistency,
    "pick_score": PickScore,
    "flow_similarity": FlowSimilarity,
    "motion_fidelity": MotionFidelity,
    "mf_ditflow": DitflowFidelity,
    "motion_diversity": MotionDiversity,
    "appearance_leakage": AppearanceLeakage,
    "trajectory": Trajectory,
    "attribute_accuracy": AttributeAccuracy,
    "replaced_attributes": ReplacedAttributes,
    "nuisances": Nuisances,
}
PROBE_METRICS: Mapping[str, Kind] = {
    "text_alignment": TextAlignment,
    "flow_similarity": FlowSimilarity,
    "trajectory": Trajectory,
    "attribute_readings": AttributeReadings,
}
# Of those that need ground truth, the ones that ask nothing about the edit.
OF_REFERENCE_ALONE = frozenset({"trajectory"})
CHANCE_REFERENCES = 8


@dataclass(frozen=True)
class ScoringModels:
    """Where the models are that metrics look through; see `OpenClip.load` and `PreferenceScorer.load`.

    `resize` is the side of the square that frames become first, in pixels; 0: none. `tracker_weights` are
    CoTracker's; None: Lucas-Kanade follows the points.
    """

    clip: str = str(BUNDLED / "clip")
    scorer: str = str(BUNDLED / "scorer")
    scorer_processor: str | None = None
    scorer_revision: str | None = None
    resize: int = 0
    tracker_weights: str | None = None
    classifier: Path = BUNDLED / "classifier"

    def load_clip(self, device: str) -> OpenClip:
        with _silence():
            return OpenClip.load(self.clip, device, self.resize)

    def load_scorer(self, device: str) -> PreferenceScorer:
        return PreferenceScorer.load(
            self.scorer, self.scorer_processor, self.scorer_revision, device, self.resize
        )

    def load_tracker(self, device: str) -> Tracker:
        if self.tracker_weights is None:
            return LucasKanadeTracker()
        return CoTracker.load(self.tracker_weights, device)


# TGVE's own choices, for models that know any words.
TGVE_MODELS = ScoringModels(
    clip="ViT-L-14/openai",
    scorer="yuvalkirstain/PickScore_v1",
    scorer_processor="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    resize=480,
)


class Scorer:
    """Metrics by name, with the models that they need, loaded once.

    Args:
        metrics: names in `METRICS`; None: all.
        models: where the models are.
        device: where they run, in float32.
        others: other references, as long and as large as what is scored, against which chance is measured.
        kinds: what there is to choose from.
        folder: where features of frames are kept from one run to the next; None: nowhere.

    Raises:
        InputError: an unknown metric, or a model that cannot be loaded.
    """

    def __init__(
        self,
        metrics: Collection[str] | None = None,
        models: ScoringModels | None = None,
        device: str = "cpu",
        others: Sequence[Reference] = (),
        kinds: Mapping[str, Kind] = METRICS,
        folder: Path | None = None,
    ) -> None:
        models = models or ScoringModels()
        check_metrics(metrics)
        chosen = {name: kinds[name]() for name in (kinds if metrics is None else metrics)}
        self.metrics: dict[str, VideoMetric] = {}
        self.of_sets: dict[str, MotionDiversity] = {}
        for name, each in chosen.items():
            if isinstance(each, MotionDiversity):
                self.of_sets[name] = each
            else:
                self.metrics[name] = each
        self.explicit = metrics is not None
        self.others = tuple(others)
        needs = {need for each in chosen.values() for need in each.needs}
        clip = models.load_clip(device) if "clip" in needs else None
        scorer = models.load_scorer(device) if "scorer" in needs else None
        tracker = models.load_tracker(device) if "tracks" in needs else None
        self.features = FeaturePass(clip, scorer, tracker, folder)
        self.classifier = (
            AttributeClassifier.load(models.classifier, device) if "classifier" in needs else None
        )
        self.identities: dict[Need, str] = {}
        if clip is not None:
            self.identities["clip"] = clip.identity
        if scorer is not None:
            self.identities["scorer"] = scorer.identity
        if tracker is not None:
            self.identities["tracks"] = tracker.identity
        if self.classifier is not None:
            weights = (models.classifier / "model.safetensors").read_bytes()
            self.identities["classifier"] = hashlib.sha256(weights).hexdigest()

    def to(self, device: torch.device) -> None:
        """Move all models to a device."""
        for model in (self.features.clip, self.features.scorer, self.features.tracker, self.classifier):
            if model is not None:
                model.to(device)

    def metric(self, name: str) -> VideoMetric | MotionDiversity:
        """The chosen metric of that name, of one video or of a set."""
        return self.metrics[name] if name in self.metrics else self.of_sets[name]

    def model_of(self, metric: str) -> str:
        """Short hash of the models that a metric looks through; empty where it needs none."""
        needs = sorted(self.metric(metric).needs)
        used = [self.identities[need] for need in needs if need in self.identities]
        return hashlib.sha256("".join(used).encode()).hexdigest()[:12] if used else ""

    def applicable(self, reference: Reference, edit: Edit) -> list[str]:
        """The metrics that the data allow; asked for by name they stay in, and raise when they measure."""
        return [name for name in self.metrics if self.explicit or self._has_truth(name, reference, edit)]

    def _has_truth(self, name: str, reference: Reference, edit: Edit) -> bool:
        if "truth" not in self.metrics[name].needs:
            return True
        return reference.truth is not None and (edit.truth is not None or name in OF_REFERENCE_ALONE)

    def score(
        self, frames: np.ndarray, reference: Reference, edit: Edit, metrics: Collection[str] | None = None
    ) -> dict[str, dict[str, Measurement]]:
        """Measure one video.

        Args:
            frames: (F, H, W, 3) uint8 RGB; scored as far as the reference is, see `Reference.scored_frames`.
            reference: whose motion it should have.
            edit: whose caption it should show.
            metrics: some of those that are applicable; None: all.

        Returns:
            {metric: {name of a value: measurement}}.

        Raises:
            InputError: a metric that was asked for by name lacks its ground truth.
        """
        frames = frames[: reference.scored_frames]
        reference = replace(reference, frames=reference.frames[: reference.scored_frames])
        names = [name for name in self.applicable(reference, edit) if metrics is None or name in metrics]
        subject = self._subject(
            frames, reference, edit, {need for name in names for need in self.metrics[name].needs}
        )
        return {name: self.metrics[name].measure(subject) for name in names}

    def score_set(
        self, videos: Sequence[np.ndarray], reference: Reference
    ) -> dict[str, dict[str, Measurement]]:
        """Measure samples of one edit as a set; as `score` otherwise."""
        tracks = [self.features.tracks(each[: reference.scored_frames]) for each in videos]
        return {name: metric.measure(tracks) for name, metric in self.of_sets.items()}

    def _subject(
        self, frames: np.ndarray, reference: Reference, edit: Edit, needs: Collection[Need]
    ) -> Subject:
        """What the metrics with these needs are given, each part computed once."""
        others = self.others_of(reference)
        scenes = tuple(each.truth for each in others if isinstance(each.truth, Scene))
        subject = Subject(frames, reference, edit, others=scenes)
        if VISION & set(needs):
            subject = replace(
                subject,
                features=self.features.frames(frames, needs),
                caption=self.features.caption(edit.caption),
                reference_caption=self.features.caption(reference.caption),
            )
        if "tracks" in needs:
            shorter = [each.frames[: reference.scored_frames] for each in others]
            subject = replace(
                subject,
                tracks=self.features.tracks(frames),
                reference_tracks=self.features.tracks(reference.frames),
                other_tracks=tuple(self.features.tracks(each) for each in shorter),
            )
        if "classifier" in needs and self.classifier is not None:
            subject = replace(subject, predictions=self.classifier.predict(frames))
        return subject

    def others_of(self, reference: Reference) -> list[Reference]:
        """The references against which chance is measured, without `reference` itself under any name."""
        others = [
            each
            for each in self.others
            if each.name != reference.name and (each.truth is None or each.truth != reference.truth)
        ]
        return others[:CHANCE_REFERENCES]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep back what open_clip tells of each file that it reads."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def check_metrics(metrics: Collection[str] | None, blind: Sequence[str] = ()) -> None:
    """Check metrics that are asked for by name; `blind` are the names of references without ground truth.

    Raises:
        InputError: a name that is no metric, or a metric from ground truth where a reference has none.
    """
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise InputError(f"metrics=[{', '.join(unknown)}]: some of {', '.join(METRICS)}, or null for all")
    unfit = [name for name in metrics or () if blind and "truth" in METRICS[name].needs]
    if unfit:
        raise InputError(
            f"metrics=[{', '.join(unfit)}]: measured from ground truth, and {blind[0]} has none;"
            " leave them out, or metrics=null for all that the data allow"
        )


def compares_with_others(metrics: Collection[str] | None) -> bool:
    """Whether any of the metrics (None: all) has a level of chance, for which others are read."""
    needs = [METRICS[name].needs for name in (METRICS if metrics is None else metrics)]
    return any({"truth", "tracks"} & each for each in needs)
