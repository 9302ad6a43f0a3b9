"""Running a job. Stored results are kept, missing ones are made: adapters, samples and rows."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from rich.console import Console

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs.job import Job
from motionexp.jobs.references import clip_in_words
from motionexp.jobs.summary import print_summary
from motionexp.results.rows import Row
from motionexp.results.runs import write_index

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def run(cfg: JobConfig) -> list[Row]:
    """Run a job: train, sample and score what is missing of each reference, and print the mean scores.

    The base model is sampled and scored too, once for all jobs with the same references and sampling.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all samples and sanity baselines, stored ones included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; finished results stay stored.
        KeyboardInterrupt: the user's; the same command continues.
    """
    console = Console()
    rows: list[Row] = []
    of_base: list[Row] = []
    grids: list[Path] = []
    with clear_disk_errors(cfg.output):
        job = Job(cfg, console)
        if cfg.video is not None:
            console.print(clip_in_words(cfg, job.references[0]), markup=False, soft_wrap=True)
        job.check_scoring()
        job.encode()
        base = job.of_base_model()
        base_plans = {plan.reference.name: plan for plan in base.plan.cells} if base else {}
        for counted, plan in numbered(job.plan.cells):
            note = ", nothing left to train or sample" if plan.is_finished else ""
            line = f"{plan.reference.name} ({counted}{note})"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            if base:
                of_base += base.run_cell(base_plans[plan.reference.name])
            rows += job.run_cell(plan)
            rows += job.sanity_baselines(plan)
            grids += job.write_grid(plan)
        for folder in dict.fromkeys(plan.cell.folder.parent for plan in job.plan.cells):
            write_index(folder)
    folders = [plan.cell.folder for plan in job.plan.cells]
    print_summary(console, rows, folders, grids, cfg.scoring.pairs, cfg.metrics, of_base)
    return rows


Item = TypeVar("Item")


def numbered(items: Sequence[Item]) -> Iterator[tuple[str, Item]]:
    """Each item with its number and the time left, in words, estimated from the items before it."""
    start = perf_counter()
    for done, item in enumerate(items):
        seconds = (perf_counter() - start) / done * (len(items) - done) if done else None
        hint = "" if seconds is None else f", about {duration(seconds)} left"
        yield f"{done + 1} of {len(items)}{hint}", item


@contextmanager
def clear_disk_errors(output: str) -> Iterator[None]:
    """Turn a full or unwritable disk into one clear error. Nothing is lost: files are written whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(
            f"{error.filename or output}: cannot be written ({os.strerror(error.errno)}); free space or"
            " choose another output=. Finished results are kept, and the same command continues from them"
        ) from error


def duration(seconds: float) -> str:
    """Seconds in words, with a unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
