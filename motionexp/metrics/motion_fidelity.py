"""Do the sample's points move as the reference's points do, wherever they are?

The score is symmetric, counts speed, and looks only at points while they are visible. `mf_ditflow` is the
score of earlier work.
"""

from typing import ClassVar

from motionexp.metrics.base import Measurement, MetricInput, VideoMetric, needed
from motionexp.metrics.track_similarity import SHARED, chance, motion_fidelity


class MotionFidelity(VideoMetric):
    """`motion_fidelity` of sample and reference, its level of chance, and the share of usable tracks."""

    version = 1
    needs = ("tracks",)
    values: ClassVar = {
        "motion_fidelity": True,
        "motion_fidelity_chance": None,
        "track_coverage": None,
    }
    order = 110
    summary: ClassVar = {
        "motion_fidelity": "motion fidelity",
        "motion_fidelity_chance": "motion fidelity by chance",
    }
    columns: ClassVar = {
        "fidelity": {"label": "motion fidelity ↑", "metric": "motion_fidelity", "optional": True},
        "fidelity_chance": {
            "label": "chance level of motion fidelity",
            "metric": "motion_fidelity_chance",
            "optional": True,
        },
    }

    def measure(self, inputs: MetricInput) -> dict[str, Measurement]:
        """Measure one sample against its reference, and against others."""
        sample = needed(inputs.tracks, "motion_fidelity", "tracks")
        reference = needed(inputs.reference_tracks, "motion_fidelity", "tracks")
        # Of both videos; the smaller share bounds how much of the score can be trusted.
        shares = [float((tracks.seen_steps.mean(1) >= SHARED).mean()) for tracks in (sample, reference)]
        return {
            "motion_fidelity": motion_fidelity(sample, reference),
            "motion_fidelity_chance": chance(motion_fidelity, sample, inputs.chance_tracks),
            "track_coverage": Measurement(min(shares)),
        }
