"""Running a job: what is there is kept, what is missing is made, from the training down to the rows."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from rich.console import Console
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.backbones.base import Backbone
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision
from motionexp.config import InputError, JobConfig, adapter_id, sample_id
from motionexp.data.base import Edit, Reference
from motionexp.evaluation import PROBE_METRICS, Scorer, check_metrics, peak_memory, sample
from motionexp.jobs import inputs, provenance
from motionexp.jobs.cache import EncodingCache
from motionexp.jobs.cell import FIT_FILE, Cell, write_json
from motionexp.jobs.scoring import Wanted, score_cell
from motionexp.jobs.showing import print_summary, write_grid
from motionexp.methods.adapter_file import Recipe, check_adapter, load_adapter, save_adapter
from motionexp.methods.base import TuningMethod
from motionexp.results import Row
from motionexp.schedule import Window
from motionexp.training import Example, FitResult, fit, make_logger

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def encode(backbone: Backbone, reference: Reference) -> Example:
    """A reference as training takes it: its latents and its embedded caption."""
    frames = torch.from_numpy(reference.frames.copy())[None]
    return Example(backbone.encode(frames), backbone.embed([reference.caption]))


def run(cfg: JobConfig) -> list[Row]:
    """Run a job: for each of its references fit, sample and score what is not there yet; print the scores.

    Args:
        cfg: checked settings.

    Returns:
        The rows of all that was asked for, those of earlier runs included.

    Raises:
        InputError: the input is wrong, or the output folder cannot be written; what is done is kept.
        KeyboardInterrupt: as it came; the same command goes on.
    """
    console = Console()
    rows: list[Row] = []
    grids: list[Path] = []
    with clear_disk_errors(cfg):
        job = Job(cfg, console)
        if cfg.video is not None:
            console.print(inputs.taken_of(cfg, job.references[0]), markup=False, soft_wrap=True)
        job.encode()
        start = perf_counter()
        for done, reference in enumerate(job.references):
            left = (perf_counter() - start) / done * (len(job.references) - done) if done else None
            hint = "" if left is None else f", about {duration(left)} left"
            kept = "" if job.unfinished(reference) else ", nothing left to train or sample"
            counted = f"{done + 1} of {len(job.references)}{hint}{kept}"
            console.print(f"{reference.name} ({counted})", markup=False, highlight=False, soft_wrap=True)
            rows += job.run_cell(reference)
            grids += job.write_grid(reference)
    print_summary(console, rows, [job.cell(each).folder for each in job.references], grids)
    return rows


@contextmanager
def clear_disk_errors(cfg: JobConfig) -> Iterator[None]:
    """Turn a full or unwritable disk into one clear line; nothing is lost, for files are written whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(
            f"{error.filename or cfg.output}: cannot be written ({os.strerror(error.errno)}); free space or"
            " choose another output=. What is finished is kept, and the same command goes on from it"
        ) from error


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Job:
    """One backbone, loaded once, and what its cells share.

    What can be wrong with references, captions, metrics and a kept adapter's file is looked at before weights
    are loaded.
    """

    def __init__(self, cfg: JobConfig, console: Console) -> None:
        self.cfg, self.console = cfg, console
        self.output = Path(cfg.output).expanduser()
        self.reader = inputs.make_reader(cfg)
        self.references = inputs.read_references(cfg, self.reader)
        check_metrics(cfg.metrics, self.references)
        if cfg.adapter is not None:
            check_adapter(Path(cfg.adapter).expanduser())
        self.device = resolve_device(cfg.device)
        self.precision = resolve_precision(self.device, cfg.precision)
        model = cfg.model
        inputs.check_probed(self.references, cfg)
        inputs.check_captions(self.references, cfg)
        inputs.check_boundary(cfg)
        self.backbone: Backbone = get_object(model._target_)(
            model.path,
            revision=model.revision,
            device=self.device,
            dtype=DTYPES[self.precision],
            name=model.name,
            fps=model.fps,
        )
        if model.frame_range is not None:
            self.backbone.frames = cfg.frames  # such a model has no number of its own
        inputs.check_size(self.backbone, cfg)
        self.tau = self._tau()
        self.cache = EncodingCache(self.output / ".cache", self.backbone, self.precision)

    def _tau(self) -> float:
        """The window's lower end; that of a kept adapter, unless the settings say another."""
        if self.cfg.tau is not None:
            return self.cfg.tau
        method = load_adapter(Path(self.cfg.adapter or "").expanduser(), self.backbone)
        method.remove()
        return method.window.low

    @cached_property
    def scorer(self) -> Scorer:
        scenes = inputs.chance_scenes(self.cfg, self.reader, self.references)
        return Scorer(self.cfg.metrics, inputs.scoring_models(self.cfg), str(self.device), scenes)

    @cached_property
    def probe_scorer(self) -> Scorer:
        """What probes measure, whatever `metrics=` says; without ground truth what needs none."""
        return Scorer(None, inputs.scoring_models(self.cfg), str(self.device), kinds=PROBE_METRICS)

    @property
    def trains(self) -> bool:
        """Whether cells of this job have an adapter of their own."""
        return self.cfg.adapter is None and self.cfg.tau != 1000

    def cell(self, reference: Reference, cfg: JobConfig | None = None) -> Cell:
        """The folder of a reference's cell, under these settings or others."""
        key = adapter_id(
            cfg or self.cfg,
            weights_hash=self.backbone.weights_hash,
            precision=self.precision,
            reference_hash=reference.content_hash,
        )
        return Cell(self.output / reference.suite / self.cfg.model.name / key)

    def wanted(self, reference: Reference, seeds: int, cfg: JobConfig | None = None) -> list[Wanted]:
        """The samples of a reference, under these settings or others."""
        adapter = self.cell(reference, cfg).folder.name
        return [
            Wanted(edit, index, sample_id(cfg or self.cfg, adapter, caption=edit.caption, index=index))
            for edit in reference.edits
            for index in range(seeds)
        ]

    def run_cell(self, reference: Reference) -> list[Row]:
        """Do what is missing of one cell, and return the rows that were asked for."""
        cell, wanted = self.cell(reference), self.wanted(reference, self.cfg.seeds)
        about = {"reference": reference.name, "tau": self.tau, "adapter_id": cell.folder.name}
        waiting = f"another process works on {cell.folder}: waiting for it"
        with cell.running(about, lambda: self.console.print(waiting, markup=False)):
            cell.write_config(OmegaConf.to_yaml(OmegaConf.structured(self.cfg)))
            if self.unfinished(reference):
                self._generate(cell, reference, self.missing(reference))
            return score_cell(cell, reference, wanted, self.scorer, self.common(cell, reference))

    def missing(self, reference: Reference) -> list[Wanted]:
        """The samples of a reference that are not there yet."""
        cell = self.cell(reference)
        wanted = self.wanted(reference, self.cfg.seeds)
        return [each for each in wanted if not cell.has_sample(each.edit, each.index, each.sample_id)]

    def unfinished(self, reference: Reference) -> bool:
        """Whether there is anything to train or to sample."""
        return bool(self.missing(reference)) or (self.trains and not self.cell(reference).has_adapter)

    def encode(self) -> None:
        """Encode all that the unfinished cells need, and give the encoders' memory back."""
        references = [each for each in self.references if self.unfinished(each)]
        captions = [edit.caption for each in references for edit in each.edits]
        captions += [each.caption for each in references] + [self.cfg.negative_prompt]
        self.cache.fill(references if self.trains else [], captions if references else [])

    def _generate(self, cell: Cell, reference: Reference, missing: Sequence[Wanted]) -> None:
        method = self._method(cell, reference)
        ids = {(each.edit.caption, each.index): each.sample_id for each in missing}
        try:
            with tqdm(total=0, desc="sample", unit="step", leave=False) as bar:

                def progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                for made in sample(
                    self.backbone,
                    method,
                    [(each.edit, each.index) for each in missing],
                    inputs.sample_settings(self.cfg),
                    memory=inputs.sampling_memory(self.cfg, self.device),
                    embed=self.cache.conditioning,
                    progress=progress,
                ):
                    cell.keep_sample(made, ids[made.edit.caption, made.index], self.backbone.fps)
        finally:
            if method is not None:
                method.remove()

    def _method(self, cell: Cell, reference: Reference) -> TuningMethod | None:
        """The method to sample with, attached: given, kept, or trained now; None for the base model."""
        cfg = self.cfg
        if cfg.adapter is not None:
            method = load_adapter(Path(cfg.adapter).expanduser(), self.backbone)
            method.window = Window(self.tau, method.window.high)
            return method
        if not self.trains:
            return None
        if cell.has_adapter:
            return load_adapter(cell.adapter, self.backbone)
        settings = dict(cfg.method)
        method = get_object(settings.pop("_target_"))(self.backbone, Window(self.tau), **settings)
        try:
            self._fit(cell, reference, method)
        except BaseException:
            method.remove()
            raise
        return method

    def _fit(self, cell: Cell, reference: Reference, method: TuningMethod) -> None:
        cfg = self.cfg
        settings = inputs.training_settings(cfg)
        example = Example(self.cache.latents(reference), self.cache.conditioning(reference.caption))
        logger = make_logger(cfg.logger, cell.folder / "logs", inputs.row_settings(cfg))
        try:
            result = fit(
                self.backbone,
                method,
                [example],
                settings,
                cell.adapter,
                logger=logger,
                on_preview=lambda step: self._preview(cell, reference.edits[0], method, step),
            )
        finally:
            if cfg.logger == "wandb":
                logger.experiment.finish()
        recipe = Recipe(
            captions=[reference.caption],
            seed=cfg.seed,
            steps=cfg.train_steps,
            batch_size=cfg.batch_size,
            learning_rate=cfg.learning_rate,
            weight_decay=cfg.weight_decay,
            optimizer=settings.optimizer.name,
            packages=provenance.packages(),
        )
        # The adapter last: where it is, the training is done and its record is there.
        write_json(cell.adapter / FIT_FILE, self._fit_record(reference, result))
        save_adapter(cell.adapter, self.backbone, method, recipe)
        if result.checkpoint is not None:
            result.checkpoint.unlink()

    def _fit_record(self, reference: Reference, result: FitResult) -> dict[str, Any]:
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "steps": self.cfg.train_steps,
            "trained": result.trained,
            "seconds": round(result.seconds, 3),
            "resumed_from": result.resumed_from,
            "peak_memory": peak_memory(self.device),
            "device": provenance.device_name(self.device),
            "losses": [round(loss, 6) for loss in result.losses],
        }

    def _preview(self, cell: Cell, edit: Edit, method: TuningMethod, step: int) -> None:
        settings = inputs.sample_settings(self.cfg)
        for made in sample(self.backbone, method, [(edit, 0)], settings, embed=self.cache.conditioning):
            cell.keep_preview(made, step, self.backbone.fps)

    def common(self, cell: Cell, reference: Reference) -> dict[str, Any]:
        """The fields that all rows of a cell share."""
        cfg = self.cfg
        commit, dirty = provenance.commit()
        record = inputs.fit_record(Path(cfg.adapter).expanduser() if cfg.adapter else cell.adapter)
        method = cfg.method["_target_"].rpartition(".")[-1].lower()
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "strata": dict(reference.strata),
            "adapter_id": cell.folder.name,
            "model": cfg.model.name,
            "method": "base" if self.tau == 1000 else method,
            "tau": float(self.tau),
            "steps": cfg.steps,
            "train_steps": int(record.get("steps", 0)),
            "adapter_scale": float(cfg.adapter_scale),
            "seconds": {"fit": float(record.get("seconds", 0.0))},
            "settings": inputs.row_settings(cfg),
            "commit": commit,
            "dirty": dirty,
            "packages": provenance.packages(),
            "device": provenance.device_name(self.device),
            "precision": self.precision,
            "weights_hash": self.backbone.weights_hash,
        }

    def write_grid(self, reference: Reference) -> list[Path]:
        """Put this cell beside the base model's, τ = 0's and the default's, as far as they are there."""
        cfg = self.cfg
        folder = self.cell(reference).folder
        taus = [1000.0, 0.0, cfg.model.default_tau] if cfg.adapter is None else [1000.0]
        others = [replace(cfg, tau=tau, adapter=None) for tau in taus]
        labelled = [("base" if each.tau == 1000 else f"τ = {each.tau:g}", each) for each in others]
        if cfg.adapter is not None or cfg.tau not in taus:
            labelled.append((f"τ = {self.tau:g}", cfg))
        first = self.wanted(reference, 1)
        columns = [
            (label, self.cell(reference, each), [one.sample_id for one in self.wanted(reference, 1, each)])
            for label, each in labelled
        ]
        name = reference.name if cfg.adapter is None else f"{reference.name}-{folder.name}"
        path = folder.parent / "grids" / f"{name}.mp4"
        return [path] if write_grid(path, reference, first, columns) else []
