"""A probe's job: invert each reference, change the condition along denoising, and score the videos."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from motionexp.config.ids import pair_id
from motionexp.config.metrics import chosen_metrics
from motionexp.config.schema import JobConfig
from motionexp.data.base import Edit, Reference
from motionexp.data.videos import side_by_side, write_mp4, write_png
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.progress import progress_bar, step_bar
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.evaluation import Sample, peak_memory
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan, ProbePlan
from motionexp.jobs.probe_figures import show_figures, strip
from motionexp.jobs.probe_rows import energy_rows, schedule_rows
from motionexp.jobs.run import clear_disk_errors, numbered
from motionexp.jobs.scoring import CellScores
from motionexp.jobs.summary import headings, mean_of, print_paths
from motionexp.metrics.attribute_readings import AttributeReadings
from motionexp.probes.interventions import CONTROL, partial_guidance, tampering
from motionexp.probes.timesteps import EDGES, Pair
from motionexp.probes.tree import Trajectory, cost, cost_one_by_one, run_tree, step_blocks, step_counts
from motionexp.results.formats import Grid
from motionexp.results.rows import Row
from motionexp.results.runs import write_index

SCORED = {"text_alignment", "flow_similarity", "velocity_similarity", *AttributeReadings.values}
"""The values that have rows: of the probes' metrics the main ones, and all readings of attributes."""
REFERENCE = "reference"
ALL_PAIRS = "pairs.mp4"


def probe(cfg: JobConfig) -> list[Row]:
    """Run a probe on each of the job's references and edits, and draw its figures.

    Args:
        cfg: checked settings with `probe`.

    Returns:
        The rows of all pairs, stored ones included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; finished results stay stored.
    """
    console = Console()
    rows: list[Row] = []
    with clear_disk_errors(cfg.output):
        # 1. Plan, and measure what belongs to the model and not to a reference.
        job = Job(cfg, console)
        plan = job.plan.probe
        assert plan is not None, "probe="
        runs = probe_runs(job.plan, plan)
        counts = step_counts(job.backbone.schedule, plan.steps)
        console.print(cost_in_words(runs[0].trajectories, counts), highlight=False, soft_wrap=True)
        model_rows = schedule_rows(job, plan.steps)
        if job.references[0].suite == "shapes":
            model_rows += energy_rows(job)
        # 2. Encode. Each encoder is freed before the network is loaded.
        job.check_scoring()
        missing = [run for run in runs if not run.is_finished]
        captions = [caption for run in missing for caption in (run.edit.caption, run.reference.caption)]
        job.cache.fill([run.reference for run in missing], [*captions, cfg.negative_prompt])
        # 3. Sample.
        for counted, run in numbered(missing):
            console.print(f"{run.name} ({counted})", markup=False, highlight=False)
            about = {"reference": run.reference.name, "probe": run.method, "edit": run.edit.caption}
            with job.holding(run.cell, about):
                run.generate(job.cache)
        # 4. Score.
        with job.at_work(job.probe_scorer) as scorer, progress_bar(len(runs), "score", "probe") as bar:
            for run in runs:
                scores = CellScores(run.cell, run.reference, scorer)
                rows += run.score(scores, job.row_fields(run.cell, run.reference))
                bar.update()
        # 5. Show.
        methods = list(dict.fromkeys(run.method for run in runs))
        for method in methods:
            console.print(summary(method, [row for row in rows if row.method == method]))
        write_index(runs[0].cell.folder.parent)
        show_figures(job, plan.kind, methods, [*rows, *model_rows])
    print_paths(console, "all pairs side by side", [run.cell.folder / ALL_PAIRS for run in runs])
    return rows


def probe_runs(job: JobPlan, plan: ProbePlan) -> list["ProbeRun"]:
    """One for each of the job's references and edits."""
    return [ProbeRun(job, plan, reference, edit, cell) for reference, edit, cell in plan.cells]


