"""A probe's job: invert each reference, change the condition along denoising, score what came out."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.config.ids import pair_id, probe_id
from motionexp.config.metrics import chosen_metrics
from motionexp.config.schema import JobConfig, inversion_prompt
from motionexp.data.base import Edit, Reference
from motionexp.data.videos import side_by_side, write_mp4, write_png
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.jobs import inputs
from motionexp.jobs.cell import Cell
from motionexp.jobs.evaluation import Sample, peak_memory
from motionexp.jobs.job import Job
from motionexp.jobs.probe_figures import show_figures, strip
from motionexp.jobs.probe_rows import energy_rows, schedule_rows
from motionexp.jobs.run import clear_disk_errors, duration
from motionexp.jobs.scoring import rows_of
from motionexp.jobs.summary import headings, print_paths
from motionexp.metrics.scorer import Scorer
from motionexp.probes.interventions import CONTROL, partial_guidance, tampering
from motionexp.probes.timesteps import EDGES, Pair
from motionexp.probes.tree import Trajectory, cost, cost_one_by_one, run_tree, step_blocks, step_counts
from motionexp.results.rows import Row, score_id_of

KEPT = {"text_alignment", "flow_similarity", "velocity_similarity"}
"""Values that are kept of metrics that have more; of the attributes' readings all are."""
REFERENCE = "reference"
ALL_PAIRS = "pairs.mp4"


def probe(cfg: JobConfig) -> list[Row]:
    """Run a probe on each of the job's references and edits, and draw its figures; what is there is kept.

    Args:
        cfg: checked settings with `probe`.

    Returns:
        The rows of all pairs, those of earlier runs included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; what is done is kept.
    """
    console = Console()
    rows: list[Row] = []
    with clear_disk_errors(cfg):
        job = Job(cfg, console)
        units = units_of(job)
        counts = step_counts(job.backbone.schedule, cfg.probe_steps)
        console.print(cost_in_words(units[0].trajectories, counts), highlight=False, soft_wrap=True)
        beside = schedule_rows(job, cfg.probe_steps)
        if job.references[0].suite == "shapes":
            beside += energy_rows(job)
        job.check_scoring()
        missing = [unit for unit in units if not unit.finished]
        captions = [caption for unit in missing for caption in (unit.edit.caption, unit.reference.caption)]
        job.cache.fill([unit.reference for unit in missing], [*captions, cfg.negative_prompt])
        start = perf_counter()
        for done, unit in enumerate(missing):
            left = (perf_counter() - start) / done * (len(missing) - done) if done else None
            hint = "" if left is None else f", about {duration(left)} left"
            console.print(f"{unit.name} ({done + 1} of {len(missing)}{hint})", markup=False, highlight=False)
            unit.generate()
        with job.at_work(job.probe_scorer):
            for unit in tqdm(units, desc="score", unit="probe", leave=False):
                rows += unit.score()
        methods = list(dict.fromkeys(unit.method for unit in units))
        for method in methods:
            console.print(summary(method, [row for row in rows if row.method == method]))
        show_figures(job, methods, [*rows, *beside])
    print_paths(console, "all pairs side by side", [unit.cell.folder / ALL_PAIRS for unit in units])
    return rows


def units_of(job: Job) -> list["Unit"]:
    """One for each of the job's references and edits."""
    return [Unit(job, reference, edit) for reference in job.references for edit in reference.edits]


def cost_in_words(trajectories: Mapping[Pair, Trajectory], counts: Sequence[int]) -> str:
    """What a probe costs as a tree and one pair after the other, in steps and network evaluations.

    `counts` are the steps of each block, as `step_counts` gives them.
    """
    pairs = [trajectory for pair, trajectory in trajectories.items() if pair != CONTROL]
    tree, alone = cost(trajectories.values(), counts), cost_one_by_one(pairs, counts)
    return (
        f"{len(pairs)} pairs: {tree.steps:,} steps ({tree.evaluations:,} network evaluations) as a tree,"
        f" in place of {alone.steps:,} ({alone.evaluations:,}) one by one; for each reference and edit"
    )


