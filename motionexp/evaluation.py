"""Sampling a reference's edits, with a method or without, and scoring what came out."""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from motionexp.backbones.base import Backbone, Conditioning
from motionexp.config import BUNDLED, InputError
from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.scenes import Scene
from motionexp.methods.base import TuningMethod
from motionexp.metrics.appearance_leakage import AppearanceLeakage, ReplacedAttributes
from motionexp.metrics.attributes import AttributeAccuracy, AttributeClassifier, AttributeReadings
from motionexp.metrics.base import Measurement, Need, Subject, VideoMetric
from motionexp.metrics.features import FeaturePass, OpenClip, PreferenceScorer
from motionexp.metrics.flow_similarity import FlowSimilarity
from motionexp.metrics.frame_consistency import FrameConsistency
from motionexp.metrics.nuisances import Nuisances
from motionexp.metrics.pick_score import PickScore
from motionexp.metrics.text_alignment import TextAlignment
from motionexp.metrics.trajectory import Trajectory
from motionexp.sampling import (
    Gate,
    SamplerSettings,
    initial_noise,
    sample_latents,
    step_generator,
    videos_per_batch,
)

METRICS: Mapping[str, type[VideoMetric]] = {
    "text_alignment": TextAlignment,
    "frame_consistency": FrameConsistency,
    "pick_score": PickScore,
    "flow_similarity": FlowSimilarity,
    "appearance_leakage": AppearanceLeakage,
    "trajectory": Trajectory,
    "attribute_accuracy": AttributeAccuracy,
    "replaced_attributes": ReplacedAttributes,
    "nuisances": Nuisances,
}
PROBE_METRICS: Mapping[str, type[VideoMetric]] = {
    "text_alignment": TextAlignment,
    "flow_similarity": FlowSimilarity,
    "trajectory": Trajectory,
    "attribute_readings": AttributeReadings,
}
# Of those that need ground truth, the ones that ask nothing about the edit.
OF_REFERENCE_ALONE = frozenset({"trajectory"})
CHANCE_SCENES = 8
MOST_AT_ONCE = 16

Embed = Callable[[str], Conditioning]


@dataclass(frozen=True)
class SampleSettings:
    """What determines a sample, beside backbone, method, caption and the index of its initial noise.

    Attributes:
        sampler: steps, guidance and eta.
        seed: of the initial noise, and of the noise that eta > 0 adds.
        negative_prompt: caption of the unconditional branch.
        adapter_scale: strength of the method; 1 as trained.
        adapter_in_unconditional: whether the method acts in the unconditional branch too.
    """

    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    seed: int = 0
    negative_prompt: str = ""
    adapter_scale: float = 1.0
    adapter_in_unconditional: bool = True


@dataclass(frozen=True, eq=False)
class Sample:
    """One generated video.

    Attributes:
        edit: its caption and kind.
        index: of its initial noise.
        frames: (F, H, W, 3) uint8 RGB.
        adapter_steps: sampling steps with the method on.
        seconds: wall time of its batch, divided by the batch's size.
        peak_memory: bytes, of the device on a GPU and else of the process.
    """

    edit: Edit
    index: int
    frames: np.ndarray
    adapter_steps: int
    seconds: float
    peak_memory: int


def sample(
    backbone: Backbone,
    method: TuningMethod | None,
    wanted: Sequence[tuple[Edit, int]],
    settings: SampleSettings,
    *,
    memory: float = 2.0**30,
    embed: Embed | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Sample]:
    """Generate one video for each edit and index, as many at once as fit; gives them as batches are done.

    Args:
        backbone: generates.
        method: attached to it, on within its window alone; None samples the base model.
        wanted: edits, each with the index of its initial noise: samples of one index start alike, whatever
            the edit and the method.
        settings: see there.
        memory: bytes that a batch may fill beside the weights.
        embed: captions to conditionings, where they are kept; `backbone.embed` unless given.
        progress: called with (sampling steps done, all) over all batches.

    Yields:
        Samples in the order of `wanted`.
    """
    embed = embed or (lambda caption: backbone.embed([caption]))
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    # Beyond so many nothing gets faster, and an interrupt would lose more.
    at_once = min(MOST_AT_ONCE, videos_per_batch(backbone, shape, settings.sampler, memory))
    batches = [wanted[start : start + at_once] for start in range(0, len(wanted), at_once)]
    gate = None
    if method is not None:
        method.scale = settings.adapter_scale
        gate = _gate(method)
    for number, batch in enumerate(batches):
        start = time.perf_counter()
        latents = _sample_batch(
            backbone, gate, batch, shape, settings, embed, _offset(progress, number, len(batches))
        )
        if not torch.isfinite(latents).all():
            raise FloatingPointError(
                f"sampling {batch[0][0].caption!r} gave numbers that are not finite: try"
                " precision=fp32, or a lower guidance_scale or adapter_scale"
            )
        frames = [backbone.decode(each[None])[0].numpy() for each in latents]
        seconds = (time.perf_counter() - start) / len(batch)
        steps = count_adapter_steps(backbone, method, settings)
        for (edit, index), video in zip(batch, frames, strict=True):
            yield Sample(edit, index, video, steps, seconds, peak_memory(backbone.device))


