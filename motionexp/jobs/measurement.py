"""Wall times of a job's steps, measured on this machine: warmed up, and bounded."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor

from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.plan import JobPlan
from motionexp.methods.base import TuningMethod
from motionexp.methods.step import LAST_STEP, DrawKey, Step

BUDGET = 0.2  # seconds, after the call that warms up
LONG_CALL = 0.6  # seconds; a first call that takes longer is the only one
MOST_CALLS = 7


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a job's steps; NaN where a time is unknown.

    Attributes:
        training: of a training step.
        sampling: of an evaluation of one batch, both branches of classifier-free guidance.
        rows: of that batch.
        encoding: of one video.
        decoding: of one video.
    """

    training: float = math.nan
    sampling: float = math.nan
    rows: int = 1
    encoding: float = math.nan
    decoding: float = math.nan


def median_seconds(work: Callable[[], Tensor]) -> float:
    """Median wall time of `work`; the first call does not count, unless it takes longer than `LONG_CALL`.

    At most `MOST_CALLS` are timed, and none is begun after `BUDGET` seconds. The tensor that `work` returns
    is moved to main memory, which waits for a GPU.
    """
    times: list[float] = []
    start = perf_counter()
    while len(times) <= MOST_CALLS and (len(times) < 2 or perf_counter() - start < BUDGET):
        before = perf_counter()
        work().cpu()
        times.append(perf_counter() - before)
        if len(times) == 1:
            if times[0] > LONG_CALL:
                return times[0]
            start = perf_counter()
    return median(times[1:])


def forward_seconds(job: JobPlan, conditioning: Conditioning, rows: int) -> float:
    """Wall time of the network's forward pass of a batch of so many rows; `conditioning` is one caption."""
    backbone = job.backbone
    noise = torch.randn(rows, *backbone.latent_shape(*job.size), device=backbone.device)
    captions = Conditioning.cat([conditioning] * rows)
    with torch.no_grad():
        return median_seconds(lambda: backbone.predict(noise, 500, captions))


def decoding_seconds(job: JobPlan) -> float:
    """Wall time of the VAE's decoder for one video."""
    backbone = job.backbone
    latents = torch.randn(1, *backbone.latent_shape(*job.size), device=backbone.device)
    return median_seconds(lambda: backbone.decode(latents))


def measure(job: JobPlan, rows: int) -> StepSeconds:
    """Time one step of each kind that the job takes. It loads the network and frees the text encoder.

    Args:
        job: with weights on this machine.
        rows: of a batch of sampling.
    """
    backbone, latent_shape = job.backbone, job.backbone.latent_shape(*job.size)
    backbone.unload()  # the job before may have released encoders
    first = job.references[0]
    caption = backbone.condition(first.caption, first.frames[0] if backbone.takes_image else None)
    backbone.release_text_encoder()
    encoding, training = 0.0, math.nan
    if job.reads_references or job.probe:
        frames = torch.from_numpy(job.references[0].frames.copy())[None]
        encoding = median_seconds(lambda: backbone.encode(frames))
    backbone.release_vae_encoder()
    latents = torch.randn(1, *latent_shape, device=backbone.device)
    decoding = decoding_seconds(job)
    if job.trains and job.probe is None:
        training = _training_seconds(job, latents, caption)
    return StepSeconds(training, forward_seconds(job, caption, rows), rows, encoding, decoding)


def _training_seconds(job: JobPlan, latents: Tensor, caption: Conditioning) -> float:
    """Wall time of a training step of one reference on a video of random latents (1, C, F, h, w)."""
    settings: dict[str, Any] = dict(job.tuning)
    kind: Callable[..., TuningMethod] = get_object(settings.pop("_target_"))
    method = kind(job.backbone, job.window, **settings)
    size = job.training.batch_size * job.trained_together
    try:
        optimizer = job.training.optimizer.build(method.trained)
        clean = latents.repeat(size, 1, 1, 1, 1)
        captions = Conditioning.cat([caption] * size).trimmed()
        keys = [DrawKey(0, "", LAST_STEP, row) for row in range(size)]
        t = torch.full((size,), min(999, math.ceil(job.window.high)), device=latents.device)

        def step() -> Tensor:
            method.switch(True)
            noise = torch.randn_like(clean)
            for loss in method.losses(Step.noised(job.backbone.schedule, clean, noise, t, captions, keys)):
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return median_seconds(step) / job.trained_together
    finally:
        method.remove()
