"""Running a job. Stored results are kept, missing ones are made: adapters, samples and rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from motionexp.config.job_settings import base_settings, loggers
from motionexp.config.ranks import rank_of
from motionexp.config.run_settings import RunSettings
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.select import make_reader
from motionexp.files import user_path
from motionexp.jobs.cell import Cell
from motionexp.jobs.failures import Failure, Failures, in_one_line, stops_all
from motionexp.jobs.finished import FinishedCell, read_record, write_grids, write_record
from motionexp.jobs.logged import Logged
from motionexp.jobs.loggers import JobLogs, check_login
from motionexp.jobs.machine import (
    batch_in_words,
    clear_disk_errors,
    clear_memory_errors,
    smaller,
    smaller_batch,
)
from motionexp.jobs.ranks import LOST, joined, on_ranks, silence
from motionexp.jobs.references import clip_in_words, read_references
from motionexp.jobs.summary import print_summary
from motionexp.jobs.sweep_folder import sweep_of_process
from motionexp.jobs.waiting import announced, loading_libraries
from motionexp.results.compaction import compact
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
        CellsFailed: one of several cells failed; the others ended well.
        KeyboardInterrupt: the user's; the same command continues.
    """
    console = Console()
    check_login(loggers(cfg.logger))
    failures = Failures(0)
    with clear_disk_errors(cfg.output), clear_memory_errors(smaller(cfg)):
        references = read_references(cfg, make_reader(cfg.data))
        cells, rank = read_record(cfg, references), rank_of(cfg.trainer)
        if rank is not None:  # srun or torchrun has started all of them
            cells, grids, failures = make(cfg)
            if rank.number > 0:
                silence()
                return []
        elif cells is not None:
            if sweep := sweep_of_process():
                sweep.report_finished(cfg, cells)
            if cfg.video is not None:
                console.print(clip_in_words(cfg, cells[0].reference), markup=False, soft_wrap=True)
            grids = write_grids(console, cells)
            logs = JobLogs(loggers(cfg.logger), cfg.log_adapter, user_path(cfg.output))
            _log(logs, RunSettings.of(cfg), RunSettings.of(base_settings(cfg)), cells)
        elif cfg.trainer.ranks > 1:
            cells, grids, failures = _on_ranks(cfg)
        else:
            cells, grids, failures = _make(cfg, console, references, {})
    rows = [row for finished in cells for row in (*finished.rows, *(finished.baselines or (None, ()))[1])]
    folders = [finished.cell.folder for finished in cells]
    of_base = [row for finished in cells if finished.base for row in finished.base.rows]
    if cells:
        print_summary(console, rows, folders, grids, cfg.scoring.pairs, cfg.metrics, of_base)
    failures.check()
    return rows


Made = tuple[list[FinishedCell], list[Path], Failures]
"""Cells, videos side by side, and what failed."""


def _on_ranks(cfg: JobConfig) -> Made:
    """Make what is missing in new processes. A failed cell ends them; new ones take the other cells."""
    failed: dict[Path, Failure] = {}
    while True:
        results, error = on_ranks(cfg, make, failed)
        if error is not None and (
            results is None or stops_all(error) or not results[2].by_cell.keys() - failed
        ):
            raise error
        assert results is not None
        failures = results[2]
        failures.last = failures.last or error
        for cell in failures.by_cell.keys() - failed.keys():
            failed[cell] = failures.by_cell[cell]
            if error is not None and LOST in failed[cell].error:  # which is all that rank 0 has seen
                failed[cell] = replace(failed[cell], error=in_one_line(error))
                Cell(cell).add_to_status(error=failed[cell].error)
        failures.by_cell = failed
        if error is None:
            return results


