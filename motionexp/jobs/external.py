"""Scores of videos that any system made: no backbone, and the metrics, rows and tables of a job."""

from itertools import groupby
from pathlib import Path

from rich.console import Console

from motionexp.config.metrics import check_metrics
from motionexp.config.schema import ScoreConfig
from motionexp.data.base import References
from motionexp.data.external_videos import check_lengths, find_videos
from motionexp.data.select import make_reader, select_references
from motionexp.data.videos import frame_count, read_frames
from motionexp.diffusion.progress import progress_bar
from motionexp.files import file_name, user_path
from motionexp.jobs.cell import Cell
from motionexp.jobs.failures import Failures
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors
from motionexp.jobs.summary import print_summary
from motionexp.jobs.waiting import loading_libraries
from motionexp.results.compaction import compact
from motionexp.results.rows import Row
from motionexp.results.runs import write_index


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
        CellsFailed: the videos of some of several references could not be scored; those of the others were.
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
    # The videos were looked at before: the import takes seconds.
    with loading_libraries():
        from motionexp.jobs.external_system import System
    system = System(cfg, reader, lambda: console.print("another process scores this system: waiting for it"))
    for video in videos:
        system.scorer.check_captions(reader.describe(video.reference), [video.edit])
    rows, failures = list[Row](), Failures(len({video.reference for video in videos}))
    folders: list[Path] = []
    with progress_bar(len(videos), "score", "video") as bar:
        # `find_videos` returns the videos of a reference next to each other, as groupby needs them.
        for name, group in groupby(videos, key=lambda video: video.reference):
            of_reference, cell = list(group), Cell(system.folder / file_name(name))
            about = {"reference": name, "system": cfg.name}
            with failures.catching(cell.folder, name), cell.running(about, system.on_wait):
                for video in of_reference:
                    frames = read_frames(video.path, frames=frame_count(video.path))
                    reference = system.reference(name, frames)
                    rows += system.score(cell, video, frames, reference)
                    bar.update()
                rows += system.sanity_baselines(reference, of_reference)
                folders.append(cell.folder)
    write_index(system.folder)
    compact(system.folder)
    if folders:
        print_summary(console, rows, folders, [], cfg.scoring.pairs, cfg.metrics)
    failures.check()
    return rows
