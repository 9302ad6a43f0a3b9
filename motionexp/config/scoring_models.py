"""Where the models behind the metrics are. Imports no torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from motionexp.config.schema import BUNDLED
from motionexp.config.scoring import ScoringConfig

BUNDLED_CAPTION_TOKENS = 24  # both bundled text towers read as many


@dataclass(frozen=True)
class ScoringModels:
    """Where the models of the metrics are; see `OpenClip.load` and `PreferenceModel.load`.

    Attributes:
        clip: a folder, or one of open_clip's names.
        preference: the preference model's folder or hub id, with `preference_processor` and
            `preference_revision`.
        resize: frames become squares of this many pixels first; 0: they stay as they are.
        tracker_weights: CoTracker's; None: Lucas-Kanade follows the points.
        dino: DINO's folder or hub id, with `dino_revision`.
        classifier: folder of the attribute classifier.
    """

    clip: str = str(BUNDLED / "clip")
    preference: str = str(BUNDLED / "scorer")
    preference_processor: str | None = None
    preference_revision: str | None = None
    resize: int = 0
    tracker_weights: str | None = None
    dino: str = "timm/vit_base_patch16_224.dino"  # VBench's weights, as safetensors
    dino_revision: str | None = "9578d3895b3c81965d4fb6de0ffb14491b6fc8f9"
    classifier: Path = BUNDLED / "classifier"


# TGVE's own choices, for models that know any words.
TGVE_MODELS = ScoringModels(
    clip="ViT-L-14/openai",
    preference="yuvalkirstain/PickScore_v1",
    preference_processor="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    resize=480,
)


def scoring_models(scoring: ScoringConfig, closed_vocabulary: bool) -> ScoringModels:
    """The models of `scoring=`. By default: bundled ones for a closed vocabulary, and else TGVE's.

    The bundled models know only the words of the bundled world, as the small backbones do.
    """
    models = ScoringModels() if closed_vocabulary else TGVE_MODELS
    if scoring.clip is not None:
        models = replace(models, clip=scoring.clip)
    if scoring.scorer is not None:
        models = replace(
            models,
            preference=scoring.scorer,
            preference_processor=scoring.scorer_processor,
            preference_revision=scoring.scorer_revision,
        )
    if scoring.resize is not None:
        models = replace(models, resize=scoring.resize)
    if scoring.dino is not None:
        models = replace(models, dino=scoring.dino, dino_revision=None)
    return replace(models, tracker_weights=scoring.tracker_weights)
