"""How fast the steps of a job are here: `python -m motionexp.scripts.bench [OVERRIDES]` (`make bench`).

Training is timed against the bare forward pass, backward pass and optimizer step of the model. Both alternate
in one run, so that other load on the machine affects both. Writes rows to `outputs/bench/`.
"""

import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from motionexp.config.compose import load
from motionexp.config.metrics import chosen_metrics
from motionexp.config.schema import JobConfig
from motionexp.config.scoring_models import scoring_models
from motionexp.data.base import Reference
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.sampling import SamplerSettings, initial_noise, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.jobs import provenance
from motionexp.jobs.evaluation import peak_memory
from motionexp.jobs.job import Job, encode
from motionexp.jobs.loggers import CsvLog
from motionexp.methods.base import TrainingSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.training import Tuning, fit
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import ROWS_NAME, Row, append_rows
from motionexp.results.terminal import print_grid
from motionexp.scripts.programs import exit_code

DEFAULTS = ("precision=fp32", "output=outputs/bench")
REPEATS = 5
TRAINING_STEPS = 20
TRAINING_BATCHES = (1, 8)
SAMPLING_STEPS = 3
SAMPLING_BATCHES = (1, 4, 16)
HIGHER = ("metrics_frames_per_second", "share_of_bf16_peak", "times_as_fast_as_plain")

Times = list[tuple[str, str, float]]
"""(metric, what was measured, value)"""


def training_times(backbone: Backbone, reference: Reference, batch_size: int) -> Times:
    """Median seconds of a step of `fit` and of the bare steps between, their ratio, and the peak memory."""
    example = encode(backbone, reference)
    settings = TrainingSettings(TRAINING_STEPS, batch_size, checkpoint_every=0, preview_every=1)
    method = LoRA(backbone, Window(0))
    try:
        bare_step = make_bare_step(Tuning(backbone, method, [example], settings))
        ends: list[float] = []
        starts: list[float] = []

        def take_turns(step: int) -> None:
            ends.append(time.perf_counter())
            bare_step()
            starts.append(time.perf_counter())

        with TemporaryDirectory() as name:
            parts = (backbone, method, [example], settings, Path(name))
            log = CsvLog(Path(name))
            fit(*parts, on_step=log.loss, on_preview=take_turns, progress=False)
            log.close()
    finally:
        method.remove()
    # A step of `fit` lies between the end of one bare step and the start of the next; the first is warm-up.
    ours, bare = np.subtract(ends[1:], starts[:-1]), np.subtract(starts, ends)[1:]
    on = f"batch {batch_size}"
    return [
        ("training_step_seconds", on, float(np.median(ours))),
        ("bare_training_step_seconds", on, float(np.median(bare))),
        ("training_step_ratio", on, float(np.median(ours) / np.median(bare))),
        ("peak_memory_gib", on, peak_memory(backbone.device) / 2**30),
    ]


def make_bare_step(tuning: Tuning) -> Callable[[], None]:
    """Return a function that does a forward pass, a backward pass and an optimizer step on fixed tensors."""
    optimizer = tuning.configure_optimizers()
    tensors = tuning.draw(0)

    def step() -> None:
        with torch.enable_grad():
            tuning.method.loss(tensors).backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(tuning.method.backbone.device)

    return step


def sampling_times(backbone: Backbone, reference: Reference, batch_size: int) -> Times:
    """Seconds of one guided sampling step of a batch."""
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = torch.stack([initial_noise(0, index, shape) for index in range(batch_size)])
    captions = Conditioning.cat([backbone.embed([reference.caption])] * batch_size)
    negative = backbone.embed([""])
    seconds = _seconds(
        lambda: sample_latents(backbone, captions, negative, noise, SamplerSettings(SAMPLING_STEPS)).cpu()
    )
    return [("sampling_step_seconds", f"batch {batch_size}", seconds / SAMPLING_STEPS)]


def metric_times(scorer: Scorer, reference: Reference, videos: Iterator[np.ndarray]) -> Times:
    """Seconds of each metric alone on a video, with the passes of the models it needs, and of all together.

    Args:
        scorer: the metrics.
        reference: of all videos.
        videos: all different, because the features of a video are cached.
    """
    edit = reference.edits[0]
    names = scorer.applicable(reference, edit)

    def seconds(metrics: Collection[str]) -> float:
        video = next(videos)
        return _seconds(lambda: scorer.score(video, reference, edit, metrics))

    alone = {name: seconds({name}) for name in names}
    together, count = seconds(names), len(reference.frames)
    return [
        *(("metric_seconds", name, value) for name, value in alone.items()),
        ("metric_seconds", "all, one by one", sum(alone.values())),
        ("metric_seconds", "all together", together),
        ("metrics_frames_per_second", "all, one by one", count / sum(alone.values())),
        ("metrics_frames_per_second", "all together", count / together),
    ]


def different_videos(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yield different videos: a copy of `frames` for every number in it, with that number inverted."""
    for place in range(frames.size):
        video = frames.copy()
        video.reshape(-1)[place] ^= 255
        yield video


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(cfg: JobConfig, repeats: int, metrics: Sequence[str] | None = None) -> list[Row]:
    """Time everything `repeats` times, after one round of warm-up."""
    job = Job(cfg, Console(quiet=True))
    backbone, reference = job.backbone, job.references[0]
    models = scoring_models(cfg.scoring, cfg.model.closed_vocabulary)
    scorer = Scorer(metrics, models, str(job.device), job.scorer.chance_references)
    rows, videos = [], different_videos(reference.frames)
    for repeat in range(-1, repeats):
        times: Times = []
        for size in TRAINING_BATCHES:
            times += training_times(backbone, reference, size)
        for size in SAMPLING_BATCHES:
            times += sampling_times(backbone, reference, size)
        times += metric_times(scorer, reference, videos)
        if repeat >= 0:
            fields = {"method": "lora", "tau": 0.0, "steps": SAMPLING_STEPS}
            rows += [as_row(job, repeat, entry, **fields) for entry in times]
    return rows


def as_row(job: Job, repeat: int, measured: tuple[str, str, float], **fields: Any) -> Row:
    """A row of one entry of `Times`, with the machine; `fields` are further fields of the row."""
    metric, on, value = measured
    machine = {
        "device": provenance.device_name(job.device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "packages": provenance.packages(),
    }
    return Row(
        metric=metric,
        metric_version=1,
        value=value,
        higher_is_better=metric in HIGHER or metric.startswith("tree_"),
        suite="bench",
        reference=f"repeat {repeat}",
        strata={"part": on},
        settings=machine,
        **job.origin(),
        **fields,
    )


def write(rows: Iterable[Row], path: Path) -> None:
    """Write rows as soon as they are measured, in place of those of an earlier run; print their medians."""
    path.unlink(missing_ok=True)
    device, values = "", defaultdict(list)
    for row in rows:
        append_rows(path, [row])
        values[row.metric, row.strata["part"]].append(row.value)
        device = row.device
    lines = [
        [*key, *(f"{statistic(series):.4g}" for statistic in (np.median, np.min, np.max))]
        for key, series in values.items()
    ]
    header = ["metric", "on", "median", "minimum", "maximum"]
    print_grid(Console(), header, lines, labels=2, title=device)
    print(f"rows: {path}")


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Benchmark the model of the overrides (default: the bundled one) in fp32."""
    cfg = load([*DEFAULTS, *arguments])
    rows = measure(cfg, REPEATS, cfg.metrics or [spec.name for spec in chosen_metrics(None)])
    write(rows, Path(cfg.output) / ROWS_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