def make(cfg: JobConfig, failed: Mapping[Path, Failure] | None = None) -> Made:
    """Make what is missing of a job on all its ranks, each of which calls this; nothing on others than 0.

    Args:
        cfg: checked settings.
        failed: cells to leave out, because they have failed.

    Raises:
        As `run`.
    """
    console = Console()
    with clear_disk_errors(cfg.output), clear_memory_errors(smaller(cfg)):
        references = read_references(cfg, make_reader(cfg.data))
        with loading_libraries():
            from motionexp.jobs import rank_work
            from motionexp.jobs.job import Job
        with joined(cfg):
            if rank_work.is_first():
                results = _make(cfg, console, references, failed or {})
                if results[2].by_cell.keys() <= (failed or {}).keys():  # else the others have ended
                    rank_work.dismiss()
                return results
            rank_work.serve(Job(cfg, console, references))
    return [], [], Failures(0)


def _make(
    cfg: JobConfig, console: Console, references: list[Reference], failed: Mapping[Path, Failure]
) -> Made:
    """Make what is missing, and store where it is."""
    cells, grids, failures = _run(cfg, console, references, failed)
    failed_references = {failure.reference for failure in failures.by_cell.values()}
    finished_cells = [cell for cell in cells if cell.reference.name not in failed_references]
    write_record(cfg, references, finished_cells)
    for folder in dict.fromkeys(finished.cell.folder.parent for finished in cells):
        write_index(folder)
        compact(folder)
    return cells, grids, failures


def _run(
    cfg: JobConfig, console: Console, references: list[Reference], failed: Mapping[Path, Failure]
) -> Made:
    """Make what is missing; returns the finished cells, the videos side by side, and what failed."""
    with loading_libraries():
        from motionexp.jobs.job import Job
    with announced(f"loading {cfg.model.name} ..."):
        job = Job(cfg, console, references)
    if cfg.video is not None:
        console.print(clip_in_words(cfg, job.references[0]), markup=False, soft_wrap=True)
    if job.plan.adapter_note:
        console.print(job.plan.adapter_note, markup=False, highlight=False, soft_wrap=True)
    with announced("checking the models behind the scores ..."):
        job.check_scoring()
    with announced("encoding captions and videos ..."):
        job.encode()
    for note in job.plan.window_notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if sweep := sweep_of_process():
        of_base = job.plan.base.cells if job.plan.base else []
        sweep.report(
            cfg,
            *(
                [(plan.reference.name, plan.training_seed, plan.cell.folder) for plan in plans]
                for plans in (job.plan.cells, of_base)
            ),
        )
    work = _Work(cfg, job, Failures(len(job.plan.cells), failed))
    work.run(job.plan.cells)
    return work.cells, work.grids, work.failures


