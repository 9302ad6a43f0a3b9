"""A dry run: the cells, trainable parameters, steps, time, disk and paths of a job that is not run."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from hydra.utils import get_object
from rich.console import Console

from motionexp.config.schema import JobConfig, method_name
from motionexp.files import existing_part
from motionexp.jobs.evaluation import forward_seconds, free_memory
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.machine import clear_memory_errors, smaller
from motionexp.jobs.memory_plan import Phase, memory_plan
from motionexp.jobs.plan import JobPlan
from motionexp.jobs.probe_units import Work
from motionexp.jobs.run import duration
from motionexp.results.formats import Grid

# A training step has one forward pass, and a backward pass from the first adapter on, about twice as long.
FORWARDS_PER_TRAINING_STEP = 3.0
BYTES_PER_TRAINED_NUMBER = 4
MEDIA_OVER_RAW = 1.5  # the exact frames, compressed, with an mp4 and a contact sheet


class CellCost(NamedTuple):
    """A line of the dry run: what is left to do for one cell, in seconds and bytes."""

    columns: tuple[str, ...]
    folder: Path
    seconds: float
    disk: int


class JobCost(NamedTuple):
    """The table of a dry run, and notes under it; the columns of a line stand under the headings."""

    title: str
    headings: tuple[str, ...]
    lines: list[CellCost]
    notes: tuple[str, ...]


def plan(cfg: JobConfig) -> list[str]:
    """Print what `run`, or `probe`, would do. Writes nothing.

    The memory is printed before any weight is loaded. The time is the number of forward passes times the time
    of one, which is measured now. If the job does not fit into the free memory, no weights are loaded and the
    time is unknown.

    Raises:
        InputError: as `run` before its first cell.
        MemoryError: one forward pass took more memory than planned.

    Returns:
        What this machine lacks for the job, a line each.
    """
    console, job = Console(), plan_job(cfg)
    most, free = max(phase.total for phase in print_memory(console, job)), free_memory(job.device)
    if most > free:
        console.print(
            f"this machine has {size_in_words(int(free))} free: nothing is loaded, and the time is unknown",
            soft_wrap=True,
            highlight=False,
        )
    forward = math.nan
    if most <= free:
        with clear_memory_errors(smaller(cfg)):
            conditioning = job.backbone.embed([""])
            job.backbone.release_text_encoder()
            forward = forward_seconds(job.backbone, conditioning)
    total = _tuning_cost(job, forward) if job.probe is None else _probe_cost(job, forward)
    console.print(f"{job.model.name}, {total.title}, {job.precision} on {job.device}", markup=False)
    times = ["?" if math.isnan(line.seconds) else duration(line.seconds) for line in total.lines]
    texts = [
        (*line.columns, time, size_in_words(line.disk)) for line, time in zip(total.lines, times, strict=True)
    ]
    console.print(Grid((*total.headings, "time", "disk"), texts, "l").terminal())
    seconds, disk = sum(line.seconds for line in total.lines), sum(line.disk for line in total.lines)
    time = "unknown time" if math.isnan(seconds) else f"about {duration(seconds)}"
    for note in (*total.notes, f"{time} and {size_in_words(disk)}, scores not counted"):
        console.print(note, soft_wrap=True, highlight=False)
    for line in total.lines:
        console.print(f"output: {line.folder}", soft_wrap=True, highlight=False, markup=False)
    problems = [f"the job does not fit into the free memory: {smaller(cfg)}"] if most > free else []
    if disk > (free_disk := shutil.disk_usage(existing_part(job.output)).free):
        problems.append(
            f"output={cfg.output}: {size_in_words(free_disk)} of the disk are free, and the job writes about"
            f" {size_in_words(disk)}; free space or choose another output="
        )
    return problems


def _tuning_cost(job: JobPlan, forward: float) -> JobCost:
    trained, sampler, lines = trainable_parameters(job), job.sampling.sampler, []
    cells = [(plan, plan.reference.name) for plan in job.cells]
    cells += [(plan, f"{plan.reference.name}, base model") for plan in job.base.cells] if job.base else []
    for plan, name in cells:
        steps, missing = plan.steps_left, len(plan.missing)
        state = plan.cell.status()["state"]
        columns = (name, plan.cell.folder.name, state, str(steps), str(missing))
        # With guidance each sampling step has a conditional and an unconditional branch.
        branches = 2 if sampler.guided else 1
        forwards = FORWARDS_PER_TRAINING_STEP * steps * job.training.batch_size
        forwards += missing * sampler.steps * branches
        disk = _disk(job, trained if steps else 0, missing)
        lines.append(CellCost(columns, plan.cell.folder, forward * forwards, disk))
    on = job.sampling_window.count(job.backbone.schedule.timesteps(sampler.steps))
    adapter = f"{trained:,} trainable parameters ({method_name(job.tuning)})"
    notes = (
        adapter if job.trains else "nothing is trained",
        f"the adapter is on in {on} of {sampler.steps} sampling steps",
    )
    headings = ("reference", "cell", "state", "training steps", "samples")
    return JobCost(f"τ = {job.window.low:g}", headings, lines, notes)


def _probe_cost(job: JobPlan, forward: float) -> JobCost:
    from motionexp.jobs.probe_job import probe_of

    probe, lines = probe_of(job), []
    encoding = 0.0 if math.isnan(forward) or not probe.missing else _encoding_seconds(job)
    for unit in probe.units:
        work = Work() if unit.is_finished else unit.work
        columns = (unit.name, unit.cell.folder.name, "{} of {}".format(*unit.stored))
        counts = (f"{work.encoded:,}", f"{work.steps:,}", f"{work.evaluations:,}")
        seconds = encoding * work.encoded + forward * work.evaluations
        lines.append(CellCost((*columns, *counts), unit.cell.folder, seconds, _disk(job, 0, work.videos)))
    headings = ("unit of work", "cell", "stored", "encoded", "steps", "evaluations")
    return JobCost(f"probe={probe.plan.kind}", headings, lines, tuple(filter(None, [probe.cost])))


def _encoding_seconds(job: JobPlan) -> float:
    """Wall time of encoding one video: the shorter of two runs."""
    frames, times = torch.from_numpy(job.references[0].frames.copy())[None], []
    for _ in range(2):
        start = perf_counter()
        job.backbone.encode(frames).cpu()
        times.append(perf_counter() - start)
    return min(times)


def print_memory(console: Console, job: JobPlan) -> list[Phase]:
    """Print the memory of a job phase by phase, and its peak; return the phases."""
    phases = memory_plan(job)
    texts = []
    for phase in phases:
        loaded = ", ".join(f"{part} {size_in_words(size)}" for part, size in phase.weights.items())
        computing, total = size_in_words(phase.computing), size_in_words(phase.total)
        texts.append([phase.name, loaded, computing, total, phase.then])
    console.print(Grid(("memory", "loaded", "computing", "in all", "then freed"), texts, "l").terminal())
    peak = max(phases, key=lambda phase: phase.total)
    where = "main memory" if job.device.type == "cpu" else f"{job.device}"
    console.print(
        f"mode={job.mode}: at most {size_in_words(peak.total)} of {where} above what the imports take"
        f" ({peak.name}), scores not counted",
        soft_wrap=True,
        highlight=False,
    )
    return phases


def trainable_parameters(job: JobPlan) -> int:
    """The number of parameters that a cell of the job trains; 0 if it trains none."""
    if not job.trains:
        return 0
    settings: dict[str, Any] = dict(job.tuning)
    method = get_object(settings.pop("_target_"))
    count: Callable[..., int] = method.trainable_parameters
    return count(job.backbone_settings.make(torch.device("meta")), job.window, **settings)


def _disk(job: JobPlan, trained: int, samples: int) -> int:
    raw = math.prod(job.size) * 3
    return int(BYTES_PER_TRAINED_NUMBER * trained + MEDIA_OVER_RAW * raw * samples)


def size_in_words(count: int) -> str:
    """Bytes with a unit that fits; a GB is 10^9 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
