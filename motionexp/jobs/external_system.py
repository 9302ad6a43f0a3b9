"""The scorer of one system's videos, and the rows that it makes of them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from motionexp.backbones.precision import resolve_device
from motionexp.config.schema import ScoreConfig
from motionexp.config.scoring_models import scoring_models
from motionexp.data.base import Reference, References
from motionexp.data.external_videos import Generated
from motionexp.files import file_name, user_path
from motionexp.jobs import provenance
from motionexp.jobs.cell import Cell
from motionexp.jobs.references import Size, chance_references
from motionexp.jobs.sanity_baselines import baseline_cell, baseline_rows
from motionexp.jobs.scoring import CellScores
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import Row
from motionexp.results.settings_table import EXTERNAL

CACHED_SIZES = 2
"""Lengths and sizes at which references stay decoded: TGVE's videos have two lengths."""


class System:
    """The scorer of one system's videos, and the references at the size of these videos.

    Each reference is decoded once for one length and size. Those that chance is measured against stay decoded
    for the last `CACHED_SIZES` lengths and sizes, and so do as many other references.
    """

    def __init__(self, cfg: ScoreConfig, reader: References, on_wait: Callable[[], None]) -> None:
        self.cfg, self.on_wait = cfg, on_wait
        output = user_path(cfg.output)
        self.folder = output / file_name(reader.suite) / file_name(cfg.name)
        self.device = resolve_device(cfg.device)
        self._chance_references = lru_cache(CACHED_SIZES)(
            partial(chance_references, cfg.metrics, cfg.scoring, reader)
        )
        self._read = lru_cache(CACHED_SIZES)(reader.read)
        models = scoring_models(cfg.scoring, reader.suite == "shapes")
        folder = output / ".cache" / "features"
        self.scorer = Scorer(cfg.metrics, models, str(self.device), folder=folder)

    def reference(self, name: str, frames: np.ndarray) -> Reference:
        """A reference of the length and size of a video; the scorer then compares with others of this size.

        Raises:
            InputError: the reference cannot be read at this length.
        """
        size: Size = frames.shape[:3]
        self.scorer.chance_references = tuple(self._chance_references(size))
        decoded = {reference.name: reference for reference in self.scorer.chance_references}
        return decoded.get(name) or self._read(name, *size)

    def score(self, cell: Cell, video: Generated, frames: np.ndarray, reference: Reference) -> list[Row]:
        """The rows of one video; the missing ones are measured."""
        # The pixels are part of the id: a video that was replaced under its name is scored again.
        key = [self.cfg.name, reference.content_hash, video.edit.caption, video.seed, frames.shape]
        sample_id = hashlib.sha256(json.dumps(key).encode() + frames.tobytes()).hexdigest()[:12]
        scores = CellScores(cell, reference, self.scorer)
        scored = frames, self._fields(reference) | self._video_fields(video)
        return scores.of_video(video.edit, sample_id, lambda: scored, index=video.seed)

    def sanity_baselines(self, reference: Reference, videos: Sequence[Generated]) -> list[Row]:
        """The rows of a reference's sanity baselines for the edits of its videos, if they are asked for."""
        if not self.cfg.scoring.sanity_baselines:
            return []
        edits = {(video.edit.kind, video.edit.caption): video.edit for video in videos}
        edited = replace(reference, edits=tuple(edits.values()))
        cell = baseline_cell(self.folder, reference)
        return baseline_rows(cell, edited, self.scorer, self._fields(reference), self.on_wait)

    def _fields(self, reference: Reference) -> dict[str, Any]:
        """The fields that all rows of a reference share."""
        frames, height, width = reference.frames.shape[:3]
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "strata": dict(reference.strata),
            "model": self.cfg.name,
            "settings": {"frames": frames, "height": height, "width": width},
            **provenance.origin(self.device),
        }

    def _video_fields(self, video: Generated) -> dict[str, Any]:
        folder = user_path(self.cfg.folder or "")
        root = folder.parent if folder.is_file() else folder
        # A list of videos may name a file elsewhere by its absolute path.
        path = video.path.relative_to(root) if video.path.is_relative_to(root) else video.path
        return {
            "seed": video.seed,
            "sample_file": path.as_posix(),
            "method": EXTERNAL,
            "tau": 1000.0,  # no window of this package was involved
            "steps": 0,
        }
