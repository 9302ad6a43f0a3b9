"""A job's settings, resolved once: references, backbone, windows, settings of stages, and cells."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

from motionexp.backbones.memory import give_memory_back
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision
from motionexp.config.ids import adapter_id, sample_id
from motionexp.config.metrics import check_metrics
from motionexp.config.schema import JobConfig, checkpoints, method_name, offloads, tiles
from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import names_in
from motionexp.data.base import Reference, References
from motionexp.data.select import make_reader
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.checks import check_before_weights
from motionexp.jobs.evaluation import SampleSettings
from motionexp.jobs.references import read_references
from motionexp.methods.adapters import check_adapter, load_adapter
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.training import TrainingSettings
from motionexp.metrics.scorer import TGVE_MODELS, ScoringModels

GridColumn = tuple[str, Cell, tuple[SampleRequest, ...]]
"""A column of a grid of videos: its label, and a cell with one sample of each edit."""


@dataclass(frozen=True)
class CellPlan:
    """What a job makes of one reference.

    Attributes:
        reference: with the edits of the job.
        trained_on: the videos of the training: the reference, and its extra references.
        cell: the folder of its results.
        requests: the samples; those of one edit follow each other.
        adapters: {training steps: the cell of the adapter after these steps}; empty if nothing is trained.
        columns: the cells that the grid compares, if they have samples.
    """

    reference: Reference
    trained_on: tuple[Reference, ...]
    cell: Cell
    requests: tuple[SampleRequest, ...]
    adapters: Mapping[int, Cell]
    columns: tuple[GridColumn, ...]

    @property
    def missing(self) -> list[SampleRequest]:
        """The samples that are not stored yet."""
        return [request for request in self.requests if not self.cell.has_sample(request)]

    @property
    def steps_left(self) -> int:
        """Training steps of an adapter that is not stored yet; those of a checkpoint are counted again."""
        return max(self.adapters) if self.adapters and not self.cell.has_adapter else 0

    @property
    def is_finished(self) -> bool:
        """Whether the adapter and all samples are stored."""
        return not self.steps_left and not self.missing


@dataclass(frozen=True, eq=False)
class JobPlan:
    """The resolved settings of a job. Its backbone loads weights when they are first used.

    Attributes:
        cfg: the settings.
        reader: of the suite.
        references: of the job, with its edits.
        device: that `device=auto` stands for.
        precision: that `precision=auto` stands for.
        backbone: shared by all cells.
        window: the timesteps that the method is trained at.
        sampling_window: the timesteps that the method acts at while sampling.
        sampling: settings of `sample`.
        training: settings of `fit`.
        row_settings: the settings that rows hold.
        output: the folder of all results.
        adapter: a stored adapter that is sampled with in place of a trained one, or None.
        trains: whether the job trains an adapter in each cell.
        method: the method's name in rows.
        text_precision: of embedded captions: the network's precision, or the bits of the text encoder.
        encoded_in: the precisions that latents and conditionings depend on, in words.
    """

    cfg: JobConfig
    reader: References
    references: list[Reference]
    device: torch.device
    precision: str
    backbone: Backbone
    window: Window
    sampling_window: Window
    sampling: SampleSettings
    training: TrainingSettings
    row_settings: Mapping[str, Any]
    output: Path
    adapter: Path | None
    trains: bool
    method: str
    text_precision: str
    encoded_in: str

    def folder(self, suite: str) -> Path:
        """The folder of the model's results on a suite."""
        return self.output / suite / self.cfg.model.name

    @cached_property
    def cells(self) -> list[CellPlan]:
        """One for each reference. Reads the weights' files for their hash, and loads none."""
        return [self._cell_plan(reference) for reference in self.references]

    def _cell_plan(self, reference: Reference) -> CellPlan:
        cfg = self.cfg
        cell = self._cell(reference, cfg)
        steps = (*cfg.keep_steps, cfg.train_steps) if self.trains else ()
        adapters = {count: self._cell(reference, replace(cfg, train_steps=count)) for count in steps}
        return CellPlan(
            reference,
            reference.trained_on,
            cell,
            self._requests(reference, cell, cfg, cfg.seeds),
            adapters,
            self._columns(reference),
        )

    def _cell(self, reference: Reference, cfg: JobConfig) -> Cell:
        key = adapter_id(
            cfg,
            weights_hash=self.backbone.weights_hash,
            precision=self.precision,
            reference_hash=reference.trained_hash,
        )
        return Cell(self.folder(reference.suite) / key)

    def _requests(
        self, reference: Reference, cell: Cell, cfg: JobConfig, seeds: int
    ) -> tuple[SampleRequest, ...]:
        adapter = cell.folder.name
        return tuple(
            SampleRequest(edit, index, sample_id(cfg, adapter, caption=edit.caption, index=index))
            for edit in reference.edits
            for index in range(seeds)
        )

    def _columns(self, reference: Reference) -> tuple[GridColumn, ...]:
        """The base model, tau = 0, the model's default tau and this job, in this order."""
        cfg = self.cfg
        taus = [1000.0, 0.0, cfg.model.default_tau] if cfg.adapter is None else [1000.0]
        jobs = [(tau, replace(cfg, tau=tau, adapter=None)) for tau in taus]
        if cfg.adapter is not None or cfg.tau not in taus:
            jobs.append((self.window.low, cfg))
        columns = []
        for tau, job in jobs:
            cell = self._cell(reference, job)
            label = "base" if job.adapter is None and tau == 1000 else f"τ = {tau:g}"
            columns.append((label, cell, self._requests(reference, cell, job, 1)))
        return tuple(columns)


