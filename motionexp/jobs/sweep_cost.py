"""A dry run of a sweep: one plan of all its jobs, and not one for each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from motionexp.config.schema import JobConfig
from motionexp.jobs.dry_run import (
    cell_disk,
    disk_problems,
    download_notes,
    job_cost,
    job_phases,
    memory_problems,
    node_bytes,
    size_in_words,
    trainable_parameters,
)
from motionexp.jobs.evaluation import free_memory
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.machine import clear_memory_errors, smaller
from motionexp.jobs.measurement import StepSeconds, measure
from motionexp.jobs.memory_plan import rows_of
from motionexp.jobs.plan import CellPlan, JobPlan
from motionexp.jobs.provenance import device_name
from motionexp.jobs.stated_costs import GPU, PEAKS, SHARE, peak_of, step_flops
from motionexp.jobs.window_notes import recipe_notes, window_line
from motionexp.results.formats import Grid, amount, duration

HEADINGS = ("model", "cells", "done", "training steps", "samples", "time", "disk")


_Cell = tuple[str, Path]


@dataclass
class _Part:
    """What the jobs of one model, or of one base model, have to do; cells that jobs share count once.

    Attributes:
        cells: {(reference, folder): whether it is finished}. Without weights, folders of two references may
            have one name.
        training: {cell: training steps left}; 0 where the training of another cell saves the adapter.
        samples: of all cells that are missing, by their ids.
        seconds, disk: of what is missing.
    """

    cells: dict[_Cell, bool] = field(default_factory=dict)
    training: dict[_Cell, int] = field(default_factory=dict)
    samples: set[tuple[_Cell, str]] = field(default_factory=set)
    seconds: float = 0.0
    disk: int = 0

    def add(self, job: JobPlan, plan: CellPlan, trained: int, seconds: StepSeconds) -> None:
        """Add what one job has to do for a cell, without what an earlier job does."""
        cell = plan.reference.name, plan.cell.folder
        self.cells[cell] = self.cells.get(cell, True) and plan.is_finished
        steps = 0 if cell in self.training else plan.steps_left
        if steps:
            # The adapters of keep_steps are saved on the way: a later job finds them.
            saved = {(plan.reference.name, of_steps.folder): 0 for of_steps in plan.adapters.values()}
            self.training = {**saved, **self.training, cell: steps}
        missing = {(cell, request.sample_id) for request in plan.missing} - self.samples
        self.samples |= missing
        batches = sum(
            any((cell, request.sample_id) in missing for request in batch) for batch in plan.batches
        )
        parts = (
            (steps, seconds.training),
            (1 if steps else 0, seconds.encoding),
            (batches * job.batch_steps, seconds.sampling),
            (len(missing), seconds.decoding),
        )
        self.seconds += sum(count * of_one for count, of_one in parts if count)
        self.disk += cell_disk(job, trained if steps else 0, len(missing))

    def texts(self, name: str) -> tuple[str, ...]:
        """The line of the table."""
        done, steps = sum(self.cells.values()), sum(self.training.values())
        counts = (str(len(self.cells)), str(done), f"{steps:,}", f"{len(self.samples):,}")
        return (name, *counts, duration(self.seconds), size_in_words(self.disk))


def plan_sweep(cfgs: Sequence[JobConfig]) -> list[str]:
    """Print what the jobs of a sweep would do: cells, what is done, hours, disk and download.

    The time of a step is measured on this machine where the model is here and fits; elsewhere it is computed
    from the arithmetic of a step, and marked so. It asks no hub, and writes nothing.

    Returns:
        What this machine lacks for the models that are here, a line each.
    """
    console, sweep = Console(), _Sweep()
    # Those that train nothing take their times from those that do.
    for cfg in sorted(cfgs, key=lambda cfg: cfg.tau == 1000 or cfg.adapter is not None):
        sweep.add(cfg)
    console.print(Grid(HEADINGS, sweep.lines(), "lr").terminal())
    for note in sweep.notes():
        # A command that is to be copied stays in one piece.
        console.print(note, soft_wrap=note.startswith("  "), highlight=False, markup=False)
    return sweep.problems()


class _Sweep:
    """The parts of a sweep, and the cost of a step of each kind of job."""

    def __init__(self) -> None:
        self.parts: dict[str, _Part] = {}
        self._steps: dict[tuple[str, str], tuple[StepSeconds, str]] = {}
        self._trained: dict[str, int] = {}
        self._lacks: dict[str, bool] = {}  # {what this machine lacks: whether the model is here}
        self._notes: dict[str, None] = {}
        self._time: dict[str, float] = {}
        self._last: dict[str, tuple[JobConfig, JobPlan]] = {}

    def add(self, cfg: JobConfig) -> None:
        """Plan one job."""
        job = plan_job(cfg)
        seconds, unit = self._seconds(cfg, job)
        before = self._sum()
        if job.probe is None:
            self._add_cells(job, self._parameters(job), seconds)
        else:
            self._add_probe(job, seconds)
        self._time[unit] = self._time.get(unit, 0.0) + self._sum() - before
        self._last[cfg.output] = cfg, job
        for note in (job.adapter_note, *self._windows(job), *recipe_notes(job)):
            if note:
                self._notes[note] = None
        if not job.has_weights:
            lines = [line for note in download_notes(job) for line in note.splitlines()]
            self._notes |= dict.fromkeys(lines)

    def _windows(self, job: JobPlan) -> list[str]:
        """What the job's window means in sampling steps; nothing of the base model, and of probes."""
        if job.probe is not None or job.method == "base":
            return []
        return [window_line(job), *job.window_notes]

    def _parameters(self, job: JobPlan) -> int:
        key = repr((job.backbone_settings, dict(job.tuning), job.trains))
        if key not in self._trained:
            self._trained[key] = trainable_parameters(job)
        return self._trained[key]

    def _add_cells(self, job: JobPlan, trained: int, seconds: StepSeconds) -> None:
        base = f"{job.model.name}, base model"
        of_base = job.base.cells if job.base is not None else []
        for name, of_cells, plans in (
            (base if job.method == "base" else job.model.name, job, job.cells),
            (base, job.base or job, of_base),
        ):
            for plan in plans:
                self.parts.setdefault(name, _Part()).add(of_cells, plan, trained, seconds)

    def _add_probe(self, job: JobPlan, seconds: StepSeconds) -> None:
        assert job.probe is not None
        part = self.parts.setdefault(f"{job.model.name}, probe={job.probe.kind}", _Part())
        for line in job_cost(job, seconds, 0).lines:
            part.cells[line.columns[0], line.folder] = line.seconds == 0
            part.seconds, part.disk = part.seconds + line.seconds, part.disk + line.disk

    def _sum(self) -> float:
        return sum(part.seconds for part in self.parts.values())

    def _seconds(self, cfg: JobConfig, job: JobPlan) -> tuple[StepSeconds, str]:
        """The seconds of a job's steps, and the unit of its hours; looked for once for jobs of one kind."""
        tuning = {name: value for name, value in job.tuning.items() if name not in ("rank", "alpha")}
        probe = job.probe and job.probe.kind
        sampling = repr((job.backbone_settings, job.size, rows_of(job), probe))
        training = repr((tuning, job.training.batch_size, job.trained_together)) if job.trains else ""
        same = [key for key in self._steps if key[0] == sampling and (key[1] == training or not training)]
        if same:
            return self._steps[same[0]]
        peak = max(node_bytes(job, phase) for phase in job_phases(job, self._parameters(job)))
        problems = [f"{job.model.name}: {problem}" for problem in memory_problems(cfg, job, peak)]
        self._lacks |= dict.fromkeys(problems, job.has_weights)
        steps = self._steps[sampling, training] = self._steps_of(cfg, job, peak)
        return steps

    def _steps_of(self, cfg: JobConfig, job: JobPlan, peak: int) -> tuple[StepSeconds, str]:
        name = device_name(job.device)
        # One process is measured: a network that takes several devices is not.
        if job.has_weights and peak <= free_memory(job.device) and not job.backbone_settings.sharded:
            with clear_memory_errors(smaller(cfg)):
                seconds = measure(job, rows_of(job))
            self._note(job, f"measured on {name}", seconds)
            threads = f"CPU ({amount(torch.get_num_threads(), 'thread')})"
            return seconds, f"of this {threads if job.device.type == 'cpu' else 'GPU'}, measured"
        gpu = name if name in PEAKS else GPU
        seconds = step_flops(job).seconds(job, gpu)
        of_peak = f"the {job.precision} peak of one {gpu} ({peak_of(gpu, job.precision) / 1e12:.0f} TFLOP/s)"
        source = (
            f"computed, not measured: torch's count of FLOP, at {SHARE:.0%} of {of_peak}; VAE and loading not"
            " counted"
        )
        self._note(job, source, seconds)
        return seconds, f"of one {gpu}, computed"

    def _note(self, job: JobPlan, source: str, seconds: StepSeconds) -> None:
        trains = job.trains and job.probe is None
        training = f"{seconds.training:.3g} s a training step, " if trains else ""
        self._notes[f"{job.model.name}: {training}{seconds.sampling:.3g} s a sampling step, {source}"] = None

    def lines(self) -> list[tuple[str, ...]]:
        """The lines of the table; the last is the sum where there are several."""
        lines = [part.texts(name) for name, part in self.parts.items()]
        if len(lines) > 1:
            lines.append(_merged(self.parts.values()).texts("in all"))
        return lines

    def notes(self) -> list[str]:
        """Where the times come from, what has to be downloaded, and the sum."""
        times = [f"about {duration(seconds)} {unit}" for unit, seconds in self._time.items() if seconds]
        disk = size_in_words(sum(part.disk for part in self.parts.values()))
        total = "; ".join([*(times or ["nothing is left to do"]), f"results of {disk}", "scores not counted"])
        # Jobs of a model that is not here may be meant for another machine: what this one lacks is no error.
        return [*self._notes, *(f"this machine: {problem}" for problem in self._problems(False)), total]

    def problems(self) -> list[str]:
        """What this machine lacks for the models that are here, and for the results of all."""
        return self._problems(True)

    def _problems(self, is_here: bool) -> list[str]:
        disk = sum(part.disk for part in self.parts.values())
        jobs = [(cfg, job) for cfg, job in self._last.values() if job.has_weights == is_here]
        of_disks = dict.fromkeys(line for cfg, job in jobs for line in disk_problems(cfg, job, disk))
        return [*(problem for problem, here in self._lacks.items() if here == is_here), *of_disks]


def _merged(parts: Iterable[_Part]) -> _Part:
    whole = _Part()
    for part in parts:
        whole.cells |= part.cells
        whole.training |= part.training
        whole.samples |= part.samples
        whole.seconds += part.seconds
        whole.disk += part.disk
    return whole
