"""Scores of videos that any system made: no backbone, and the metrics, rows and tables of a job."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from motionexp.backbones.precision import resolve_device
from motionexp.config.metrics import check_metrics
from motionexp.config.schema import ScoreConfig
from motionexp.config.scoring_models import scoring_models
from motionexp.data.base import Reference, References
from motionexp.data.external_videos import Generated, check_lengths, find_videos
from motionexp.data.select import make_reader, select_references
from motionexp.data.videos import frame_count, read_frames
from motionexp.diffusion.progress import progress_bar
from motionexp.files import file_name, user_path
from motionexp.jobs import provenance
from motionexp.jobs.cell import Cell
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors
from motionexp.jobs.references import Size, chance_references
from motionexp.jobs.sanity_baselines import baseline_cell, baseline_rows
from motionexp.jobs.scoring import CellScores
from motionexp.jobs.summary import print_summary
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import Row
from motionexp.results.runs import write_index
from motionexp.results.settings_table import EXTERNAL

CACHED_SIZES = 2
"""Lengths and sizes at which references stay decoded: TGVE's videos have two lengths."""


def score_external(cfg: ScoreConfig) -> list[Row]:
    """Score the videos in `folder=` that have no rows yet, and print the mean scores.

    A reference is read with as many frames as its videos have, and at their size. Rows are stored in
    `OUTPUT/SUITE/SYSTEM/REFERENCE/`, with the system as their model, and those of sanity baselines beside it.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all videos and sanity baselines, stored ones included.

    Raises:
        InputError: a video is missing, cannot be read, or is of another length than its reference; or the
            output folder cannot be written.
    """
    advice = "try device=cpu, or shorter or smaller videos"
    with clear_disk_errors(cfg.output), clear_memory_errors(advice):
        return _score(cfg, Console(), make_reader(cfg.data))


def _score(cfg: ScoreConfig, console: Console, reader: References) -> list[Row]:
    names = reader.names()
    names = names if cfg.references is None else select_references(cfg.references, names)
    videos = find_videos(user_path(cfg.folder or ""), reader, names, cfg.edit_kinds)
    check_lengths(videos, reader, cfg.frames)
    first = videos[0].reference
    check_metrics(cfg.metrics, [first] if reader.describe(first).truth is None else [])
    system = System(cfg, reader, lambda: console.print("another process scores this system: waiting for it"))
    for video in videos:
        system.scorer.check_captions(reader.describe(video.reference), [video.edit])
    rows: list[Row] = []
    folders: list[Path] = []
    with progress_bar(len(videos), "score", "video") as bar:
        # `find_videos` returns the videos of a reference next to each other, as groupby needs them.
        for name, group in groupby(videos, key=lambda video: video.reference):
            of_reference, cell = list(group), Cell(system.folder / file_name(name))
            with cell.running({"reference": name, "system": cfg.name}, system.on_wait):
                for video in of_reference:
                    frames = read_frames(video.path, frames=frame_count(video.path))
                    reference = system.reference(name, frames)
                    rows += system.score(cell, video, frames, reference)
                    bar.update()
                rows += system.sanity_baselines(reference, of_reference)
            folders.append(cell.folder)
    write_index(system.folder)
    print_summary(console, rows, folders, [], cfg.scoring.pairs, cfg.metrics)
    return rows


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