def plan_job(cfg: JobConfig) -> JobPlan:
    """Read a job's references, and resolve its settings, before weights are loaded.

    Args:
        cfg: checked settings.

    Raises:
        InputError: references, captions, metrics, a stored adapter or the model do not suit each other.
    """
    # 1. What needs no model.
    reader = make_reader(cfg)
    references = read_references(cfg, reader)
    check_metrics(cfg.metrics, [reference.name for reference in references if reference.truth is None])
    adapter = None if cfg.adapter is None else Path(cfg.adapter).expanduser()
    if adapter is not None:
        check_adapter(adapter, cfg.tau is not None, cfg.plugins)
    # 2. What needs the model's class or its files.
    device = resolve_device(cfg.device)
    precision = resolve_precision(device, cfg.precision)
    check_before_weights(cfg, references, device)
    # 3. The backbone, without weights. An earlier job of a sweep may have left memory to free.
    give_memory_back()
    backbone = make_backbone(cfg, device, precision)
    window = training_window(cfg, cfg.tau) if adapter is None else _stored_window(cfg, adapter, precision)
    text_precision = precision if cfg.text_precision == "auto" else cfg.text_precision
    return JobPlan(
        cfg=cfg,
        reader=reader,
        references=references,
        device=device,
        precision=precision,
        backbone=backbone,
        window=window,
        sampling_window=sampling_window(cfg, window),
        sampling=sample_settings(cfg),
        training=training_settings(cfg),
        row_settings=row_settings(cfg),
        output=Path(cfg.output).expanduser(),
        adapter=adapter,
        trains=adapter is None and cfg.tau != 1000,
        method="base" if window.low == 1000 else method_name(cfg),
        text_precision=text_precision,
        encoded_in="-".join(dict.fromkeys([precision, text_precision, *["tiles"] * tiles(cfg)])),
    )


def make_backbone(cfg: JobConfig, device: torch.device, precision: str) -> Backbone:
    """The backbone of the settings on a device. Its weights are loaded when they are first used.

    Raises:
        InputError: the model's file and its weights disagree on the size of videos.
    """
    model = cfg.model
    backbone: Backbone = get_object(model._target_)(
        model.path,
        revision=model.revision,
        device=device,
        dtype=DTYPES[precision],
        name=model.name,
        fps=model.fps,
        checkpointing=checkpoints(cfg),
        offload=device.type != "meta" and offloads(cfg, device.type),
        tiling=tiles(cfg),
        text_precision=cfg.text_precision,
    )
    if model.frame_range is not None:
        backbone.frames = cfg.frames  # the weights fix no number of frames
    if backbone.any_size:
        backbone.height, backbone.width = model.height, model.width
        backbone.latent_shape(cfg.frames, model.height, model.width)
    _check_size(backbone, cfg)
    return backbone