def _sample_batch(
    backbone: Backbone,
    gate: Gate | None,
    batch: Sequence[tuple[Edit, int]],
    shape: tuple[int, int, int, int],
    settings: SampleSettings,
    embed: Embed,
    progress: Callable[[int, int], None] | None,
) -> torch.Tensor:
    indices = [index for _, index in batch]
    return sample_latents(
        backbone,
        Conditioning.cat([embed(edit.caption) for edit, _ in batch]),
        embed(settings.negative_prompt) if settings.sampler.guided else None,
        torch.stack([initial_noise(settings.seed, index, shape) for index in indices]),
        settings.sampler,
        gate=gate,
        adapter_in_unconditional=settings.adapter_in_unconditional,
        generator=[step_generator(settings.seed, index) for index in indices]
        if settings.sampler.eta
        else None,
        progress=progress,
    )


def _gate(method: TuningMethod) -> Gate:
    def gate(t: float | None) -> bool:
        method.set_active(t)
        return t is not None and method.window.contains(t)

    return gate


def _offset(
    progress: Callable[[int, int], None] | None, number: int, batches: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, steps: progress(number * steps + done, batches * steps)


def count_adapter_steps(backbone: Backbone, method: TuningMethod | None, settings: SampleSettings) -> int:
    """How many of the sampling steps have the method on."""
    if method is None or settings.adapter_scale == 0:
        return 0
    return method.window.count(backbone.schedule.timesteps(settings.sampler.steps))


def peak_memory(device: torch.device) -> int:
    """Most bytes in use since the process began, on the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class ScoringModels:
    """Where the models are that metrics look through; see `OpenClip.load` and `PreferenceScorer.load`."""

    clip: str = str(BUNDLED / "clip")
    scorer: str = str(BUNDLED / "scorer")
    scorer_processor: str | None = None
    classifier: Path = BUNDLED / "classifier"


# TGVE's own choices, for models that know any words.
TGVE_MODELS = ScoringModels(
    clip="ViT-L-14/openai",
    scorer="yuvalkirstain/PickScore_v1",
    scorer_processor="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
)


class Scorer:
    """Metrics by name, with the models that they need, loaded once.

    Args:
        metrics: names in `METRICS`; None: all.
        models: where the models are.
        device: where they run, in float32.
        others: scenes of other references, against which chance is measured.
        kinds: what there is to choose from.

    Raises:
        InputError: an unknown metric, or a model that cannot be loaded.
    """

    def __init__(
        self,
        metrics: Collection[str] | None = None,
        models: ScoringModels | None = None,
        device: str = "cpu",
        others: Sequence[Scene] = (),
        kinds: Mapping[str, type[VideoMetric]] = METRICS,
    ) -> None:
        models = models or ScoringModels()
        check_metrics(metrics)
        self.metrics = {name: kinds[name]() for name in (kinds if metrics is None else metrics)}
        self.explicit = metrics is not None
        self.others = tuple(others)
        needs = {need for metric in self.metrics.values() for need in metric.needs}
        with _silence():
            clip = OpenClip.load(models.clip, device) if "clip" in needs else None
        scorer = (
            PreferenceScorer.load(models.scorer, models.scorer_processor, device=device)
            if "scorer" in needs
            else None
        )
        self.features = FeaturePass(clip, scorer)
        self.classifier = (
            AttributeClassifier.load(models.classifier, device) if "classifier" in needs else None
        )
        self.hashes: dict[Need, str] = {}
        if clip is not None:
            self.hashes["clip"] = clip.weights_hash
        if scorer is not None:
            self.hashes["scorer"] = scorer.weights_hash
        if self.classifier is not None:
            weights = (models.classifier / "model.safetensors").read_bytes()
            self.hashes["classifier"] = hashlib.sha256(weights).hexdigest()

    def model_of(self, metric: str) -> str:
        """Short hash of the models that a metric looks through; empty where it needs none."""
        used = [self.hashes[need] for need in sorted(self.metrics[metric].needs) if need in self.hashes]
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
        seen = any({"clip", "scorer"} & self.metrics[name].needs for name in names)
        judged = any("classifier" in self.metrics[name].needs for name in names)
        subject = Subject(frames, reference, edit, others=self._others(reference))
        if seen:
            subject = self._with_features(subject)
        if judged and self.classifier is not None:
            subject = replace(subject, predictions=self.classifier.predict(frames))
        return {name: self.metrics[name].measure(subject) for name in names}

    def _with_features(self, subject: Subject) -> Subject:
        return replace(
            subject,
            features=self.features.frames(subject.frames),
            caption=self.features.caption(subject.edit.caption),
            reference_caption=self.features.caption(subject.reference.caption),
        )

    def _others(self, reference: Reference) -> tuple[Scene, ...]:
        return tuple(scene for scene in self.others if scene != reference.truth)[:CHANCE_SCENES]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep back what open_clip tells of each file that it reads."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def check_metrics(metrics: Collection[str] | None, references: Sequence[Reference] = ()) -> None:
    """Check metrics that are asked for by name.

    Raises:
        InputError: a name that is no metric, or a metric from ground truth where a reference has none.
    """
    unknown = [name for name in metrics or () if name not in METRICS]
    if unknown:
        raise InputError(f"metrics=[{', '.join(unknown)}]: some of {', '.join(METRICS)}, or null for all")
    blind = [each.name for each in references if each.truth is None]
    unfit = [name for name in metrics or () if blind and "truth" in METRICS[name].needs]
    if unfit:
        raise InputError(
            f"metrics=[{', '.join(unfit)}]: measured from ground truth, and {blind[0]} has none;"
            " leave them out, or metrics=null for all that the data allow"
        )


def score(
    samples: Sequence[Sample], reference: Reference, scorer: Scorer | None = None
) -> list[dict[str, dict[str, Measurement]]]:
    """Scores of each sample, in their order; see `Scorer.score`. No scorer: all metrics on bundled models."""
    scorer = scorer or Scorer()
    return [scorer.score(each.frames, reference, each.edit) for each in samples]
