"""The backbone, encodings and metrics that a job's cells share, and how a cell is fit, sampled and scored."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_object
from rich.console import Console

from motionexp.backbones.memory import give_memory_back
from motionexp.config.ids import FIT_VERSION
from motionexp.config.schema import JobConfig
from motionexp.config.scoring_models import ScoringModels, scoring_models
from motionexp.data.base import Reference
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.progress import step_bar
from motionexp.jobs import provenance
from motionexp.jobs.cell import FIT_FILE, Cell, Samples, read_fit_record, write_grid, write_json
from motionexp.jobs.checks import is_planned_first
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.evaluation import peak_memory, sample
from motionexp.jobs.guidance import guidance_of
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.inverted import inverted_reference
from motionexp.jobs.kept import kept
from motionexp.jobs.logged import Logged
from motionexp.jobs.loggers import JobLogs
from motionexp.jobs.machine import clear_memory_errors, smaller
from motionexp.jobs.plan import CellPlan
from motionexp.jobs.progress_file import ProgressFile
from motionexp.jobs.rank_work import Order, order_of
from motionexp.jobs.ranks import clear_rank_errors
from motionexp.jobs.references import chance_references
from motionexp.jobs.sanity_baselines import baseline_cell, baseline_rows
from motionexp.jobs.scoring import are_bundled_and_enough, score_cell
from motionexp.jobs.together import fit_together, hold_others
from motionexp.methods.adapters import Recipe, attach_adapter, save_adapter
from motionexp.methods.base import TuningMethod
from motionexp.methods.guidance import GuidanceMethod
from motionexp.methods.training import Example, FitResult, fit
from motionexp.results.rows import Row

if TYPE_CHECKING:
    from motionexp.metrics.scorer import Scorer


def encode(backbone: Backbone, reference: Reference) -> Example:
    """A reference's latents and its embedded caption, as training takes them."""
    latents = backbone.encode(torch.from_numpy(reference.frames.copy())[None])
    caption = backbone.condition(reference.caption, reference.frames[0] if backbone.takes_image else None)
    return Example(latents, caption, reference.content_hash)