def _check_size(backbone: Backbone, cfg: JobConfig) -> None:
    """Raises InputError if the model's file and its weights disagree on the size of videos."""
    settings = f"{cfg.frames} x {cfg.model.height} x {cfg.model.width}"
    weights = f"{backbone.frames} x {backbone.height} x {backbone.width}"
    if settings != weights:
        raise InputError(
            f"model={cfg.model.name}: its settings say {settings} (frames, height, width), its weights"
            f" {weights}: set model.frames, model.height and model.width"
        )


def _stored_window(cfg: JobConfig, adapter: Path, precision: str) -> Window:
    """The window of a stored adapter, narrowed by that of the settings."""
    given = None if cfg.tau is None else Window(cfg.tau)
    # Attached to a backbone on the meta device: the job's own network is loaded after the text encoder.
    backbone = make_backbone(cfg, torch.device("meta"), precision)
    method = load_adapter(adapter, backbone, given, cfg.plugins)
    method.remove()
    stored = method.window
    if cfg.tau is None and cfg.tau_high >= stored.high:
        return stored
    low = stored.low if cfg.tau is None else cfg.tau
    return Window(low, max(low, min(stored.high, cfg.tau_high)))


def training_window(cfg: JobConfig, tau: float) -> Window:
    """The timesteps that the method is trained at; it also acts at them while sampling, by default."""
    knots = tuple((t, weight) for t, weight in cfg.soft_window or [])
    return Window(tau, max(cfg.tau_high, tau), knots)


def sampling_window(cfg: JobConfig, trained: Window) -> Window:
    """The timesteps that the method acts at while sampling: a hard window if it is not the trained one."""
    if cfg.sampling_tau is None and cfg.sampling_tau_high is None:
        return trained
    low = trained.low if cfg.sampling_tau is None else cfg.sampling_tau
    return Window(low, trained.high if cfg.sampling_tau_high is None else cfg.sampling_tau_high)


def sample_settings(cfg: JobConfig) -> SampleSettings:
    """The settings of `sample`."""
    sampler = SamplerSettings(cfg.steps, cfg.guidance_scale, cfg.eta, cfg.sampler)
    return SampleSettings(
        sampler, cfg.seed, cfg.negative_prompt, cfg.adapter_scale, cfg.adapter_in_unconditional
    )


def training_settings(cfg: JobConfig) -> TrainingSettings:
    """The settings of `fit`."""
    return TrainingSettings(
        steps=cfg.train_steps,
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        optimizer=OptimizerSettings(learning_rate=cfg.learning_rate, weight_decay=cfg.weight_decay),
        keep_steps=tuple(cfg.keep_steps),
        checkpoint_every=cfg.checkpoint_every,
        preview_every=cfg.preview_every,
    )


def scoring_models(scoring: ScoringConfig, closed_vocabulary: bool) -> ScoringModels:
    """The models of `scoring=`. By default: bundled ones for a closed vocabulary, and else TGVE's.

    The bundled models know only the words of the bundled world, as the small backbones do.
    """
    models = ScoringModels() if closed_vocabulary else TGVE_MODELS
    if scoring.clip is not None:
        models = replace(models, clip=scoring.clip)
    if scoring.scorer is not None:
        models = replace(
            models,
            preference=scoring.scorer,
            preference_processor=scoring.scorer_processor,
            preference_revision=scoring.scorer_revision,
        )
    if scoring.resize is not None:
        models = replace(models, resize=scoring.resize)
    return replace(models, tracker_weights=scoring.tracker_weights)


def row_settings(cfg: JobConfig) -> dict[str, Any]:
    """The resolved settings that determine a result, as plain values."""
    matters = {"mode": tiles(cfg), "adapter": cfg.adapter is not None}
    names = names_in(JobConfig, lambda about: about.rows == "always")
    return {name: value for name, value in asdict(cfg).items() if name in names or matters.get(name)}