class _Work:
    """The cells of a job, one after the other. A cell that fails does not stop the others.

    Attributes:
        cells: that are finished.
        grids: the videos side by side.
        failures: of the cells that failed.
    """

    def __init__(self, cfg: JobConfig, job: "Job", failures: Failures) -> None:
        self.job, self.failures = job, failures
        self._retry_settings = cfg if cfg.retry else None
        self.cells: list[FinishedCell] = []
        self.grids: list[Path] = []
        self._base = job.of_base_model()
        self._retried: list[CellPlan] = []
        self._works: dict[bool, _Work] = {}  # with half the batch, by whether the training is halved

    def run(self, plans: Sequence["CellPlan"]) -> None:
        """Make what is missing of these cells, with `retry=` those that memory was too small for as well."""
        for counted, plan in numbered(plans):
            if plan.cell.folder in self.failures.by_cell:
                continue  # it has failed before, or was trained with one that failed
            if not plan.is_finished and self.is_done(plan):
                self._retried.append(plan)
                continue
            note = ", nothing left to train or sample" if plan.is_finished else ""
            line = f"{self.job.plan.title(plan)} ({counted}{note})"
            self.job.console.print(line, markup=False, highlight=False, soft_wrap=True)
            failed_before = len(self.failures.by_cell)
            catching = self.failures.catching(plan.cell.folder, plan.reference.name)
            with catching, self.job.logs.ended_by_errors():
                self._run_cell(plan)
            if plan.cell.folder in self.failures.by_cell:
                self._after_failure(plan)
            if self.job.plan.ranks[0] > 1 and len(self.failures.by_cell) > failed_before:
                return  # the other ranks have ended with the cell
        self._retry()

    def _run_cell(self, plan: "CellPlan") -> None:
        finished = _cell(self.job, plan, baselines=True)
        if self._base is not None:
            of_base = {base.reference.name: base for base in self._base.plan.cells}[plan.reference.name]
            if of_base.cell.folder not in self.failures.by_cell:
                with self.failures.catching(of_base.cell.folder, plan.reference.name):
                    finished = replace(finished, base=_cell(self._base, of_base))
        self.cells.append(finished)
        self.grids += self.job.write_grid(plan)
        base = self._base or self.job
        _log(self.job.logs, self.job.plan.logged, base.plan.logged, [finished])

    def _after_failure(self, plan: "CellPlan") -> None:
        """The cells that are trained in one batch with a cell fail with it; some are tried again later."""
        failure = self.failures.by_cell[plan.cell.folder]
        group = [plan]
        if plan.steps_left:
            group += [member for member in self.job.plan.group_of(plan) if member.steps_left]
        for member in {member.cell.folder: member for member in group}.values():
            if failure.of_memory and self._retry_settings:
                self._retried.append(member)
            self.failures.by_cell[member.cell.folder] = replace(
                failure, cell=str(member.cell.folder), reference=member.reference.name
            )
        self.job.after_failure()

    def _retry(self) -> None:
        """Run the cells that memory did not suffice for in smaller batches, whose ids are others."""
        for trains in (True, False):
            plans = [plan for plan in self._retried if bool(plan.steps_left) == trains]
            work = self._smaller(trains) if plans else None
            if work is None:
                continue
            smaller_plans = [work.counterpart(plan) for plan in plans]
            for plan, smaller_plan in zip(plans, smaller_plans, strict=True):
                self.failures.by_cell.pop(plan.cell.folder, None)
                if plan.cell != smaller_plan.cell:
                    plan.cell.add_to_status(replaced_by=smaller_plan.cell.folder.name)
            if work._retry_settings:
                batch = batch_in_words(work._retry_settings)
                self.job.console.print(f"again in a smaller batch: {batch}", highlight=False)
            work.run(smaller_plans)
            self.cells += work.cells
            self.grids += work.grids

    def _smaller(self, trains: bool) -> "_Work | None":
        """The same cells with half the batch, of the training or of the sampling; None: it is 1 already."""
        settings, at_once = self._retry_settings, self.job.plan.at_once
        cfg = smaller_batch(settings, trains=trains, at_once=at_once) if settings else None
        if cfg is None:
            return None
        if trains not in self._works:
            self._works[trains] = _Work(cfg, self.job.with_settings(cfg), self.failures)
        return self._works[trains]

    def counterpart(self, plan: "CellPlan") -> "CellPlan":
        """The cell of the same reference and training seed."""
        about = plan.reference.name, plan.training_seed
        return next(
            cell for cell in self.job.plan.cells if (cell.reference.name, cell.training_seed) == about
        )

    def is_done(self, plan: "CellPlan") -> bool:
        """Whether the adapter and the samples of a cell are stored, be it in a smaller batch."""
        if plan.is_finished or not self._retry_settings:
            return plan.is_finished
        work = self._smaller(bool(plan.steps_left))
        return work is not None and work.is_done(work.counterpart(plan))


def _log(logs: JobLogs, settings: RunSettings, of_base: RunSettings, cells: Sequence[FinishedCell]) -> None:
    """Write what the loggers lack of finished cells, and of the base model's."""
    for finished in cells:
        for logged in Logged.of(settings, of_base, finished):
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


def duration(seconds: float) -> str:
    """Seconds in words, with a unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
