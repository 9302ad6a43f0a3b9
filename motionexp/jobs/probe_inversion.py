"""The probe of DDIM inversion: how well sampling reconstructs a reference from its inverted latents.

It also draws what these latents show (Figure 2 of "Video Diffusion Models Encode Motion in Early Timesteps").
"""

import shutil
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console

from motionexp.config.ids import pair_id
from motionexp.data.base import Reference
from motionexp.data.videos import psnr, write_png
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.sampling import sample_latents
from motionexp.jobs.cell import STRIP_FILE
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan, ProbePlan
from motionexp.jobs.probe_figures import strip, strip_timesteps
from motionexp.jobs.probe_units import Probe, Progress, Unit, Work, counting
from motionexp.jobs.unfinished import Unfinished, invert_or_read
from motionexp.probes.analysis import inversion_figures
from motionexp.probes.analysis.inversion_figures import METRICS
from motionexp.results.rows import Row, score_id_of
from motionexp.results.terminal import print_grid

METRIC_VERSION = 1


class InversionProbe(Probe):
    """Every reference is a unit of work."""

    headings = ("reference", "prompts")

    def __init__(self, plan: JobPlan) -> None:
        super().__init__(plan)
        self.units: list[InversionUnit] = [
            InversionUnit(self.job, self.plan, reference) for reference in plan.references
        ]

    @property
    def cost(self) -> str:
        """What a unit costs, in words."""
        return (
            f"inversion and sampling in {self.plan.steps} steps, prompts: {', '.join(self.plan.prompts)}; for"
            " each reference"
        )

    def show(self, job: Job, rows: Sequence[Row], model_rows: Sequence[Row]) -> None:
        """See `Probe.show`. The strips of pictures are copied beside the figure."""
        print_means(job.console, rows)
        folder = self.figures / f"inversion_{self.plan.steps}"
        folder.mkdir(parents=True, exist_ok=True)
        for unit in self.units:
            if (unit.cell.folder / STRIP_FILE).is_file():
                name = f"{job.plan.model.name}-{unit.reference.name}-{STRIP_FILE}"
                shutil.copyfile(unit.cell.folder / STRIP_FILE, folder / name)
        inversion_figures.write(folder, rows, "A job of probe=inversion drew the figure from its rows alone.")
        job.console.print(f"figures: {folder}", markup=False, highlight=False, soft_wrap=True)

    def rows(self, job: Job) -> list[Row]:
        """See `Probe.rows`: those of the job's prompts."""
        return [row for row in super().rows(job) if row.strata["prompt"] in self.plan.prompts]


class InversionUnit(Unit):
    """The inversion of one reference, with one or two prompts."""

    def __init__(self, job: JobPlan, plan: ProbePlan, reference: Reference) -> None:
        self.job, self.plan, self.reference, self.name = job, plan, reference, reference.name
        self.cell = plan.cell(reference.suite, reference.caption, reference.content_hash)
        self.captions = (reference.caption, job.sampling.negative_prompt)

    @property
    def missing(self) -> list[str]:
        """The prompts without rows. All rows of a prompt are appended at once, so none is half done."""
        stored = {row.strata["prompt"] for row in self.cell.rows()}
        return [prompt for prompt in self.plan.prompts if prompt not in stored]

    @property
    def stored(self) -> tuple[int, int]:
        """See `Unit.stored`."""
        return len(self.plan.prompts) - len(self.missing), len(self.plan.prompts)

    @property
    def work(self) -> Work:
        """See `Unit.work`."""
        settings, prompts = self.plan.inversion, len(self.missing)
        return Work(2 * prompts * settings.steps, 2 * prompts * settings.evaluations, 1)

    def references(self) -> list[Reference]:
        """See `Unit.references`."""
        return [self.reference]

    def run(self, job: Job, progress: Progress) -> None:
        """Reconstruct the reference with every prompt that has no rows."""
        # The empty prompt has the layout of guidance's unconditional branch: some networks were never trained
        # on an empty caption alone.
        texts = (self.reference.caption, self.job.sampling.negative_prompt)
        captions = (job.cache.of_reference(self.reference, text) for text in texts)
        empty, caption = job.backbone.guidance_pair(*captions)
        for prompt in self.missing:
            self._measure(job, prompt, {"empty": empty, "caption": caption}[prompt], progress)

    def _measure(self, job: Job, prompt: str, conditioning: Conditioning, progress: Progress) -> None:
        """Store the rows of one prompt, and the strip of the empty one."""
        backbone, settings = job.backbone, self.plan.inversion
        latents, unfinished = job.cache.latents(self.reference), Unfinished(self.cell, job.device)
        negative = job.cache.conditioning(self.job.sampling.negative_prompt)
        # 1. Invert, and sample from the noisiest latents.
        timesteps = [t for t, _ in backbone.schedule.step_pairs(settings.steps)]
        inverted = invert_or_read(
            unfinished,
            *(backbone, latents, conditioning, negative, settings),
            {timesteps[0], *strip_timesteps(timesteps)},
            progress,
            name=prompt,
        )
        sampled = sample_latents(
            *(backbone, conditioning, negative, inverted[max(inverted)], settings),
            progress=counting(progress),
        )
        if not torch.isfinite(sampled).all():
            unfinished.remove()
            raise FloatingPointError("inversion gave numbers that are not finite: try precision=fp32")
        # 2. The strip shows the empty prompt, which adds no appearance.
        if prompt == "empty":
            caption = self.job.sampling.negative_prompt
            name = f'"{caption}"' if caption else "the empty prompt"
            shown = strip(backbone, inverted, conditioning, name)
            write_png(self.cell.folder / STRIP_FILE, shown)
        frames, vae_frames = (backbone.decode(video)[0].numpy() for video in (sampled, latents))
        self.cell.add_rows(self._rows(job, prompt, frames, vae_frames))
        unfinished.remove()

    def _rows(self, job: Job, prompt: str, frames: np.ndarray, vae_frames: np.ndarray) -> list[Row]:
        """PSNR of the sampled (F, H, W, 3) frames to the reference and to the VAE's reconstruction of it."""
        settings, sample_id = self.plan.inversion, pair_id(self.cell.folder.name, prompt)
        about = {"steps": settings.steps, "guidance_scale": settings.guidance_scale, "tau": 1000.0}
        fields = {
            **job.row_fields(self.cell, self.reference),
            "strata": {**self.reference.strata, "prompt": prompt},
            "sample_id": sample_id,
            "method": "inversion",
            "tau": 1000.0,
            "steps": settings.steps,
            "seconds": {},
            "settings": {**job.plan.row_settings, **about},
        }
        return [
            Row(
                metric=metric,
                metric_version=METRIC_VERSION,
                value=float(psnr(frames, target).mean()),
                higher_is_better=True,
                score_id=score_id_of(sample_id, metric, METRIC_VERSION, ""),
                **fields,
            )
            for metric, target in zip(METRICS, (self.reference.frames, vae_frames), strict=True)
        ]


def print_means(console: Console, rows: Sequence[Row]) -> None:
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
    print_grid(console, ["contrast", "prompt", "steps", *METRICS.values(), "n"], lines, labels=3, title=title)
