"""DDIM inversion of references: `python -m motionexp.scripts.inversion [OVERRIDES]` (`make inversion`).

Measures how well sampling reconstructs a reference from its inverted latents, and draws what these latents
show (Figure 2 of "Video Diffusion Models Encode Motion in Early Timesteps"). All without guidance.
Takes the models that the overrides choose (`model=NAME,NAME`), or every bundled one in turn.
Writes rows and pictures to `outputs/inversion/`; a reference with rows is not measured again.
`experiments/inversion.yaml` says how they are published.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.data.videos import psnr, write_png
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.progress import progress_bar
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.jobs.job import Job
from motionexp.jobs.probe_figures import strip
from motionexp.jobs.run import clear_disk_errors
from motionexp.results.formats import Grid
from motionexp.results.rows import ROWS_NAME, Row, append_rows
from motionexp.scripts.programs import RowFile, exit_code, jobs_of

STEPS = (50, 200)
METRIC_VERSION = 1
REFERENCES = (
    *("01-wander-cyan-square", "25-zigzag-orange-moon", "49-left-lime-square", "57-grow-blue-star"),
    *("60-bounce-pink-star", "poster-61-wander-green-circle", "poster-67-zigzag-red-circle"),
    "poster-73-left-violet-star",
)
"""References of the benchmark that the probes take too: five motion-dominant, three appearance-dominant."""
METRICS = {"reconstruction_psnr": "to the video, dB", "reconstruction_psnr_to_vae": "to the VAE's, dB"}

Progress = Callable[[int, int], None]


def reconstruct(
    backbone: Backbone, latents: Tensor, caption: Conditioning, steps: int, progress: Progress
) -> tuple[dict[float, Tensor], np.ndarray]:
    """Invert the latents (1, C, F, h, w) of one video and sample from the noisiest ones.

    Args:
        progress: called after every step of both.

    Returns:
        The inverted latents by timestep, and the sampled frames (F, H, W, 3) uint8.

    Raises:
        FloatingPointError: the sampled latents are not finite.
    """
    settings = SamplerSettings(steps, guidance_scale=1.0)
    inverted = invert(backbone, latents, caption, None, settings, progress=progress)
    start = inverted[max(inverted)]
    sampled = sample_latents(backbone, caption, None, start, settings, progress=progress)
    if not torch.isfinite(sampled).all():
        raise FloatingPointError("inversion gave numbers that are not finite: try precision=fp32")
    return inverted, backbone.decode(sampled)[0].numpy()


def measure(job: Job, reference: Reference, progress: Progress) -> list[Row]:
    """Reconstruct a reference with every prompt and number of steps; write its strip; return its rows."""
    backbone, latents = job.backbone, job.cache.latents(reference)
    vae_frames = backbone.decode(latents)[0].numpy()
    # The empty prompt has the layout of guidance's unconditional branch: some networks were never trained on
    # an empty caption alone.
    empty, caption = backbone.guidance_pair(*map(job.cache.conditioning, (reference.caption, "")))
    rows = []
    for prompt, conditioning in (("empty", empty), ("caption", caption)):
        for steps in STEPS:
            inverted, frames = reconstruct(backbone, latents, conditioning, steps, progress)
            settings = {**job.plan.row_settings, "steps": steps, "guidance_scale": 1.0, "tau": 1000.0}
            rows += [
                Row(
                    metric=metric,
                    metric_version=METRIC_VERSION,
                    value=float(psnr(frames, target).mean()),
                    higher_is_better=True,
                    suite=reference.suite,
                    reference=reference.name,
                    reference_hash=reference.content_hash,
                    strata={**reference.strata, "prompt": prompt},
                    method="inversion",
                    tau=1000.0,
                    steps=steps,
                    settings=settings,
                    **job.origin(),
                )
                for metric, target in zip(METRICS, (reference.frames, vae_frames), strict=True)
            ]
            # The largest number of steps is nearest to every t of the strip, and the empty prompt adds no
            # appearance.
            if (prompt, steps) == ("empty", STEPS[-1]):
                path = folder(job) / f"{job.plan.model.name}-{reference.name}-strip.png"
                write_png(path, strip(backbone, inverted, empty, "the empty prompt"))
    return rows


def folder(job: Job) -> Path:
    """The folder of rows and pictures of all models."""
    return job.output / "inversion"


def run(cfg: JobConfig) -> list[Row]:
    """Measure the references of a job that have no rows yet; return the rows of all its references."""
    job = Job(cfg, Console(quiet=True))
    file = RowFile(folder(job) / ROWS_NAME, job, METRIC_VERSION)
    references = {reference.content_hash: reference for reference in job.references}
    missing = [references[key] for key in file.missing(references, lambda row: row.reference_hash)]
    job.cache.fill(missing, [caption for reference in missing for caption in (reference.caption, "")])
    # Two prompts, inversion and sampling.
    with progress_bar(2 * 2 * sum(STEPS) * len(missing), "invert and sample", "step") as bar:
        for reference in missing:
            append_rows(file.path, measure(job, reference, lambda done, steps: bar.update()))
    return [row for row in file.rows() if row.reference_hash in references]


def print_rows(rows: Sequence[Row]) -> None:
    """Print means over references, with minimum and maximum, by contrast, prompt and steps."""
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        key = tuple(row.stratum(name) for name in ("contrast", "prompt", "steps"))
        groups.setdefault(key, {}).setdefault(row.metric, []).append(row.value)
    lines = []
    for key, by_metric in groups.items():
        texts = [f"{np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in map(by_metric.get, METRICS) if v]
        lines.append([*key, *texts, str(len(next(iter(by_metric.values()))))])
    title = f"{rows[0].model}: reconstruction after inversion, PSNR (higher is better)"
    Console().print(
        Grid(["contrast", "prompt", "steps", *METRICS.values(), "n"], lines, "llr").terminal(title)
    )


def settings_of(arguments: Sequence[str]) -> JobConfig:
    """The settings of the overrides; the default is fp32 on `REFERENCES`."""
    overrides = ["precision=fp32"]
    if not any(argument.startswith(("data=", "data.", "video=")) for argument in arguments):
        overrides += ["data.split=benchmark", f"references=[{','.join(REFERENCES)}]"]
    return load([*overrides, *arguments])


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Measure the models of the overrides, or every bundled one."""
    for cfg in jobs_of(arguments, settings_of):
        with clear_disk_errors(cfg.output):
            print_rows(run(cfg))
        print(f"rows, and strips of pictures: {Path(cfg.output) / 'inversion'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
