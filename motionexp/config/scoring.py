"""How samples are scored: the models behind the metrics. Imports no torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from motionexp.config.settings import REVISION, setting, setting_problems

PAIRS = ("consecutive", "pairs")
TRACKERS = ("lucas_kanade", "cotracker")


# fmt: off
@dataclass
class ScoringConfig:
    """Models behind the metrics, and the sanity baselines: one file in `conf/scoring/`."""

    clip: str | None = setting(
        None, "ARCHITECTURE/TAG, hf-hub:OWNER/NAME or a folder; null: by model=", text=True)
    scorer: str | None = setting(None, "preference model: hub id or folder; null: by model=", text=True)
    scorer_processor: str | None = setting(
        None, "hub id or folder of its processor; null: the scorer's own", text=True)
    scorer_revision: str | None = setting(
        None, "commit of the preference model's repository, branch or tag", pattern=REVISION)
    resize: int | None = setting(None, "frames become such squares first; 0: none; null: by model=", low=0)
    pairs: str = setting("consecutive", "of frame consistency", choices=PAIRS)
    tracker: str = setting("lucas_kanade", "of motion_fidelity", choices=TRACKERS)
    tracker_weights: str | None = setting(None, "CoTracker 3's weights, as a safetensors file", text=True)
    dino: str | None = setting(
        None, "of subject_consistency: timm's hub id or folder of a ViT; null: VBench's", text=True,
        added_later=True)
    sanity_baselines: bool = setting(False, "also score frozen, reversed and exchanged references")
# fmt: on


def scoring_problems(scoring: ScoringConfig) -> Iterator[str]:
    """All that is wrong with the settings of `scoring.`, as far as it shows without torch."""
    yield from setting_problems(scoring, "scoring.")
    if (scoring.tracker == "cotracker") != (scoring.tracker_weights is not None):
        yield "scoring.tracker=cotracker and scoring.tracker_weights=FILE belong together: give both or none"
    elif scoring.tracker_weights is not None and not os.path.isfile(scoring.tracker_weights):
        yield f"scoring.tracker_weights={scoring.tracker_weights}: there is no such file"
    if scoring.scorer is None and (scoring.scorer_processor or scoring.scorer_revision):
        yield "scoring.scorer_processor and scoring.scorer_revision need scoring.scorer: give it too"