class Unit:
    """The probe of one reference with one edit, in a cell of its own."""

    def __init__(self, job: Job, reference: Reference, edit: Edit) -> None:
        self.job, self.reference, self.edit = job, reference, edit
        cfg = job.cfg
        self.name = f"{reference.name}, {edit.kind}"
        self.id = probe_id(
            cfg,
            caption=edit.caption,
            weights_hash=job.backbone.weights_hash,
            precision=job.precision,
            reference_hash=reference.content_hash,
        )
        self.cell = Cell(job.output / reference.suite / cfg.model.name / self.id)

    @cached_property
    def trajectories(self) -> dict[Pair, Trajectory]:
        """Of every pair, and of the control where the probe has one."""
        scale = self.job.cfg.guidance_scale
        if self.job.cfg.probe == "tampering":
            return tampering(self.reference.caption, self.edit.caption, scale)
        return partial_guidance(self.edit.caption, scale)

    @property
    def method(self) -> str:
        """Tampering with the motion's words alone has a name of its own."""
        assert self.job.cfg.probe is not None
        return f"motion_{self.job.cfg.probe}" if self.edit.kind == "motion" else self.job.cfg.probe

    def sample_id(self, pair: Pair) -> str:
        return pair_id(self.id, f"{pair[0]} {pair[1]}")

    @property
    def missing(self) -> list[Pair]:
        """The pairs whose videos are not there yet."""
        return [
            pair for pair in self.trajectories if not self.cell.has_sample(self.edit, 0, self.sample_id(pair))
        ]

    @property
    def finished(self) -> bool:
        """Whether every pair's video is there."""
        return not self.missing

    def generate(self) -> None:
        """Invert, run the tree, decode; keep every pair's video, one that shows them all, and the strip."""
        about = {"reference": self.reference.name, "probe": self.method, "edit": self.edit.caption}
        waiting = f"another process works on {self.cell.folder}: waiting for it"
        with self.cell.running(about, lambda: self.job.console.print(waiting, markup=False)):
            self.cell.write_config(OmegaConf.to_yaml(OmegaConf.structured(self.job.cfg)))
            start = perf_counter()
            backbone = self.job.backbone
            inverted = self._invert()
            latents = self._run(inverted)
            frames = [backbone.decode(each[None])[0].numpy() for each in latents]
            seconds, memory = (perf_counter() - start) / len(frames), peak_memory(backbone.device)
            videos = dict(zip(self.trajectories, frames, strict=True))
            write_mp4(self.cell.folder / ALL_PAIRS, self._grid(videos), backbone.fps)
            write_png(self.cell.folder / "inverted.png", self._strip(inverted))
            for pair, video in videos.items():
                sample = Sample(self.edit, 0, video, 0, seconds, memory)
                self.cell.keep_sample(sample, self.sample_id(pair), backbone.fps)

    def _invert(self) -> dict[float, torch.Tensor]:
        job, cfg = self.job, self.job.cfg
        with tqdm(total=0, desc="invert", unit="step", leave=False) as bar:
            return invert(
                job.backbone,
                job.cache.latents(self.reference),
                self._inverted_with(),
                job.cache.conditioning(cfg.negative_prompt),
                SamplerSettings(cfg.probe_steps, cfg.inversion_guidance_scale),
                progress=_moving(bar),
            )

    def _run(self, inverted: Mapping[float, torch.Tensor]) -> list[torch.Tensor]:
        job, cfg = self.job, self.job.cfg
        blocks = step_blocks(job.backbone.schedule, cfg.probe_steps)
        starts = {edge: inverted[block[0][0]] for edge, block in zip(EDGES[1:], blocks, strict=True)}
        with tqdm(total=0, desc="probe", unit="step", leave=False) as bar:
            latents = run_tree(
                job.backbone,
                list(self.trajectories.values()),
                starts,
                cfg.probe_steps,
                embed=job.cache.conditioning,
                negative=job.cache.conditioning(cfg.negative_prompt),
                memory=inputs.sampling_memory(cfg, job.device),
                progress=_moving(bar),
            )
        if not all(torch.isfinite(each).all() for each in latents):
            raise FloatingPointError(
                f"the probe of {self.name} gave numbers that are not finite: try precision=fp32, or a lower"
                " guidance_scale"
            )
        return latents

    def _inverted_with(self) -> Conditioning:
        """The reference's caption, or the negative one as it is laid out beside the edit's."""
        cache = self.job.cache
        if inversion_prompt(self.job.cfg) == "caption":
            return cache.conditioning(self.reference.caption)
        negative = cache.conditioning(self.job.cfg.negative_prompt)
        return self.job.backbone.guidance_pair(cache.conditioning(self.edit.caption), negative)[0]

    def _strip(self, inverted: Mapping[float, torch.Tensor]) -> np.ndarray:
        with_caption = inversion_prompt(self.job.cfg) == "caption"
        caption = self.reference.caption if with_caption else self.job.cfg.negative_prompt
        prompt = f'"{caption}"' if caption else "the empty prompt"
        return strip(self.job.backbone, inverted, self._inverted_with(), prompt)

    def _grid(self, videos: Mapping[Pair, np.ndarray]) -> np.ndarray:
        """The reference and the control; below every pair's video, a row for each start."""
        ends, nothing = EDGES[:-1], np.full_like(self._reference_frames, 255)
        own = [self._reference_frames, *(videos[pair] for pair in videos if pair == CONTROL)]
        label = "the reference, and beside it the control, with nothing changed"
        rows = [
            (label if CONTROL in videos else "the reference", own + [nothing] * (len(ends) - len(own))),
            *(
                (f"from t = {start}", [videos.get((start, end), nothing) for end in ends])
                for start in reversed(EDGES[1:])
            ),
        ]
        return side_by_side(rows, [f"until {end}" for end in ends])

    @property
    def _reference_frames(self) -> np.ndarray:
        return self.reference.frames

    def score(self) -> list[Row]:
        """Rows of every pair, of the control and of the reference itself; what is scored is read back."""
        known = {row.score_id: row for row in self.cell.rows()}
        rows: list[Row] = []
        for sample, (start, end) in self._scored().items():
            ids = self._score_ids(sample)
            if not set(ids.values()) <= known.keys():
                own = start == REFERENCE
                frames = self._reference_frames if own else self.cell.read_sample(self.edit, 0, sample)[0]
                fields = {**self._common, "sample_id": sample, "tau_start": start, "tau_end": end}
                scores = self.scorer.score(frames, self.reference, self.edit)
                new = [
                    row
                    for name, values in scores.items()
                    for row in rows_of(self.scorer, name, {k: values[k] for k in values if k in ids}, fields)
                ]
                self.cell.add_rows(new)
                known |= {row.score_id: row for row in new}
            rows += [known[each] for each in ids.values()]
        return rows

    def _scored(self) -> dict[str, tuple[str, str]]:
        """{sample id: start and end as rows have them} of all that is scored."""
        named = {
            self.sample_id(pair): ("none", "none") if pair == CONTROL else (f"{pair[0]}", f"{pair[1]}")
            for pair in self.trajectories
        }
        return named | {pair_id(self.id, REFERENCE): (REFERENCE, REFERENCE)}

    @property
    def scorer(self) -> Scorer:
        return self.job.probe_scorer

    def _score_ids(self, sample: str) -> dict[str, str]:
        """{value: score id} of every row that a video should have."""
        return {
            value: score_id_of(sample, value, metric.version, self.scorer.model_of(name))
            for name in self.scorer.applicable(self.reference, self.edit)
            for metric in [self.scorer.metrics[name]]
            for value in metric.values
            if value in KEPT or name == "attribute_readings"
        }

    @cached_property
    def _common(self) -> dict[str, Any]:
        """The fields that all rows of the unit share."""
        fields = self.job.common(self.cell, self.reference)
        own = {"method": self.method, "tau": 1000.0, "steps": self.job.cfg.probe_steps, "train_steps": 0}
        edit = {"edit_kind": self.edit.kind, "edit_caption": self.edit.caption, "seed": 0}
        return {**fields, **own, **edit}


def _moving(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move


def summary(method: str, rows: Sequence[Row]) -> Table:
    """Means over references and edits of what changing the condition below each timestep does."""
    title = f"{method.replace('_', ' ')} from t to 0, means over references"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title)
    names = [name for name in dict.fromkeys(row.metric for row in rows) if not name.startswith("old_")]
    table.add_column("from t")
    shown = headings(chosen_metrics(None, "probes"))
    for name in names:
        heading = shown[name][0] if name in shown else name.replace("_", " ")
        table.add_column(heading, justify="right")
    for start in (*(f"{edge}" for edge in reversed(EDGES)), "none", REFERENCE):
        own = [row for row in rows if row.tau_start == start and row.tau_end in ("0", "none", REFERENCE)]
        if own:
            table.add_row(start, *(_mean(own, name) for name in names))
    return table


def _mean(rows: Sequence[Row], metric: str) -> str:
    values = [row.value for row in rows if row.metric == metric and not math.isnan(row.value)]
    return f"{np.mean(values):z.2f}" if values else "–"