class Job:
    """A job's plan, with one backbone, one cache of encodings and one scorer for all its cells.

    Args:
        cfg: checked settings.
        console: gets messages to the user.
        references: of the job, where they have been read already.

    Raises:
        InputError: as `plan_job`, before weights are loaded.
    """

    def __init__(self, cfg: JobConfig, console: Console, references: list[Reference] | None = None) -> None:
        # What is wrong with a job is said before anything is fetched.
        if is_planned_first(cfg.model, cfg.dry_run):
            plan_job(replace(cfg, dry_run=True), references)
        plan = plan_job(cfg, references)
        self.console, self.plan, self.advice = console, plan, smaller(cfg)
        self.output, self.references, self.window = plan.output, plan.references, plan.window
        self.device, self.precision, self.backbone = plan.device, plan.precision, plan.backbone
        self.cache = EncodingCache(self.output / ".cache", self.backbone, plan.encoded_in)
        self.logs = JobLogs(plan.logged.loggers, plan.logged.log_adapter, plan.output)
        self.progress: ProgressFile | None = None  # of the cell that rank 0 works on
        self.is_of_base_model = False
        self._scored: Samples | None = None  # of the last cell: its grid shows some of them again

    # Scoring

    @cached_property
    def scorer(self) -> "Scorer":
        """The metrics of the job and their models, which stay in main memory; see `at_work`."""
        from motionexp.metrics.scorer import Scorer  # which imports transformers and takes seconds

        plan, models, folder = self.plan, self._scoring_models, self.output / ".cache" / "features"
        unrelated = chance_references(plan.metrics, plan.scoring, plan.reader, plan.size, plan.references)
        videos = [(video.suite, video.name, video.content_hash) for video in unrelated]
        settings = plan.metrics, models, videos, folder
        make = partial(Scorer, plan.metrics, models, chance_references=unrelated, folder=folder)
        return kept("scorer", settings, make)

    @cached_property
    def probe_scorer(self) -> "Scorer":
        """The metrics of probes, which `metrics=` does not choose."""
        from motionexp.metrics.scorer import Scorer

        return Scorer(None, self._scoring_models, use="probes")

    @property
    def _scoring_models(self) -> ScoringModels:
        return scoring_models(self.plan.scoring, self.plan.model.closed_vocabulary)

    def check_scoring(self) -> None:
        """Load the models behind the metrics, and embed the captions they read, before the network is loaded.

        Raises:
            InputError: a model cannot be loaded, or a caption is too long for one.
        """
        if are_bundled_and_enough(self.plan.metrics, self._scoring_models, self.references):
            return  # they are loaded when the first video is scored, and not before the training
        scorer = self.scorer if self.plan.probe is None else self.probe_scorer
        for reference in self.references:
            scorer.check_captions(reference, reference.edits)

    @contextmanager
    def at_work(self, scorer: "Scorer") -> Iterator["Scorer"]:
        """Move the scorer to the job's device, and back afterwards, which frees memory for the network."""
        scorer.to(self.device)
        try:
            yield scorer
        finally:
            scorer.to(torch.device("cpu"))
            give_memory_back()

    # Cells

    def of_base_model(self) -> "Job | None":
        """The job of the base model on the same references, with this job's backbone and scorer."""
        if self.plan.base is None:
            return None
        if ranks.is_first():
            _ = self.scorer  # the copy shares what is made before it
        job = copy(self)
        job.plan, job.window, job.is_of_base_model = self.plan.base, self.plan.base.window, True
        return job

    def with_settings(self, cfg: JobConfig) -> "Job":
        """The job with other sizes of batches on the same references, with this job's backbone and scorer."""
        _ = self.scorer
        job, plan = copy(self), plan_job(cfg, self.references)
        base = None if plan.base is None else replace(plan.base, backbone=self.backbone)
        job.plan, job.advice = replace(plan, backbone=self.backbone, base=base), smaller(cfg)
        return job

    def after_failure(self) -> None:
        """Free what the failed cell left in memory."""
        self._scored = None
        give_memory_back()

    def encode(self) -> None:
        """Encode all captions and videos of unfinished cells, then free the encoders."""
        # Captions and videos of finished cells are not encoded: only their stored results are read.
        unfinished = [plan for plan in self.plan.cells if not plan.is_finished]
        of_base = [plan for plan in self.plan.base.cells if not plan.is_finished] if self.plan.base else []
        trained = [member for plan in unfinished for member in self.plan.group_of(plan)]
        videos = list({video.content_hash: video for plan in trained for video in plan.trained_on}.values())
        captions = [edit.caption for plan in unfinished + of_base for edit in plan.reference.edits]
        captions += [*(video.caption for video in videos), *self.plan.captions_of_sampling]
        videos = videos if self.plan.reads_references else []
        images = [image for plan in unfinished + of_base for image in plan.images]
        self.cache.fill(videos, captions if unfinished + of_base else [], images)

    def run_cell(self, plan: CellPlan) -> list[Row]:
        """Train, sample and score what is missing in one cell, and return the rows of all its samples."""
        cell, reference = plan.cell, plan.reference
        about = {"reference": reference.name, "tau": self.window.low, "adapter_id": cell.folder.name}
        with self.holding(cell, about), closing(ProgressFile(cell.folder)) as self.progress:
            # Read under the lock: another process may have finished the cell while this one waited.
            if not plan.is_finished:
                self.generate(ranks.of_first(order_of(self, self.plan.cells.index(plan))))
            self._scored = Samples(cell)
            with self.at_work(self.scorer) as scorer:
                fields = self.row_fields(cell, reference)
                scoring = partial(self.progress.step, "score")
                return score_cell(self._scored, reference, plan.requests, scorer, fields, scoring)

    @contextmanager
    def holding(self, cell: Cell, about: dict[str, Any]) -> Iterator[None]:
        """Lock a cell and store the job's settings in it; see `Cell.running`."""
        with (
            cell.running(about, self._waits_for(cell)),
            clear_memory_errors(self.advice),
            clear_rank_errors(),
        ):
            cell.write_config(self.plan.config)
            yield

    def locked(self, cell: Cell) -> AbstractContextManager[None]:
        """Lock a cell of measurements, which several jobs share; see `Cell.locked`."""
        return cell.locked(self._waits_for(cell))

    def _waits_for(self, cell: Cell) -> Callable[[], None]:
        waiting = f"another process works on {cell.folder}: waiting for it"
        return lambda: self.console.print(waiting, markup=False, soft_wrap=True)

    def sanity_baselines(self, plan: CellPlan) -> list[Row]:
        """The rows of a reference's sanity baselines, if `scoring=` asks for them."""
        if not self.plan.scoring.sanity_baselines:
            return []
        reference = plan.reference
        cell = self.baseline_cell(plan)
        with self.at_work(self.scorer) as scorer:
            fields = self.row_fields(cell, reference)
            return baseline_rows(cell, reference, scorer, fields, self._waits_for(cell))

    def baseline_cell(self, plan: CellPlan) -> Cell:
        """The folder of a reference's sanity baselines."""
        return baseline_cell(self.plan.folder(plan.reference.suite), plan.reference)

    def grid_path(self, plan: CellPlan) -> Path:
        """Where a cell's video beside other cells is written."""
        return plan.cell.folder.parent / "grids" / f"{plan.grid_name}.mp4"

    def write_grid(self, plan: CellPlan) -> list[Path]:
        """Write a video of the cell beside the base model and other cells; returns its path if written."""
        columns = [
            (label, self._scored if self._scored and self._scored.cell == shown else Samples(shown), requests)
            for label, shown, requests in plan.columns
        ]
        path = self.grid_path(plan)
        return [path] if write_grid(path, plan.reference, columns) else []

    # Sampling

    def generate(self, order: Order) -> None:
        """Train the cell's adapter if it is missing, and sample the missing requests with it.

        All ranks call it with the order of rank 0, which alone writes.
        """
        # 1. Attach the method, trained now if its adapter is not stored.
        plan, missing = self.plan.cells[order.cell], order.missing
        method = self._method(plan, order.has_adapter)
        # 2. Sample. A sample is stored as soon as its batch is decoded, so that an interrupt loses one batch.
        #    A batch that lacks a sample is denoised as a whole: its members change the last bits.
        batches = [batch for batch in plan.batches if any(request.sample_id in missing for request in batch)]
        requests = [request for batch in batches for request in batch]
        try:
            note = partial(self.progress.step, "sample") if self.progress is not None else None
            with step_bar("sample", note, shown=ranks.is_first()) as progress:
                samples = sample(
                    self.backbone,
                    method,
                    [request.edit for request in requests],
                    self.plan.sampling,
                    indices=[request.index for request in requests],
                    at_once=self.plan.at_once,
                    embed=self.cache.conditioning,
                    inverted=inverted_reference(self, plan, method),
                    progress=progress,
                )
                for request, video in zip(requests if ranks.is_first() else [], samples, strict=True):
                    if request.sample_id in missing:
                        plan.cell.save_sample(request, video, self.backbone.fps, self.plan.exact_frames)
        finally:
            # 3. The backbone is shared: the next cell starts from the base model.
            if method is not None:
                method.remove()

    def _method(self, plan: CellPlan, has_adapter: bool) -> TuningMethod | GuidanceMethod | None:
        """The method to sample with, attached: stored or trained now; None for the base model."""
        if self.plan.guidance is not None:
            return guidance_of(self, plan.reference)
        # In this order: a stored adapter that the user names, none, this cell's own, a new one.
        if self.plan.adapter is not None:
            method = attach_adapter(self.plan.adapter, self.backbone, self.window, self.plan.plugins)
        elif not self.plan.trains:
            return None
        elif has_adapter:
            method = attach_adapter(plan.cell.adapter, self.backbone, plugins=self.plan.plugins)
        elif len(group := self.plan.group_of(plan)) > 1:
            with ExitStack() as locks:
                if ranks.is_first():
                    hold_others(self, group, plan, locks)
                fit_together(self, group)
            ranks.of_first(None)  # which has written the adapters
            method = attach_adapter(plan.cell.adapter, self.backbone, plugins=self.plan.plugins)
        else:
            settings = dict(self.plan.tuning)
            method = get_object(settings.pop("_target_"))(self.backbone, self.window, **settings)
            try:
                self._fit(plan, method)
            # An interrupt too: the next cell needs a network without a method.
            except BaseException:
                method.remove()
                raise
        # Training used `window`; while sampling the method may act at other timesteps.
        method.window = self.plan.sampling_window
        return method

    # Training

    def example(self, video: Reference) -> Example:
        """A video as training takes it, from the cache."""
        return Example(self.cache.latents(video), self.cache.of_reference(video), video.content_hash)

    def _fit(self, plan: CellPlan, method: TuningMethod) -> None:
        """Train the cell's adapter and save it, and on the way those of `keep_steps`."""
        examples = [self.example(video) for video in plan.trained_on]
        note = None
        if self.progress is not None:
            logged = Logged(self.plan.logged, plan.reference, plan.cell, plan.training_seed)
            note = self.progress.fitting(self.plan.training.steps, self.logs.training(logged))
        result = fit(
            self.backbone,
            method,
            examples,
            replace(self.plan.training, seed=plan.training_seed),
            plan.cell.adapter,
            on_step=note,
            on_preview=lambda step: self._preview(plan, method, step),
            on_keep=lambda result: self.keep_adapter(plan, method, result),
        )
        if not ranks.is_first():
            return
        self.keep_adapter(plan, method, result)
        # The checkpoint holds the optimizer's state, which nobody needs once the adapter is stored.
        if result.checkpoint is not None:
            result.checkpoint.unlink()

    def keep_adapter(self, plan: CellPlan, method: TuningMethod, result: FitResult) -> None:
        """Save the adapter and the record of its training in the cell of its number of steps."""
        # The recipe travels with the adapter; the record stays in the cell.
        training, reference, origin = self.plan.training, plan.reference, self.origin()
        steps = len(result.losses)
        adapter = plan.adapters[steps].adapter
        recipe = Recipe(
            captions=[video.caption for video in plan.trained_on],
            seed=plan.training_seed,
            steps=steps,
            batch_size=training.draws * ranks.size(),
            learning_rate=training.optimizer.learning_rate,
            weight_decay=training.optimizer.weight_decay,
            optimizer=training.optimizer.name,
            packages=origin["packages"],
        )
        record = {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "steps": steps,
            "seed": plan.training_seed,
            "version": FIT_VERSION,
            "trained": result.trained,
            "seconds": round(result.seconds, 3),
            "resumed_from": result.resumed_from,
            "peak_memory": peak_memory(self.device),
            "device": origin["device"],
            "losses": [float(f"{loss:.6g}") for loss in result.losses],  # of some methods they are tiny
        }
        # The adapter's file comes last: it marks the training as done and its record as complete.
        adapter.mkdir(parents=True, exist_ok=True)
        write_json(adapter / FIT_FILE, record)
        save_adapter(adapter, self.backbone, method, recipe)

    def _preview(self, plan: CellPlan, method: TuningMethod, step: int) -> None:
        """Save a sample of the adapter after `step` training steps."""
        edits, inverted = plan.reference.edits[:1], inverted_reference(self, plan, method)
        about = self.backbone, method, edits, self.plan.sampling
        for video in sample(*about, embed=self.cache.conditioning, inverted=inverted):
            plan.cell.save_preview(video, step, self.backbone.fps)

    def row_fields(self, cell: Cell, reference: Reference) -> dict[str, Any]:
        """The fields that all rows of a cell share."""
        plan, record = self.plan, read_fit_record(self.plan.adapter or cell.adapter)
        guided_by = None if plan.guidance is None else plan.tuning
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "strata": dict(reference.strata),
            "adapter_id": cell.folder.name,
            "training_seed": record.get("seed"),
            "versions": provenance.versions(record, probes=plan.probe is not None, guided_by=guided_by),
            "method": plan.method,
            "tau": float(self.window.low),
            **plan.adapter_steps.fields,
            "train_steps": int(record.get("steps", 0)),
            "adapter_scale": float(plan.sampling.adapter_scale),
            "seconds": {"fit": float(record.get("seconds", 0.0))},
            "settings": dict(plan.row_settings),
            **self.origin(),
        }

    def origin(self) -> dict[str, Any]:
        """The fields of a row that describe the model, and the code and machine that made the row."""
        return {
            "model": self.plan.model.name,
            "precision": self.precision,
            "weights_hash": self.backbone.weights_hash,
            **provenance.origin(self.device),
        }
