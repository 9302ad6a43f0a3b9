"""DDIM inversion of references: `python -m motionexp.scripts.inversion [OVERRIDES]` (`make inversion`).

Measures how well sampling gives a reference back from its inverted latents, and draws what those latents show
along the way (Figure 2 of "Video Diffusion Models Encode Motion in Early Timesteps"). All without guidance.
Takes the models that the overrides choose (`model=NAME,NAME`), or every bundled one in turn.
Writes rows and pictures to `outputs/inversion/`; a reference whose rows are there is not run again.
`experiments/inversion.yaml` says how they are published.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.videos import psnr, write_png
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from motionexp.jobs import inputs
from motionexp.jobs.job import Job
from motionexp.jobs.probe_figures import strip
from motionexp.jobs.run import clear_disk_errors
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows
from motionexp.scripts.model_jobs import jobs_of

STEPS = (50, 200)
METRIC_VERSION = 1
REFERENCES = (
    *("01-wander-cyan-square", "25-zigzag-orange-moon", "49-left-lime-square", "57-grow-blue-star"),
    *("60-bounce-pink-star", "poster-61-wander-green-circle", "poster-67-zigzag-red-circle"),
    "poster-73-left-violet-star",
)
"""Of the benchmark, among those that the probes take: five motion-dominant, three appearance-dominant."""
METRICS = {"reconstruction_psnr": "to the video, dB", "reconstruction_psnr_to_vae": "to the VAE's, dB"}

Progress = Callable[[int, int], None]


def reconstruct(
    backbone: Backbone, latents: Tensor, caption: Conditioning, steps: int, progress: Progress
) -> tuple[dict[float, Tensor], np.ndarray]:
    """Invert one video's latents (1, C, F, h, w) and sample from the noisiest; `progress` gets every step.

    Returns:
        The inverted latents by timestep, and the sampled frames (F, H, W, 3) uint8.

    Raises:
        FloatingPointError: what was sampled is not finite.
    """
    settings = SamplerSettings(steps, guidance_scale=1.0)
    inverted = invert(backbone, latents, caption, None, settings, progress=progress)
    start = inverted[max(inverted)]
    back = sample_latents(backbone, caption, None, start, settings, progress=progress)
    if not torch.isfinite(back).all():
        raise FloatingPointError("inversion gave numbers that are not finite: try precision=fp32")
    return inverted, backbone.decode(back)[0].numpy()


def measure(job: Job, reference: Reference, progress: Progress) -> list[Row]:
    """Reconstruct a reference with every prompt and number of steps; write its strip; make its rows."""
    backbone, latents = job.backbone, job.cache.latents(reference)
    to_vae = backbone.decode(latents)[0].numpy()
    # The empty prompt is laid out as guidance's unconditional branch: on an empty caption by itself a network
    # may never have been trained, and its answers are then worth nothing.
    empty, caption = backbone.guidance_pair(
        job.cache.conditioning(reference.caption), job.cache.conditioning("")
    )
    rows = []
    for prompt, conditioning in (("empty", empty), ("caption", caption)):
        for steps in STEPS:
            inverted, frames = reconstruct(backbone, latents, conditioning, steps, progress)
            values = (float(psnr(frames, reference.frames).mean()), float(psnr(frames, to_vae).mean()))
            rows += _rows(job, reference, prompt, steps, values)
            # The most steps come nearest to every t that is drawn; an empty prompt tells nothing of looks.
            if (prompt, steps) == ("empty", STEPS[-1]):
                path = folder(job) / f"{job.cfg.model.name}-{reference.name}-strip.png"
                write_png(path, strip(backbone, inverted, empty, "the empty prompt"))
    return rows


def folder(job: Job) -> Path:
    """Where rows and pictures of all models go."""
    return job.output / "inversion"


def _rows(job: Job, reference: Reference, prompt: str, steps: int, values: tuple[float, float]) -> list[Row]:
    cfg = replace(job.cfg, steps=steps, guidance_scale=1.0, tau=1000.0)
    return [
        Row(
            metric=metric,
            metric_version=METRIC_VERSION,
            value=value,
            higher_is_better=True,
            suite=reference.suite,
            reference=reference.name,
            reference_hash=reference.content_hash,
            strata={**reference.strata, "prompt": prompt},
            method="inversion",
            tau=1000.0,
            steps=steps,
            settings=inputs.row_settings(cfg),
            **job.origin(),
        )
        for metric, value in zip(METRICS, values, strict=True)
    ]


def run(cfg: JobConfig) -> list[Row]:
    """Measure the job's references that have no rows yet; returns the rows of all of them."""
    job = Job(cfg, Console(quiet=True))
    left = [each for each in job.references if not finished(job, each)]
    job.cache.fill(left, [caption for each in left for caption in (each.caption, "")])
    # Two prompts, there and back. In a log file the bar is a line, and one every half minute is enough.
    total, often = 2 * 2 * sum(STEPS) * len(left), 0.1 if sys.stderr.isatty() else 30
    with tqdm(total=total, desc="invert and sample", unit="step", leave=False, mininterval=often) as bar:
        for reference in left:
            append_rows(folder(job) / ROWS_NAME, measure(job, reference, lambda done, steps: bar.update()))
    return [row for each in job.references for row in finished(job, each)]


def finished(job: Job, reference: Reference) -> list[Row]:
    """A reference's rows, of these weights in this precision: all that there should be, or none."""
    path = folder(job) / ROWS_NAME
    wanted = (reference.content_hash, job.backbone.weights_hash, job.precision, METRIC_VERSION)
    return [
        row
        for row in (read_rows(path) if path.exists() else [])
        if (row.reference_hash, row.weights_hash, row.precision, row.metric_version) == wanted
    ]


def print_rows(rows: Sequence[Row]) -> None:
    """Print means over references, with the least and the most, by contrast, prompt and steps."""
    table = Table("contrast", "prompt", "steps", *METRICS.values(), "n", title_justify="left")
    table.title = f"{rows[0].model}: reconstruction after inversion, PSNR (higher is better)"
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.stratum("contrast"), row.stratum("prompt"), row.stratum("steps"))
        groups.setdefault(key, []).append(row)
    for key, own in groups.items():
        values = [[row.value for row in own if row.metric == metric] for metric in METRICS]
        shown = [f"{np.mean(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in values]
        table.add_row(*key, *shown, str(len(values[0])))
    Console().print(table)


def settings_of(arguments: Sequence[str]) -> JobConfig:
    """The settings of the overrides, in fp32 on `REFERENCES` unless they say otherwise."""
    overrides = ["precision=fp32"]
    if not any(each.startswith(("data=", "data.", "video=")) for each in arguments):
        overrides += ["data.split=benchmark", f"references=[{','.join(REFERENCES)}]"]
    return load([*overrides, *arguments])


def main(arguments: Sequence[str]) -> int:
    """Measure the models of the overrides, or every bundled one; returns the exit code."""
    try:
        for cfg in jobs_of(arguments, settings_of):
            with clear_disk_errors(cfg):
                print_rows(run(cfg))
            print(f"rows, and strips of pictures: {Path(cfg.output) / 'inversion'}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
