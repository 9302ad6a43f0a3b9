"""What a job would do, without doing it: cells, trainable parameters, steps, time, disk and paths."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from hydra.utils import get_object
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from motionexp.backbones.base import Backbone
from motionexp.config import JobConfig
from motionexp.jobs.running import Job, duration
from motionexp.schedule import Window

# A training step goes forward once and back through what lies above the first adapter, about twice as dear.
FORWARDS_A_TRAINING_STEP = 3.0
BYTES_A_TRAINED_NUMBER = 4
MEDIA_OVER_RAW = 1.5  # exact frames, compressed, and beside them mp4 and contact sheet


def plan(cfg: JobConfig) -> None:
    """Print what `run` would do; writes nothing.

    The time is that of one forward pass, measured now, times their number.

    Raises:
        InputError: as `run` does before its first cell.
    """
    console = Console()
    job = Job(cfg, console)
    trained = trainable_parameters(job)
    forward = forward_seconds(job.backbone)
    console.print(f"{cfg.model.name}, τ = {job.tau:g}, {job.precision} on {job.device}", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("reference", "cell", "state", "training steps", "samples", "time", "disk"):
        table.add_column(heading, overflow="fold")
    total_time, total_disk = 0.0, 0
    for reference in job.references:
        cell, missing = job.cell(reference), job.missing(reference)
        steps = cfg.train_steps if job.trains and not cell.has_adapter else 0
        seconds = forward * _forwards(cfg, steps, len(missing))
        disk = _disk(cfg, trained if steps else 0, len(missing))
        total_time, total_disk = total_time + seconds, total_disk + disk
        state = cell.status()["state"]
        shown = (str(steps), str(len(missing)), duration(seconds), _size(disk))
        table.add_row(reference.name, cell.folder.name, state, *shown)
    console.print(table)
    adapter = f"{trained:,} trainable parameters ({cfg.method['_target_'].rpartition('.')[-1]})"
    console.print(adapter if job.trains else "nothing is trained")
    console.print(f"about {duration(total_time)} and {_size(total_disk)}, scores not counted")
    console.print(f"the adapter is on in {_adapter_steps(job)} of {cfg.steps} sampling steps")
    for reference in job.references:
        console.print(f"output: {job.cell(reference).folder}", soft_wrap=True, highlight=False, markup=False)


def trainable_parameters(job: Job) -> int:
    """How many numbers a cell of the job trains; 0 where none is trained."""
    if not job.trains:
        return 0
    settings: dict[str, Any] = dict(job.cfg.method)
    method = get_object(settings.pop("_target_"))
    count: Callable[..., int] = method.trainable_parameters
    return count(job.backbone, **settings)


def forward_seconds(backbone: Backbone) -> float:
    """Wall time of the network on one video: the better of two runs."""
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = torch.zeros(1, *shape, device=backbone.device)
    conditioning = backbone.embed([""])
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
    return Window(job.tau).count(job.backbone.schedule.timesteps(job.cfg.steps))


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
