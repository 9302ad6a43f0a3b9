"""Scoring videos that any system made: no backbone, the same metrics, rows and tables."""

import hashlib
import json
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.backbones.precision import resolve_device
from motionexp.compose import select_references
from motionexp.data.base import Reference, References
from motionexp.data.generated import Generated, check_lengths, find_videos
from motionexp.jobs import provenance
from motionexp.jobs.cell import Cell
from motionexp.jobs.inputs import Size, chance_references, make_reader, scoring_models
from motionexp.jobs.scoring import Wanted, rows_of, score_ids
from motionexp.jobs.showing import EXTERNAL, print_summary
from motionexp.metrics.scorer import Scorer, check_metrics
from motionexp.results import Row
from motionexp.score_settings import ScoreConfig
from motionexp.videos import frame_count, read_frames

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
    `OUTPUT/SUITE/SYSTEM/REFERENCE/`, with the system as their model.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all videos, those of earlier runs included.

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
    device = resolve_device(cfg.device)
    models = scoring_models(cfg.scoring, reader.suite == "shapes")
    features = Path(cfg.output).expanduser() / ".cache" / "features"
    scorer = Scorer(cfg.metrics, models, str(device), folder=features)
    references = SizedReferences(cfg, reader)
    rows: list[Row] = []
    cells: list[Cell] = []
    with tqdm(total=len(videos), desc="score", unit="video", leave=False) as bar:
        for name, own in groupby(videos, key=lambda each: each.reference):
            cell = Cell(Path(cfg.output).expanduser() / reader.suite / cfg.name / name)
            with cell.running({"reference": name, "system": cfg.name}, lambda: None):
                for each in own:
                    rows += _score(cfg, cell, references, each, scorer, device)
                    bar.update()
            cells.append(cell)
    print_summary(console, rows, [cell.folder for cell in cells], [], cfg.scoring.pairs)
    return rows


def _score(
    cfg: ScoreConfig,
    cell: Cell,
    references: SizedReferences,
    video: Generated,
    scorer: Scorer,
    device: torch.device,
) -> list[Row]:
    """The rows of one video, measured where they are not there yet."""
    start = perf_counter()
    frames = read_frames(video.path, frames=frame_count(video.path))
    size = frames.shape[:3]
    reference = references.read(video.reference, size)
    key = [cfg.name, reference.content_hash, video.edit.caption, video.seed, frames.shape]
    digest = hashlib.sha256(json.dumps(key).encode() + frames.tobytes())
    wanted = Wanted(video.edit, video.seed, digest.hexdigest()[:12])
    known = {row.score_id: row for row in cell.rows()}
    ids = score_ids(scorer, reference, wanted)
    missing = {metric for metric, score in ids if score not in known}
    if missing:
        scorer.others = tuple(references.others(size))
        scores = scorer.score(frames, reference, video.edit, missing)
        fields = _fields(cfg, reference, video, wanted.sample_id, device)
        fields["seconds"] = {"score": round(perf_counter() - start, 3)}
        new = [row for name, values in scores.items() for row in rows_of(scorer, name, values, fields)]
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


def _fields(
    cfg: ScoreConfig, reference: Reference, video: Generated, sample_id: str, device: torch.device
) -> dict[str, Any]:
    """All that the rows of one video say but for the value."""
    folder = Path(cfg.folder or "").expanduser()
    root = folder.parent if folder.is_file() else folder
    frames, height, width = reference.frames.shape[:3]
    return {
        "suite": reference.suite,
        "reference": reference.name,
        "reference_hash": reference.content_hash,
        "strata": dict(reference.strata),
        "edit_kind": video.edit.kind,
        "edit_caption": video.edit.caption,
        "seed": video.seed,
        "sample_id": sample_id,
        "sample_file": video.path.relative_to(root).as_posix(),
        "model": cfg.name,
        "method": EXTERNAL,
        # No window of ours had a part in it.
        "tau": 1000.0,
        "steps": 0,
        "settings": {"frames": frames, "height": height, "width": width},
        **provenance.origin(device),
    }