def cost_in_words(trajectories: Mapping[Pair, Trajectory], counts: Sequence[int]) -> str:
    """The sampling steps and network evaluations of a probe, as a tree and pair by pair.

    `counts` are the steps of each block, as `step_counts` returns them.
    """
    pairs = [trajectory for pair, trajectory in trajectories.items() if pair != CONTROL]
    tree, alone = cost(trajectories.values(), counts), cost_one_by_one(pairs, counts)
    return (
        f"{len(pairs)} pairs: {tree.steps:,} steps ({tree.evaluations:,} network evaluations) as a tree,"
        f" in place of {alone.steps:,} ({alone.evaluations:,}) one by one; for each reference and edit"
    )


class ProbeRun:
    """The probe of one reference with one edit, and its cell.

    Attributes:
        name: for messages.
        cell: holds the videos and rows.
        method: the probe's name in rows.
        negative: the negative prompt.
        requests: {(start, end) of the timesteps whose condition changes: its video}.
    """

    def __init__(self, job: JobPlan, plan: ProbePlan, reference: Reference, edit: Edit, cell: Cell) -> None:
        self.job, self.plan, self.reference, self.edit, self.cell = job, plan, reference, edit, cell
        self.name = f"{reference.name}, {edit.kind}"
        self.id = cell.folder.name  # a `probe_id`
        # Tampering with the words of the motion is a method of its own.
        self.method = f"motion_{plan.kind}" if edit.kind == "motion" else plan.kind
        self.negative = job.sampling.negative_prompt
        self.requests = {
            pair: SampleRequest(edit, 0, pair_id(self.id, f"{pair[0]} {pair[1]}"))
            for pair in self.trajectories
        }

    @cached_property
    def trajectories(self) -> dict[Pair, Trajectory]:
        """The trajectory of every pair, and of the control if the probe has one."""
        scale = self.plan.guidance_scale
        if self.plan.kind == "tampering":
            return tampering(self.reference.caption, self.edit.caption, scale)
        return partial_guidance(self.edit.caption, scale)

    @property
    def missing(self) -> list[Pair]:
        """The pairs whose videos are not stored yet."""
        return [pair for pair, request in self.requests.items() if not self.cell.has_sample(request)]

    @property
    def is_finished(self) -> bool:
        """Whether the videos of all pairs are stored."""
        return not self.missing

    def generate(self, cache: EncodingCache) -> None:
        """Invert, run the tree and decode. Stores every pair's video, one grid of them, and the strip."""
        start = perf_counter()
        backbone = self.job.backbone
        inverted_with = self._inverted_with(cache)
        with step_bar("invert") as progress:
            inverted = invert(
                backbone,
                cache.latents(self.reference),
                inverted_with,
                cache.conditioning(self.negative),
                self.plan.inversion,
                progress=progress,
            )
        latents = self._run_tree(inverted, cache)  # (1, C, F, h, w) of every pair
        frames = [backbone.decode(video[None])[0].numpy() for video in latents]
        seconds, memory = (perf_counter() - start) / len(frames), peak_memory(backbone.device)
        videos = dict(zip(self.trajectories, frames, strict=True))
        write_mp4(self.cell.folder / ALL_PAIRS, self._grid(videos), backbone.fps)
        caption = self.reference.caption if self.plan.inverts_caption else self.negative
        prompt = f'"{caption}"' if caption else "the empty prompt"
        write_png(self.cell.folder / "inverted.png", strip(backbone, inverted, inverted_with, prompt))
        for pair, video in videos.items():
            sample = Sample(self.edit, 0, video, 0, seconds, memory)
            self.cell.save_sample(self.requests[pair], sample, backbone.fps, self.job.exact_frames)

    def _run_tree(self, inverted: Mapping[float, torch.Tensor], cache: EncodingCache) -> list[torch.Tensor]:
        """(1, C, F, h, w) latents of every trajectory; `inverted` holds such latents by timestep."""
        backbone, steps = self.job.backbone, self.plan.steps
        blocks = step_blocks(backbone.schedule, steps)
        # A block's trajectories start from the inverted latents at its first, noisiest timestep.
        starts = {edge: inverted[block[0][0]] for edge, block in zip(EDGES[1:], blocks, strict=True)}
        with step_bar("probe") as progress:
            latents = run_tree(
                backbone,
                list(self.trajectories.values()),
                starts,
                steps,
                embed=cache.conditioning,
                negative=cache.conditioning(self.negative),
                rows=2 * self.job.at_once,  # with and without the caption
                progress=progress,
            )
        if not all(torch.isfinite(video).all() for video in latents):
            raise FloatingPointError(
                f"the probe of {self.name} gave numbers that are not finite: try precision=fp32, or a lower"
                " guidance_scale"
            )
        return latents

    def _inverted_with(self, cache: EncodingCache) -> Conditioning:
        """The reference's caption, or the negative one in the layout that it has beside the edit's."""
        if self.plan.inverts_caption:
            return cache.conditioning(self.reference.caption)
        negative = cache.conditioning(self.negative)
        return self.job.backbone.guidance_pair(cache.conditioning(self.edit.caption), negative)[0]

    def _grid(self, videos: Mapping[Pair, np.ndarray]) -> np.ndarray:
        """The reference and the control; below them every pair's video, with a row for each start."""
        # White where there is no pair: the interval would end before it starts.
        ends, blank = EDGES[:-1], np.full_like(self.reference.frames, 255)
        top = [self.reference.frames, *(videos[pair] for pair in videos if pair == CONTROL)]
        label = "the reference, and beside it the control, with nothing changed"
        rows = [
            (label if CONTROL in videos else "the reference", top + [blank] * (len(ends) - len(top))),
            *(
                (f"from t = {start}", [videos.get((start, end), blank) for end in ends])
                for start in reversed(EDGES[1:])
            ),
        ]
        return side_by_side(rows, [f"until {end}" for end in ends])

    def score(self, scores: CellScores, fields: Mapping[str, Any]) -> list[Row]:
        """The rows of every pair, of the control, and of the reference itself; the missing ones are measured.

        `fields` are shared by all rows of the cell.
        """
        run_fields = {
            **fields,
            "method": self.method,
            "tau": 1000.0,
            "steps": self.plan.steps,
            "train_steps": 0,
            "seed": 0,
        }

        def rows_of(sample_id: str, start: str, end: str, request: SampleRequest | None) -> list[Row]:
            def read() -> tuple[np.ndarray, dict[str, Any]]:
                frames = self.cell.read_sample(request).frames if request else self.reference.frames
                return frames, {**run_fields, "tau_start": start, "tau_end": end}

            return scores.of_video(self.edit, sample_id, read, values=SCORED)

        rows: list[Row] = []
        for pair, request in self.requests.items():
            start, end = ("none", "none") if pair == CONTROL else (f"{pair[0]}", f"{pair[1]}")
            rows += rows_of(request.sample_id, start, end, request)
        return rows + rows_of(pair_id(self.id, REFERENCE), REFERENCE, REFERENCE, None)


def summary(method: str, rows: Sequence[Row]) -> Table:
    """A table of the means over references and edits, by the timestep from which the condition changes."""
    title = f"{method.replace('_', ' ')} from t to 0, means over references"
    names = [name for name in dict.fromkeys(row.metric for row in rows) if not name.startswith("old_")]
    shown = headings(chosen_metrics(None, "probes"))
    header = ["from t", *(shown[name][0] if name in shown else name.replace("_", " ") for name in names)]
    lines = []
    for start in (*(f"{edge}" for edge in reversed(EDGES)), "none", REFERENCE):
        to_zero = [row for row in rows if row.tau_start == start and row.tau_end in ("0", "none", REFERENCE)]
        if to_zero:
            lines.append([start, *(mean_of(to_zero, name) for name in names)])
    return Grid(header, lines).terminal(title)
