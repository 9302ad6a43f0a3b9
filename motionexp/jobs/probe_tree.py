"""The probes along a tree: invert a reference, change the condition along denoising, score the videos."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console

from motionexp.config.ids import pair_id
from motionexp.config.metrics import chosen_metrics
from motionexp.data.base import Edit, Reference
from motionexp.data.videos import side_by_side, write_mp4, write_png
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.progress import progress_bar
from motionexp.jobs.cell import INVERTED_FILE, SampleRequest
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.evaluation import Sample, peak_memory
from motionexp.jobs.job import Job
from motionexp.jobs.plan import JobPlan, ProbePlan
from motionexp.jobs.probe_figures import show_figures, strip, strip_timesteps
from motionexp.jobs.probe_rows import energy_rows, energy_videos, schedule_rows
from motionexp.jobs.probe_units import Probe, Progress, Unit, Work, counting
from motionexp.jobs.scoring import CellScores
from motionexp.jobs.summary import headings, mean_of, print_paths
from motionexp.jobs.unfinished import Unfinished, invert_or_read
from motionexp.metrics.attribute_readings import AttributeReadings
from motionexp.probes.interventions import CONTROL, partial_guidance, tampering
from motionexp.probes.timesteps import EDGES, Pair
from motionexp.probes.tree import Trajectory, cost, cost_one_by_one, run_tree, step_blocks, step_counts
from motionexp.results.rows import Row
from motionexp.results.terminal import print_grid

SCORED = {"text_alignment", "flow_similarity", "velocity_similarity", *AttributeReadings.values}
"""The values that have rows: of the probes' metrics the main ones, and all readings of attributes."""
REFERENCE = "reference"
ALL_PAIRS = "pairs.mp4"
GRID_TILE_SIDE = 128
"""Pixels of a video's side in the grid of all pairs: its 10 columns fit a screen."""


class TreeProbe(Probe):
    """`tampering` and `partial_guidance`: every reference with each of its edits is a unit of work."""

    scores = True
    headings = ("reference, edit", "videos")

    def __init__(self, plan: JobPlan) -> None:
        super().__init__(plan)
        self.units: list[TreeUnit] = [
            TreeUnit(self.job, self.plan, reference, edit)
            for reference in plan.references
            for edit in reference.edits
        ]

    @property
    def cost(self) -> str:
        """The videos of a unit, and its steps as a tree and pair by pair."""
        trajectories = self.units[0].trajectories
        counts = step_counts(self.job.backbone.schedule, self.plan.steps)
        pairs = [trajectory for pair, trajectory in trajectories.items() if pair != CONTROL]
        tree, alone = cost(trajectories.values(), counts), cost_one_by_one(pairs, counts)
        inverting = self.plan.inversion
        energies = energy_videos(self.job) if self._has_energies else 0
        control = " and for a control, with nothing changed" if CONTROL in trajectories else ""
        once = f"\nonce for the model: {energies} videos to encode, for signal energies" if energies else ""
        return (
            f"each reference with each edit: a video for each of {len(pairs)} pairs of timesteps{control}\n"
            f"steps: {inverting.steps} invert the reference, {tree.steps:,} sample the videos, which share"
            f" their steps until they differ; sampled one by one, the pairs would take {alone.steps:,}{once}"
        )

    @property
    def _has_energies(self) -> bool:
        return self.job.references[0].suite == "shapes"

    def model_rows(self, job: Job) -> list[Row]:
        """See `Probe.model_rows`."""
        rows = schedule_rows(job, self.plan.steps)
        return rows + (energy_rows(job) if self._has_energies else [])

    def rows(self, job: Job) -> list[Row]:
        """See `Probe.rows`; the missing ones are measured."""
        rows: list[Row] = []
        total = sum(len(unit.requests) + 1 for unit in self.units)
        with (
            job.at_work(job.probe_scorer) as scorer,
            progress_bar(total, "score", "video") as bar,
        ):
            for unit in self.units:
                with job.locked(unit.cell):
                    scores = CellScores(unit.cell, unit.reference, scorer)
                    fields = job.row_fields(unit.cell, unit.reference)
                    rows += unit.score(scores, fields, bar.update)
        return rows

    def show(self, job: Job, rows: Sequence[Row], model_rows: Sequence[Row]) -> None:
        """See `Probe.show`."""
        methods = list(dict.fromkeys(unit.method for unit in self.units))
        for method in methods:
            print_means(job.console, method, [row for row in rows if row.method == method])
        show_figures(job, self.plan.kind, self.figures / "_".join(methods), methods, [*rows, *model_rows])
        paths = [unit.cell.folder / ALL_PAIRS for unit in self.units]
        print_paths(job.console, "all pairs side by side", paths)


