"""How samples are scored: the metrics that there are, and what they look through. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = (
    "text_alignment",
    "frame_consistency",
    "pick_score",
    "flow_similarity",
    "motion_fidelity",
    "mf_ditflow",
    "motion_diversity",
    "appearance_leakage",
    "trajectory",
    "attribute_accuracy",
    "replaced_attributes",
    "nuisances",
)
OF_SETS = ("motion_diversity",)  # those of all samples of an edit together: their rows have no seed
PAIRS = ("consecutive", "pairs")
TRACKERS = ("lucas_kanade", "cotracker")


def _key(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass
class ScoringConfig:
    """Models behind the metrics, and what stands beside the scores: one file in `conf/scoring/`."""

    clip: str | None = _key(
        None,
        "open_clip's ARCHITECTURE/TAG, hf-hub:OWNER/NAME or a folder;"
        " null: the bundled one for bundled models, else ViT-L-14/openai",
    )
    scorer: str | None = _key(None, "a hub id or a folder; null: the bundled one, else PickScore's")
    scorer_processor: str | None = _key(None, "where its processor is, if elsewhere")
    scorer_revision: str | None = _key(None, "commit of the scorer's repository")
    resize: int | None = _key(
        None,
        "pixels of the square that frames become first; 0: none; null: 480, for bundled models none",
    )
    pairs: str = _key("consecutive", "whose frame consistency is shown: consecutive frames or all pairs")
    tracker: str = _key("lucas_kanade", "what follows points for motion_fidelity: lucas_kanade or cotracker")
    tracker_weights: str | None = _key(None, "CoTracker 3's weights, as a safetensors file")
    sanity_baselines: bool = _key(
        False, "true: also score the reference itself, frozen, reversed, and another reference in its place"
    )


def scoring_problems(scoring: ScoringConfig) -> Iterator[str]:
    """All that is wrong with the settings of `scoring.`, as far as it shows without torch."""
    if scoring.resize is not None and scoring.resize < 0:
        yield f"scoring.resize={scoring.resize}: a number of pixels, 0 for none, or null"
    if scoring.pairs not in PAIRS:
        yield f"scoring.pairs={scoring.pairs}: one of {', '.join(PAIRS)}"
    if scoring.tracker not in TRACKERS:
        yield f"scoring.tracker={scoring.tracker}: one of {', '.join(TRACKERS)}"
    elif (scoring.tracker == "cotracker") != (scoring.tracker_weights is not None):
        yield "scoring.tracker=cotracker and scoring.tracker_weights=FILE belong together: give both or none"
    elif scoring.tracker_weights is not None and not Path(scoring.tracker_weights).is_file():
        yield f"scoring.tracker_weights={scoring.tracker_weights}: there is no such file"
    if scoring.scorer is None and (scoring.scorer_processor or scoring.scorer_revision):
        yield "scoring.scorer_processor and scoring.scorer_revision are of scoring.scorer: give that too"
