"""Scoring videos that any system made: no backbone, the same metrics, rows and tables."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.backbones.precision import resolve_device
from motionexp.config.metrics import check_metrics
from motionexp.config.schema import ScoreConfig
from motionexp.data.base import Reference, References
from motionexp.data.external_videos import Generated, check_lengths, find_videos
from motionexp.data.select import make_reader, select_references
from motionexp.data.videos import frame_count, read_frames
from motionexp.jobs import provenance
from motionexp.jobs.anchors import anchor_rows
from motionexp.jobs.cell import Cell
from motionexp.jobs.inputs import Size, chance_references, scoring_models
from motionexp.jobs.scoring import Wanted, rows_of, score_ids
from motionexp.jobs.summary import EXTERNAL, print_summary
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import Row

KEPT_SIZES = 2
"""Lengths and sizes at which references are kept: TGVE's videos have two lengths."""


class SizedReferences:
    """A suite's references as long and as large as videos are, each decoded once for one length and size.

    Kept are those against which chance is measured, at the last `KEPT_SIZES` lengths and sizes, and as many
    others, the last that were asked for.
    """

    def __init__(self, cfg: ScoreConfig, reader: References) -> None:
        self.others = lru_cache(KEPT_SIZES)(partial(chance_references, cfg, reader))
        self._read = lru_cache(KEPT_SIZES)(reader.read)

    def read(self, name: str, size: Size) -> Reference:
        """One reference. Raises InputError."""
        kept = [each for each in self.others(size) if each.name == name]
        return kept[0] if kept else self._read(name, *size)


def score_external(cfg: ScoreConfig) -> list[Row]:
    """Score the videos that `folder=` holds; what is scored already is kept. Prints the means.

    Each reference is read with as many frames as its videos have and at their size. Rows go to
    `OUTPUT/SUITE/SYSTEM/REFERENCE/`, with the system as their model; those of anchors, where they are asked
    for, beside these.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all videos and anchors, those of earlier runs included.

    Raises:
        InputError: a video is missing, cannot be read, or is of another length than its reference.
    """
    console, reader = Console(), make_reader(cfg)
    names = reader.names()
    names = names if cfg.references is None else select_references(cfg.references, names)
    folder = Path(cfg.folder or "").expanduser()
    videos = find_videos(folder, reader, names, cfg.edit_kinds)
    check_lengths(videos, reader, cfg.frames)
    first = videos[0].reference
    check_metrics(cfg.metrics, [first] if reader.describe(first).truth is None else [])
    system = System(cfg, reader)
    rows: list[Row] = []
    cells: list[Cell] = []
    with tqdm(total=len(videos), desc="score", unit="video", leave=False) as bar:
        for name, group in groupby(videos, key=lambda each: each.reference):
            own, cell = list(group), Cell(system.folder / name)
            with cell.running({"reference": name, "system": cfg.name}, lambda: None):
                for each in own:
                    frames = read_frames(each.path, frames=frame_count(each.path))
                    reference = system.reference(name, frames)
                    rows += system.score(cell, each, frames, reference)
                    bar.update()
                rows += system.anchors(reference, own)
            cells.append(cell)
    print_summary(console, rows, [cell.folder for cell in cells], [], cfg.scoring.pairs, cfg.metrics)
    return rows


class System:
    """How one system's videos are scored, and what their rows share."""

    def __init__(self, cfg: ScoreConfig, reader: References) -> None:
        self.cfg = cfg
        self.folder = Path(cfg.output).expanduser() / reader.suite / cfg.name
        self.device = resolve_device(cfg.device)
        self.references = SizedReferences(cfg, reader)
        models = scoring_models(cfg.scoring, reader.suite == "shapes")
        features = Path(cfg.output).expanduser() / ".cache" / "features"
        self.scorer = Scorer(cfg.metrics, models, str(self.device), folder=features)

    def reference(self, name: str, frames: np.ndarray) -> Reference:
        """A reference as long and large as a video; the scorer has others of that size from now on."""
        size = frames.shape[:3]
        self.scorer.chance_references = tuple(self.references.others(size))
        return self.references.read(name, size)

    def score(self, cell: Cell, video: Generated, frames: np.ndarray, reference: Reference) -> list[Row]:
        """The rows of one video, measured where they are not there yet."""
        start = perf_counter()
        key = [self.cfg.name, reference.content_hash, video.edit.caption, video.seed, frames.shape]
        digest = hashlib.sha256(json.dumps(key).encode() + frames.tobytes())
        wanted = Wanted(video.edit, video.seed, digest.hexdigest()[:12])
        known = {row.score_id: row for row in cell.rows()}
        ids = score_ids(self.scorer, reference, wanted)
        missing = {metric for metric, score in ids if score not in known}
        if missing:
            scores = self.scorer.score(frames, reference, video.edit, missing)
            fields = self._common(reference) | self._of_video(video, wanted.sample_id)
            fields["seconds"] = {"score": round(perf_counter() - start, 3)}
            new = [row for name, each in scores.items() for row in rows_of(self.scorer, name, each, fields)]
            series = {
                value: measured.series
                for values in scores.values()
                for value, measured in values.items()
                if measured.series is not None
            }
            cell.media.mkdir(exist_ok=True)
            cell.keep_series(video.edit, video.seed, wanted.sample_id, series)
            cell.add_rows(new)
            known |= {row.score_id: row for row in new}
        return [known[score] for _, score in ids]

    def anchors(self, reference: Reference, videos: Sequence[Generated]) -> list[Row]:
        """The rows of a reference's anchors, where they are asked for, for the edits that its videos show."""
        if not self.cfg.scoring.sanity_baselines:
            return []
        cell = Cell(self.folder / f"anchors-{reference.content_hash[:12]}")
        edits = {(each.edit.kind, each.edit.caption): each.edit for each in videos}
        own = replace(reference, edits=tuple(edits.values()))
        return anchor_rows(cell, own, self.scorer, self._common(reference))

    def _common(self, reference: Reference) -> dict[str, Any]:
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

    def _of_video(self, video: Generated, sample_id: str) -> dict[str, Any]:
        folder = Path(self.cfg.folder or "").expanduser()
        root = folder.parent if folder.is_file() else folder
        return {
            "edit_kind": video.edit.kind,
            "edit_caption": video.edit.caption,
            "seed": video.seed,
            "sample_id": sample_id,
            "sample_file": video.path.relative_to(root).as_posix(),
            "method": EXTERNAL,
            # No window of ours had a part in it.
            "tau": 1000.0,
            "steps": 0,
        }
