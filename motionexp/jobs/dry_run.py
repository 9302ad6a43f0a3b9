"""What a job would do, without doing it: cells, trainable parameters, steps, time, disk and paths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from hydra.utils import get_object
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from motionexp.config.schema import JobConfig, method_name
from motionexp.diffusion.backbone import Backbone
from motionexp.jobs.inputs import free_memory
from motionexp.jobs.job import Job
from motionexp.jobs.memory_plan import Phase, memory_plan
from motionexp.jobs.probe_job import cost_in_words, units_of
from motionexp.jobs.run import duration
from motionexp.probes.tree import cost, step_counts

# A training step goes forward once and back through what lies above the first adapter, about twice as dear.
FORWARDS_A_TRAINING_STEP = 3.0
BYTES_A_TRAINED_NUMBER = 4
MEDIA_OVER_RAW = 1.5  # exact frames, compressed, and beside them mp4 and contact sheet


@dataclass(frozen=True)
class Planned:
    """What is left to do for one cell: a line of the plan, and what it takes."""

    shown: tuple[str, ...]
    folder: Path
    seconds: float
    disk: int


def plan(cfg: JobConfig) -> None:
    """Print what `run`, or `probe`, would do; writes nothing.

    The memory is printed before any weight is loaded. The time is that of one forward pass, measured now,
    times their number; where the job does not fit in the memory that is free, nothing is loaded and the time
    is unknown.

    Raises:
        InputError: as `run` does before its first cell.
    """
    job = Job(cfg, Console())
    most, free = max(phase.total for phase in print_memory(job)), free_memory(job.device)
    if most > free:
        job.console.print(
            f"this machine has {size_in_words(int(free))} free: nothing is loaded, and the time is unknown",
            soft_wrap=True,
            highlight=False,
        )
    forward = forward_seconds(job.backbone) if most <= free else math.nan
    (_plan_probe if cfg.probe else _plan_tuning)(job, forward)


def _plan_tuning(job: Job, forward: float) -> None:
    cfg, trained = job.cfg, trainable_parameters(job)
    lines = []
    for reference in job.references:
        cell, missing = job.cell(reference), len(job.missing(reference))
        steps = cfg.train_steps if job.trains and not cell.has_adapter else 0
        shown = (reference.name, cell.folder.name, cell.status()["state"], str(steps), str(missing))
        seconds, disk = forward * _forwards(cfg, steps, missing), _disk(cfg, trained if steps else 0, missing)
        lines.append(Planned(shown, cell.folder, seconds, disk))
    adapter = f"{trained:,} trainable parameters ({method_name(cfg)})"
    notes = [
        adapter if job.trains else "nothing is trained",
        f"the adapter is on in {_adapter_steps(job)} of {cfg.steps} sampling steps",
    ]
    headings = ("reference", "cell", "state", "training steps", "samples")
    _print(job, f"τ = {job.tau:g}", headings, lines, notes)


def _plan_probe(job: Job, forward: float) -> None:
    cfg, lines = job.cfg, []
    inverting = cfg.probe_steps * (2 if cfg.inversion_guidance_scale > 1 else 1)
    units, counts = units_of(job), step_counts(job.backbone.schedule, cfg.probe_steps)
    for unit in units:
        each, videos = cost(unit.trajectories.values(), counts), len(unit.trajectories)
        left = 0 if unit.finished else 1
        state = f"{videos - len(unit.missing)} of {videos}"
        costs = (f"{left * each.steps:,}", f"{left * each.evaluations:,}")
        shown = (unit.reference.name, unit.edit.kind, unit.cell.folder.name, state, *costs)
        seconds = left * forward * (inverting + each.evaluations)
        lines.append(Planned(shown, unit.cell.folder, seconds, _disk(cfg, 0, left * videos)))
    notes = [
        cost_in_words(units[0].trajectories, counts),
        f"each is inverted first: {cfg.probe_steps} steps ({inverting} network evaluations)",
    ]
    headings = ("reference", "edit", "cell", "videos", "steps", "evaluations")
    _print(job, f"probe={cfg.probe}", headings, lines, notes)


def _print(job: Job, what: str, headings: Sequence[str], lines: Sequence[Planned], notes: list[str]) -> None:
    about = f"{job.cfg.model.name}, {what}, {job.precision} on {job.device}"
    job.console.print(about, markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in (*headings, "time", "disk"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        time = "?" if math.isnan(line.seconds) else duration(line.seconds)
        table.add_row(*line.shown, time, size_in_words(line.disk))
    job.console.print(table)
    seconds, disk = sum(line.seconds for line in lines), sum(line.disk for line in lines)
    time = "unknown time" if math.isnan(seconds) else f"about {duration(seconds)}"
    for note in (*notes, f"{time} and {size_in_words(disk)}, scores not counted"):
        job.console.print(note, soft_wrap=True, highlight=False)
    for line in lines:
        job.console.print(f"output: {line.folder}", soft_wrap=True, highlight=False, markup=False)


def print_memory(job: Job) -> list[Phase]:
    """Print what the job has in memory, phase by phase, and the peak; return the phases."""
    phases = memory_plan(job)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("memory", "loaded", "computing", "in all", "then freed"):
        table.add_column(heading, overflow="fold")
    for phase in phases:
        loaded = ", ".join(f"{part} {size_in_words(size)}" for part, size in phase.weights.items())
        computing, total = size_in_words(phase.computing), size_in_words(phase.total)
        table.add_row(phase.name, loaded, computing, total, phase.then)
    job.console.print(table)
    most = max(phases, key=lambda phase: phase.total)
    where = "main memory" if job.device.type == "cpu" else f"{job.device}"
    job.console.print(
        f"mode={job.cfg.mode}: at most {size_in_words(most.total)} of {where} above what the imports take"
        f" ({most.name}), scores not counted",
        soft_wrap=True,
        highlight=False,
    )
    return phases


def trainable_parameters(job: Job) -> int:
    """How many numbers a cell of the job trains; 0 where none is trained."""
    if not job.trains:
        return 0
    settings: dict[str, Any] = dict(job.cfg.method)
    method = get_object(settings.pop("_target_"))
    count: Callable[..., int] = method.trainable_parameters
    return count(job.make_backbone(torch.device("meta")), job.window, **settings)


def forward_seconds(backbone: Backbone) -> float:
    """Wall time of the network on one video: the better of two runs."""
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = torch.zeros(1, *shape, device=backbone.device)
    conditioning = backbone.embed([""])
    backbone.release_text_encoder()
    times = []
    with torch.no_grad():
        for _ in range(2):
            start = perf_counter()
            backbone.predict(noise, 500, conditioning).cpu()
            times.append(perf_counter() - start)
    return min(times)


def _forwards(cfg: JobConfig, train_steps: int, samples: int) -> float:
    branches = 2 if cfg.guidance_scale > 1 else 1
    return FORWARDS_A_TRAINING_STEP * train_steps * cfg.batch_size + samples * cfg.steps * branches


def _disk(cfg: JobConfig, trained: int, samples: int) -> int:
    raw = cfg.frames * cfg.model.height * cfg.model.width * 3
    return int(BYTES_A_TRAINED_NUMBER * trained + MEDIA_OVER_RAW * raw * samples)


def _adapter_steps(job: Job) -> int:
    return job.sampling_window.count(job.backbone.schedule.timesteps(job.cfg.steps))


def size_in_words(count: int) -> str:
    """Bytes as people say them; a GB is 10^9."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
