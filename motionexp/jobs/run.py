"""Running a job: what is there is kept, what is missing is made, from the training down to the rows."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from rich.console import Console

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs import inputs
from motionexp.jobs.job import Job
from motionexp.jobs.summary import print_summary
from motionexp.results.rows import Row

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def run(cfg: JobConfig) -> list[Row]:
    """Run a job: for each of its references fit, sample and score what is not there yet; print the scores.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all that was asked for, those of earlier runs included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; what is done is kept.
        KeyboardInterrupt: as it came; the same command goes on.
    """
    console = Console()
    rows: list[Row] = []
    grids: list[Path] = []
    with clear_disk_errors(cfg):
        job = Job(cfg, console)
        if cfg.video is not None:
            console.print(inputs.taken_of(cfg, job.references[0]), markup=False, soft_wrap=True)
        job.check_scoring()
        job.encode()
        start = perf_counter()
        for done, reference in enumerate(job.references):
            left = (perf_counter() - start) / done * (len(job.references) - done) if done else None
            hint = "" if left is None else f", about {duration(left)} left"
            kept = "" if job.unfinished(reference) else ", nothing left to train or sample"
            counted = f"{done + 1} of {len(job.references)}{hint}{kept}"
            console.print(f"{reference.name} ({counted})", markup=False, highlight=False, soft_wrap=True)
            rows += job.run_cell(reference)
            rows += job.anchors(reference)
            grids += job.write_grid(reference)
    folders = [job.cell(each).folder for each in job.references]
    print_summary(console, rows, folders, grids, cfg.scoring.pairs, cfg.metrics)
    return rows


@contextmanager
def clear_disk_errors(cfg: JobConfig) -> Iterator[None]:
    """Turn a full or unwritable disk into one clear line; nothing is lost, for files are written whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(
            f"{error.filename or cfg.output}: cannot be written ({os.strerror(error.errno)}); free space or"
            " choose another output=. What is finished is kept, and the same command goes on from it"
        ) from error


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
