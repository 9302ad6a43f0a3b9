"""Sanity baselines: each metric on videos whose score is known in advance, in place of a sample."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motionexp.data.base import Edit, Reference
from motionexp.jobs.cell import Cell
from motionexp.jobs.scoring import CellScores
from motionexp.results.rows import Row

if TYPE_CHECKING:
    from motionexp.metrics.scorer import Scorer


def baseline_videos(reference: Reference, others: Sequence[Reference]) -> dict[str, np.ndarray]:
    """Return {name of a sanity baseline: (F, H, W, 3) frames}.

    Args:
        reference: gives `reference`, its first frame held (`frozen`), and its frames backwards (`reversed`).
        others: one of them, chosen by the reference's name, is `shuffled`; left out if there are none.
    """
    frames = reference.frames[: reference.scored_frames]
    videos = {
        "reference": frames,
        "frozen": np.repeat(frames[:1], len(frames), axis=0),
        "reversed": frames[::-1].copy(),
    }
    if others:
        # By a hash of the name: the same one in every run, and on every machine.
        drawn = int(hashlib.sha256(reference.name.encode()).hexdigest(), 16) % len(others)
        videos["shuffled"] = others[drawn].frames[: reference.scored_frames]
    return videos


def baseline_cell(folder: Path, reference: Reference) -> Cell:
    """The folder of a reference's sanity baselines, below that of its model or system."""
    return Cell(folder / f"anchors-{reference.content_hash[:12]}")


def baseline_rows(
    cell: Cell,
    reference: Reference,
    scorer: "Scorer",
    fields: Mapping[str, Any],
    on_wait: Callable[[], None],
) -> list[Row]:
    """The rows of all metrics on all sanity baselines of a reference, for each of its edits.

    The cell is locked: all cells of the reference share it, also those of other processes.

    Args:
        cell: holds the rows: see `baseline_cell`.
        reference: whose samples the sanity baselines are compared with.
        scorer: the metrics, and the other references.
        fields: the fields that these rows share with those of samples.
        on_wait: called before waiting for another process that has the lock.
    """

    def score(scores: CellScores, name: str, frames: np.ndarray, edit: Edit) -> list[Row]:
        baseline_fields = {
            **fields,
            "method": "sanity_baseline",
            "tau": 1000.0,
            "steps": 0,
            "train_steps": 0,
            "adapter_scale": 1.0,
            "adapter_id": "",
            "training_seed": None,
            "versions": {},
            "strata": {**reference.strata, "sanity_baseline": name},
        }
        return scores.of_video(edit, _video_id(frames, reference, edit), lambda: (frames, baseline_fields))

    videos = baseline_videos(reference, scorer.chance_references_of(reference))
    with cell.locked(on_wait):
        # Read under the lock: another process may have scored them while this one waited.
        scores = CellScores(cell, reference, scorer)
        return [
            row
            for name, frames in videos.items()
            for edit in reference.edits
            for row in score(scores, name, frames, edit)
        ]


def _video_id(frames: np.ndarray, reference: Reference, edit: Edit) -> str:
    digest = hashlib.sha256(f"anchor {reference.content_hash} {edit.caption} ".encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()[:12]
