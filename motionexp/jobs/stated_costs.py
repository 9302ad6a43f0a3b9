"""Seconds of a job's steps by arithmetic, where they cannot be measured: FLOP over a GPU's FLOP a second."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import get_object
from torch.utils.flop_counter import FlopCounterMode

from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.measurement import StepSeconds
from motionexp.jobs.memory_plan import MemoryTracker, MetaRun, rows_of
from motionexp.jobs.plan import JobPlan
from motionexp.methods.base import TuningMethod

PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
}
"""FLOP a second in bf16 with fp32 sums, without sparsity, of NVIDIA's data sheets."""
GPU = "NVIDIA H200"
"""That is meant where the job's own device is no known GPU."""
PEAKS_FP32 = {
    "NVIDIA H200": 67e12,
    "NVIDIA H100 80GB HBM3": 67e12,
    "NVIDIA H100 PCIe": 51e12,
    "NVIDIA A100-SXM4-80GB": 19.5e12,
    "NVIDIA A100 80GB PCIe": 19.5e12,
}
"""The same in fp32, of the same sheets; torch takes no TF32 unless it is told to."""
SHARE = 0.21
"""Of the peak that steps are taken to reach: what the first paper states of Latte. Its 200 steps take 7
minutes on one RTX A6000, whose peak is 154.8 TFLOP/s in bf16, and a step is 69.9 TFLOP."""


def peak_of(gpu: str, precision: str) -> float:
    """FLOP a second of a GPU at its best, in fp32, bf16 or fp16."""
    return (PEAKS_FP32 if precision == "fp32" else PEAKS)[gpu]


@dataclass(frozen=True)
class StepFlops:
    """Arithmetic of a job's steps, as torch counts it on tensors without values.

    Attributes:
        training: of a training step of one reference, forward and backward.
        forward: of the network's forward pass of one video, one branch of guidance.
    """

    training: float
    forward: float

    def seconds(self, job: JobPlan, gpu: str = GPU) -> StepSeconds:
        """Seconds of the steps on a GPU; encoding, decoding and scores count as nothing."""
        rate, rows = peak_of(gpu, job.precision) * SHARE, rows_of(job)
        return StepSeconds(self.training / rate, rows * self.forward / rate, rows, 0.0, 0.0)


def step_flops(job: JobPlan) -> StepFlops:
    """Count the arithmetic of a job's steps on the meta device; it loads no weights."""
    run = MetaRun(job)
    with MemoryTracker(job.device):  # under which encoders work without values
        caption = run.longest_caption()
    caption = run.with_image(caption)
    run.backbone.release_text_encoder()
    run.backbone.release_vae_encoder()
    training = _training(run, caption) if job.trains and job.probe is None else 0.0
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        run.backbone.predict(run.latents, 500, caption)
    return StepFlops(training / job.trained_together, float(forward.get_total_flops()))


def _training(run: MetaRun, caption: Conditioning) -> float:
    settings: dict[str, Any] = dict(run.job.tuning)
    kind: Callable[..., TuningMethod] = get_object(settings.pop("_target_"))
    method = kind(run.backbone, run.job.window, **settings)
    try:
        method.switch(True)
        with FlopCounterMode(display=False) as counter:
            for loss in method.losses(run.step(caption)):
                torch.autograd.backward(loss)
    finally:
        method.remove()
    return float(counter.get_total_flops())
