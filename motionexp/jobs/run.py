"""Running a job. Stored results are kept, missing ones are made: adapters, samples and rows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from motionexp.config.schema import JobConfig, loggers
from motionexp.data.base import Reference
from motionexp.data.select import make_reader
from motionexp.files import user_path
from motionexp.jobs.finished import FinishedCell, read_record, write_grids, write_record
from motionexp.jobs.logged import Logged
from motionexp.jobs.loggers import JobLogs, check_login
from motionexp.jobs.machine import clear_disk_errors, clear_memory_errors, smaller
from motionexp.jobs.references import clip_in_words, read_references
from motionexp.jobs.summary import print_summary
from motionexp.jobs.waiting import announced, loading_libraries
from motionexp.results.formats import duration
from motionexp.results.rows import Row
from motionexp.results.runs import write_index

if TYPE_CHECKING:
    from motionexp.jobs.job import Job
    from motionexp.jobs.plan import CellPlan


def run(cfg: JobConfig) -> list[Row]:
    """Run a job: train, sample and score what is missing of each reference, and print the mean scores.

    The base model is sampled and scored too, once for all jobs with the same references and sampling.

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
    check_login(loggers(cfg))
    with clear_disk_errors(cfg.output), clear_memory_errors(smaller(cfg)):
        references = read_references(cfg, make_reader(cfg.data))
        cells = read_record(cfg, references)
        if cells is not None:
            if cfg.video is not None:
                console.print(clip_in_words(cfg, cells[0].reference), markup=False, soft_wrap=True)
            grids = write_grids(console, cells)
            _log(JobLogs(loggers(cfg), cfg.log_adapter, user_path(cfg.output)), cfg, cells)
        else:
            cells, grids = _run(cfg, console, references)
            write_record(cfg, cells)
            for folder in dict.fromkeys(finished.cell.folder.parent for finished in cells):
                write_index(folder)
    rows = [row for finished in cells for row in (*finished.rows, *(finished.baselines or (None, ()))[1])]
    folders = [finished.cell.folder for finished in cells]
    of_base = [row for finished in cells if finished.base for row in finished.base.rows]
    print_summary(console, rows, folders, grids, cfg.scoring.pairs, cfg.metrics, of_base)
    return rows


def _run(
    cfg: JobConfig, console: Console, references: list[Reference]
) -> tuple[list[FinishedCell], list[Path]]:
    """Make what is missing; returns the cells and the videos side by side."""
    with loading_libraries():
        from motionexp.jobs.job import Job
    with announced(f"loading {cfg.model.name} ..."):
        job = Job(cfg, console, references)
    if cfg.video is not None:
        console.print(clip_in_words(cfg, job.references[0]), markup=False, soft_wrap=True)
    with announced("checking the models behind the scores ..."):
        job.check_scoring()
    with announced("encoding captions and videos ..."):
        job.encode()
    base = job.of_base_model()
    of_base_model = {plan.reference.name: plan for plan in base.plan.cells} if base else {}
    cells: list[FinishedCell] = []
    grids: list[Path] = []
    for counted, plan in numbered(job.plan.cells):
        note = ", nothing left to train or sample" if plan.is_finished else ""
        line = f"{job.plan.title(plan)} ({counted}{note})"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        finished = _cell(job, plan, baselines=True)
        of_base = _cell(base, of_base_model[plan.reference.name]) if base else None
        cells.append(replace(finished, base=of_base))
        grids += job.write_grid(plan)
        _log(job.logs, cfg, cells[-1:])
    return cells, grids


def _log(logs: JobLogs, cfg: JobConfig, cells: Sequence[FinishedCell]) -> None:
    """Write what the loggers lack of finished cells, and of the base model's."""
    for finished in cells:
        for logged in Logged.of(cfg, finished):
            logs.finish(logged)


def _cell(job: "Job", plan: "CellPlan", *, baselines: bool = False) -> FinishedCell:
    rows, of_baselines = job.run_cell(plan), job.sanity_baselines(plan) if baselines else []
    return FinishedCell(
        plan.reference,
        plan.cell,
        plan.requests,
        tuple(plan.adapters.values()),
        rows,
        (job.baseline_cell(plan), of_baselines) if of_baselines else None,
        (job.grid_path(plan), plan.columns),
    )


Item = TypeVar("Item")


def numbered(items: Sequence[Item]) -> Iterator[tuple[str, Item]]:
    """Each item with its number and the time left, in words, estimated from the items before it."""
    start = perf_counter()
    for done, item in enumerate(items):
        seconds = (perf_counter() - start) / done * (len(items) - done) if done else None
        hint = "" if seconds is None else f", about {duration(seconds)} left"
        yield f"{done + 1} of {len(items)}{hint}", item
