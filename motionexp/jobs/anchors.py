"""Anchors: what each metric gives for videos whose score is known in advance, in place of a sample."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motionexp.data.base import Edit, Reference
from motionexp.jobs.cell import Cell
from motionexp.jobs.scoring import rows_of
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import Row, score_id_of


def anchor_videos(reference: Reference, others: Sequence[Reference]) -> dict[str, np.ndarray]:
    """Return {anchor: (F, H, W, 3) frames}.

    Args:
        reference: as `reference`, held at its first frame as `frozen`, and backwards as `reversed`.
        others: of which one, the same each time, stands for the sample as `shuffled`; none of one: no such.
    """
    frames = reference.frames[: reference.scored_frames]
    videos = {
        "reference": frames,
        "frozen": np.repeat(frames[:1], len(frames), axis=0),
        "reversed": frames[::-1].copy(),
    }
    if others:
        drawn = int(hashlib.sha256(reference.name.encode()).hexdigest(), 16) % len(others)
        videos["shuffled"] = others[drawn].frames[: reference.scored_frames]
    return videos


def anchor_rows(cell: Cell, reference: Reference, scorer: Scorer, common: Mapping[str, Any]) -> list[Row]:
    """Rows of all metrics on all anchors of a reference, for each of its edits; kept, and measured once.

    Args:
        cell: where the rows lie: a folder of their own.
        reference: whose samples the anchors stand beside.
        scorer: the metrics, and the other references.
        common: fields that the rows share with those of samples.
    """
    known = {row.score_id: row for row in cell.rows()}
    rows: list[Row] = []
    for anchor, frames in anchor_videos(reference, scorer.chance_references_of(reference)).items():
        for edit in reference.edits:
            fields = {
                **common,
                "method": "sanity_baseline",
                "tau": 1000.0,
                "steps": 0,
                "train_steps": 0,
                "adapter_scale": 1.0,
                "adapter_id": "",
                "strata": {**reference.strata, "sanity_baseline": anchor},
                "edit_kind": edit.kind,
                "edit_caption": edit.caption,
                "sample_id": _anchor_id(frames, reference, edit),
            }
            rows += _score(cell, reference, edit, frames, scorer, fields, known)
    return rows


def _score(
    cell: Cell,
    reference: Reference,
    edit: Edit,
    frames: np.ndarray,
    scorer: Scorer,
    fields: Mapping[str, Any],
    known: Mapping[str, Row],
) -> list[Row]:
    sample = fields["sample_id"]
    ids = {
        (name, value): score_id_of(sample, value, scorer.metrics[name].version, scorer.model_of(name))
        for name in scorer.applicable(reference, edit)
        for value in scorer.metrics[name].values
    }
    missing = {name for (name, _), score in ids.items() if score not in known}
    found = dict(known)
    if missing:
        scores = scorer.score(frames, reference, edit, missing)
        new = [row for name, values in scores.items() for row in rows_of(scorer, name, values, fields)]
        cell.add_rows(new)
        found |= {row.score_id: row for row in new}
    return [found[score] for score in ids.values()]


def _anchor_id(frames: np.ndarray, reference: Reference, edit: Edit) -> str:
    digest = hashlib.sha256(f"anchor {reference.content_hash} {edit.caption} ".encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()[:12]
