"""Running a job. Stored results are kept, missing ones are made: adapters, samples and rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from rich.console import Console

from motionexp.config.schema import JobConfig
from motionexp.jobs.job import Job
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors, smaller
from motionexp.jobs.references import clip_in_words
from motionexp.jobs.summary import print_summary
from motionexp.results.rows import Row


def run(cfg: JobConfig) -> list[Row]:
    """Run a job: train, sample and score what is missing of each reference, and print the mean scores.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all samples and sanity baselines, stored ones included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; finished results stay stored.
        MemoryError: main memory or the GPU's is too small.
        KeyboardInterrupt: the user's; the same command continues.
    """
    console = Console()
    rows: list[Row] = []
    grids: list[Path] = []
    with clear_disk_errors(cfg.output), clear_memory_errors(smaller(cfg)):
        job = Job(cfg, console)
        if cfg.video is not None:
            console.print(clip_in_words(cfg, job.references[0]), markup=False, soft_wrap=True)
        job.check_scoring()
        job.encode()
        for counted, plan in numbered(job.plan.cells):
            note = ", nothing left to train or sample" if plan.is_finished else ""
            line = f"{plan.reference.name} ({counted}{note})"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            rows += job.run_cell(plan)
            rows += job.sanity_baselines(plan)
            grids += job.write_grid(plan)
    folders = [plan.cell.folder for plan in job.plan.cells]
    print_summary(console, rows, folders, grids, cfg.scoring.pairs, cfg.metrics)
    return rows


Item = TypeVar("Item")


def numbered(items: Sequence[Item]) -> Iterator[tuple[str, Item]]:
    """Each item with its number and the time left, in words, estimated from the items before it."""
    start = perf_counter()
    for done, item in enumerate(items):
        seconds = (perf_counter() - start) / done * (len(items) - done) if done else None
        hint = "" if seconds is None else f", about {duration(seconds)} left"
        yield f"{done + 1} of {len(items)}{hint}", item


def duration(seconds: float) -> str:
    """Seconds in words, with a unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
