"""All chosen metrics, the models behind them, and the one pass over a video that feeds them."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from motionexp.config.metrics import CHANCE_REFERENCES, Use, chosen_metrics
from motionexp.config.scoring_models import ScoringModels
from motionexp.data.base import Description, Edit, Reference
from motionexp.data.shapes.scenes import Scene
from motionexp.errors import InputError
from motionexp.metrics.attribute_classifier import AttributeClassifier
from motionexp.metrics.base import CaptionFeatures, Measurement, MetricInput, Need, SetMetric, VideoMetric
from motionexp.metrics.cotracker import CoTracker
from motionexp.metrics.dino import Dino
from motionexp.metrics.encoders import ImageTextModel, OpenClip, PreferenceModel
from motionexp.metrics.feature_cache import OF_FRAMES, FeaturePass
from motionexp.metrics.tracks import LucasKanadeTracker, Tracker


class Scorer:
    """The chosen metrics, with the models that they need, loaded once.

    Args:
        metrics: names, or import paths of plugins' classes; None: all that `use` measures.
        models: where the models are.
        device: where they run, in float32.
        chance_references: other references, as long and as large as what is scored.
        use: who measures.
        folder: where features of frames are stored from one run to the next; None: nowhere.

    Raises:
        InputError: an unknown metric, or a model that cannot be loaded.
    """

    def __init__(
        self,
        metrics: Collection[str] | None = None,
        models: ScoringModels | None = None,
        device: str = "cpu",
        chance_references: Sequence[Reference] = (),
        use: Use = "jobs",
        folder: Path | None = None,
    ) -> None:
        models = models or ScoringModels()
        # 1. The metrics: those of one video, and those of a set of samples.
        self.metrics: dict[str, VideoMetric] = {}
        self.of_sets: dict[str, SetMetric] = {}
        for spec in chosen_metrics(metrics, use):
            metric = getattr(import_module(spec.module), spec.class_name)()
            (self.of_sets if spec.of_sets else self.metrics)[spec.name] = metric
        self.explicit = metrics is not None
        self.chance_references = tuple(chance_references)
        # 2. The models that any of them needs.
        needs = {need for metric in [*self.metrics.values(), *self.of_sets.values()] for need in metric.needs}
        loaded: dict[Need, ImageTextModel | Tracker | Dino] = {}
        clip = preference = dino = tracker = self.classifier = None
        if "clip" in needs:
            loaded["clip"] = clip = OpenClip.load(models.clip, device, models.resize)
        if "preference" in needs:
            source = models.preference, models.preference_processor, models.preference_revision
            loaded["preference"] = preference = PreferenceModel.load(*source, device, models.resize)
        if "dino" in needs:
            loaded["dino"] = dino = Dino.load(models.dino, models.dino_revision, device)
        if "tracks" in needs:
            weights = models.tracker_weights
            loaded["tracks"] = tracker = CoTracker.load(weights, device) if weights else LucasKanadeTracker()
        self.features = FeaturePass(clip, preference, tracker, folder, dino)
        # 3. What identifies the models in the ids of scores.
        self.identities = {need: model.identity for need, model in loaded.items()}
        if "classifier" in needs:
            self.classifier = AttributeClassifier.load(models.classifier, device)
            content = (models.classifier / "model.safetensors").read_bytes()
            self.identities["classifier"] = hashlib.sha256(content).hexdigest()

    def to(self, device: torch.device) -> None:
        """Move all models to a device."""
        features = self.features
        for model in (features.clip, features.preference, features.dino, features.tracker, self.classifier):
            if model is not None:
                model.to(device)

    def metric(self, name: str) -> VideoMetric | SetMetric:
        """The chosen metric of that name, of one video or of a set."""
        return self.metrics[name] if name in self.metrics else self.of_sets[name]

    def model_of(self, metric: str) -> str:
        """Short hash of the models that a metric needs; empty where it needs none."""
        needs = sorted(self.metric(metric).needs)
        # Sorted, so that the order in a class does not change ids.
        used = [self.identities[need] for need in needs if need in self.identities]
        return hashlib.sha256("".join(used).encode()).hexdigest()[:12] if used else ""

    def applicable(self, reference: Reference | Description, edit: Edit) -> list[str]:
        """The metrics that the data allow; asked for by name they stay in, and raise when they measure."""
        truths = {"reference_truth": reference.truth, "edit_truth": edit.truth}
        missing = {need for need, truth in truths.items() if truth is None}
        return [
            name for name, metric in self.metrics.items() if self.explicit or not missing & set(metric.needs)
        ]

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
        # A model that no chosen metric needs is not run.
        inputs = self._inputs(frames, reference, edit, names)
        return {name: self.metrics[name].measure(inputs) for name in names}

    def score_set(
        self, videos: Sequence[np.ndarray], reference: Reference
    ) -> dict[str, dict[str, Measurement]]:
        """Measure samples of one edit as a set; see `score` for what it takes and returns."""
        tracks = [self.features.tracks(video[: reference.scored_frames]) for video in videos]
        return {name: metric.measure(tracks) for name, metric in self.of_sets.items()}

    def _inputs(
        self, frames: np.ndarray, reference: Reference, edit: Edit, names: Collection[str]
    ) -> MetricInput:
        """The input of the metrics of these names; every part is computed once."""
        needs = {need for name in names for need in self.metrics[name].needs}
        unrelated = self.chance_references_of(reference)
        scenes = tuple(video.truth for video in unrelated if isinstance(video.truth, Scene))
        # A model runs only if a metric needs it.
        inputs = MetricInput(frames, reference, edit, chance_scenes=scenes)
        if OF_FRAMES & set(needs):
            inputs = replace(
                inputs,
                features=self.features.frames(frames, needs),
                caption=self._caption(edit.caption, "caption", names),
                reference_caption=self._caption(reference.caption, "reference_caption", names),
            )
        if "tracks" in needs:
            # Tracks are compared step by step, so all videos have the reference's length.
            shorter = [video.frames[: reference.scored_frames] for video in unrelated]
            inputs = replace(
                inputs,
                tracks=self.features.tracks(frames),
                reference_tracks=self.features.tracks(reference.frames),
                chance_tracks=tuple(map(self.features.tracks, shorter)),
            )
        if "classifier" in needs and self.classifier is not None:
            inputs = replace(inputs, predictions=self.classifier.predict(frames))
        return inputs

    def check_captions(self, reference: Reference | Description, edits: Sequence[Edit]) -> None:
        """Embed the captions that the metrics of a reference and its edits read.

        Raises:
            InputError: a model would cut a caption; names the metrics that read the caption.
        """
        for edit in edits:
            names = self.applicable(reference, edit)
            self._caption(edit.caption, "caption", names)
            self._caption(reference.caption, "reference_caption", names)

    def _caption(self, caption: str, need: Need, names: Collection[str]) -> CaptionFeatures:
        """Features of a caption by the models of those metrics that read it as `need`."""
        readers = [name for name in names if need in self.metrics[name].needs]
        models = {model for name in readers for model in self.metrics[name].needs}
        try:
            return self.features.caption(caption, models)
        except InputError as error:
            raise InputError(f"metrics=[{','.join(readers)}]: {error}") from error

    def chance_references_of(self, reference: Reference) -> list[Reference]:
        """The references against which chance is measured: without `reference`, under whatever name."""
        chance_references = [
            video
            for video in self.chance_references
            # The truth too: one scene may be in two suites under two names.
            if video.name != reference.name and (video.truth is None or video.truth != reference.truth)
        ]
        return chance_references[:CHANCE_REFERENCES]