class TreeUnit(Unit):
    """The probe of one reference with one edit.

    Attributes:
        method: the probe's name in rows.
        negative: the negative prompt.
        requests: {(start, end) of the timesteps whose condition changes: its video}.
    """

    def __init__(self, job: JobPlan, plan: ProbePlan, reference: Reference, edit: Edit) -> None:
        self.job, self.plan, self.reference, self.edit = job, plan, reference, edit
        self.cell = plan.cell(reference.suite, edit.caption, reference.content_hash)
        self.captions = (edit.caption, reference.caption, job.sampling.negative_prompt)
        self.name = f"{reference.name}, {edit.kind}"
        self.id = self.cell.folder.name  # a `probe_id`
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
    def stored(self) -> tuple[int, int]:
        """See `Unit.stored`."""
        return len(self.requests) - len(self.missing), len(self.requests)

    @property
    def work(self) -> Work:
        """See `Unit.work`. A tree runs as a whole: one missing video costs as much as all."""
        tree = cost(self.trajectories.values(), step_counts(self.job.backbone.schedule, self.plan.steps))
        inverting = self.plan.inversion
        evaluations = inverting.evaluations + tree.evaluations
        return Work(inverting.steps + tree.steps, evaluations, 1, len(self.requests))

    def references(self) -> list[Reference]:
        """See `Unit.references`."""
        return [self.reference]

    def run(self, job: Job, progress: Progress) -> None:
        """Invert, run the tree and decode. Stores every pair's video, one grid of them, and the strip."""
        start = perf_counter()
        backbone, cache, unfinished = self.job.backbone, job.cache, Unfinished(self.cell, self.job.device)
        inverted_with = self._inverted_with(cache)
        # A block's trajectories start from the inverted latents at its first, noisiest timestep.
        blocks = step_blocks(backbone.schedule, self.plan.steps)
        starts = {edge: block[0][0] for edge, block in zip(EDGES[1:], blocks, strict=True)}
        shown = strip_timesteps(backbone.schedule.timesteps(self.plan.steps))
        inverted = invert_or_read(
            unfinished,
            backbone,
            cache.latents(self.reference),
            inverted_with,
            cache.of_reference(self.reference, self.negative),
            self.plan.inversion,
            {*starts.values(), *shown},
            progress,
        )
        latents = self._run_tree(
            {edge: inverted[t] for edge, t in starts.items()}, cache, unfinished, progress
        )  # (1, C, F, h, w) of every pair
        frames = [backbone.decode(video[None])[0].numpy() for video in latents]
        seconds, memory = (perf_counter() - start) / len(frames), peak_memory(backbone.device)
        videos = dict(zip(self.trajectories, frames, strict=True))
        write_mp4(self.cell.folder / ALL_PAIRS, self._grid(videos), backbone.fps)
        caption = self.reference.caption if "caption" in self.plan.prompts else self.negative
        prompt = f'"{caption}"' if caption else "the empty prompt"
        write_png(self.cell.folder / INVERTED_FILE, strip(backbone, inverted, inverted_with, prompt))

        def save(pair: Pair) -> None:
            sample = Sample(self.edit, 0, videos[pair], 0, seconds, memory)
            self.cell.save_sample(self.requests[pair], sample, backbone.fps, job.plan.exact_frames)

        # Encoders of video and pictures leave the interpreter to other threads.
        with ThreadPoolExecutor() as pool:
            list(pool.map(save, self.missing))
        unfinished.remove()

    def _run_tree(
        self,
        starts: Mapping[int, torch.Tensor],
        cache: EncodingCache,
        unfinished: Unfinished,
        progress: Progress,
    ) -> list[torch.Tensor]:
        """(C, F, h, w) latents of every trajectory, from those (1, C, F, h, w) at their starts."""
        latents = run_tree(
            self.job.backbone,
            list(self.trajectories.values()),
            starts,
            self.plan.steps,
            embed=partial(cache.of_reference, self.reference),
            negative=cache.of_reference(self.reference, self.negative),
            rows=2 * self.job.at_once,  # with and without the caption
            progress=counting(progress),
            finished=unfinished.blocks(),
            on_block=unfinished.add_block,
        )
        if not all(torch.isfinite(video).all() for video in latents):
            unfinished.remove()
            raise FloatingPointError(
                f"the probe of {self.name} gave numbers that are not finite: try precision=fp32, or a lower"
                " guidance_scale"
            )
        return latents

    def _inverted_with(self, cache: EncodingCache) -> Conditioning:
        """The reference's caption, or the negative one in the layout that it has beside the edit's."""
        if "caption" in self.plan.prompts:
            return cache.of_reference(self.reference)
        edited, negative = (
            cache.of_reference(self.reference, text) for text in (self.edit.caption, self.negative)
        )
        return self.job.backbone.guidance_pair(edited, negative)[0]

    def _grid(self, videos: Mapping[Pair, np.ndarray]) -> np.ndarray:
        """The reference and the control; below them every pair's video, with a row for each start."""
        # White where there is no pair: the interval would end before it starts.
        ends, blank = EDGES[-2::-1], np.full_like(self.reference.frames, 255)
        top = [self.reference.frames, *(videos[pair] for pair in videos if pair == CONTROL)]
        label = "the reference, and beside it the control, with nothing changed"
        rows = [
            (label if CONTROL in videos else "the reference", top + [blank] * (len(ends) - len(top))),
            *(
                (f"from t = {start}", [videos.get((start, end), blank) for end in ends])
                for start in reversed(EDGES[1:])
            ),
        ]
        return side_by_side(rows, [f"until {end}" for end in ends], GRID_TILE_SIDE)

    def score(self, scores: CellScores, fields: Mapping[str, Any], progress: Progress) -> list[Row]:
        """The rows of every pair, of the control, and of the reference itself; the missing ones are measured.

        `fields` are shared by all rows of the cell, `progress` counts videos.
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

            rows = scores.of_video(self.edit, sample_id, read, values=SCORED)
            progress(1)
            return rows

        rows: list[Row] = []
        for pair, request in self.requests.items():
            start, end = ("none", "none") if pair == CONTROL else (f"{pair[0]}", f"{pair[1]}")
            rows += rows_of(request.sample_id, start, end, request)
        return rows + rows_of(pair_id(self.id, REFERENCE), REFERENCE, REFERENCE, None)


def print_means(console: Console, method: str, rows: Sequence[Row]) -> None:
    """Print the means over references and edits, by the timestep from which the condition changes.

    A metric that has a value of no sample has no column.
    """
    names = [name for name in dict.fromkeys(row.metric for row in rows) if not name.startswith("old_")]
    measured = {row.metric for row in rows if row.tau_start != REFERENCE and not math.isnan(row.value)}
    shown = headings(chosen_metrics(None, "probes"))
    heads = {name: shown[name][0] if name in shown else name.replace("_", " ") for name in names}
    columns = [name for name in names if name in measured]
    lines = []
    for start in (*(f"{edge}" for edge in reversed(EDGES)), "none", REFERENCE):
        to_zero = [row for row in rows if row.tau_start == start and row.tau_end in ("0", "none", REFERENCE)]
        if to_zero:
            lines.append([start, *(mean_of(to_zero, name) for name in columns)])
    title = f"{method.replace('_', ' ')} from t to 0, means over references"
    print_grid(console, ["from t", *map(heads.__getitem__, columns)], lines, title=title)
    if absent := [heads[name] for name in names if name not in measured]:
        console.print(f"no value at any t: {', '.join(absent)}", markup=False, highlight=False)
