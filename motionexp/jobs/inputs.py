"""A job's settings, resolved once: references, backbone, windows, settings of stages, and cells."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from motionexp.backbones.precision import resolve_device, resolve_precision
from motionexp.config.command_line import as_values
from motionexp.config.ids import adapter_id, probe_id, sample_id
from motionexp.config.job_settings import base_settings
from motionexp.config.metrics import check_metrics
from motionexp.config.ranks import too_many_devices
from motionexp.config.run_settings import RunSettings
from motionexp.config.schema import GROUPS, INVERSION_PROMPTS, JobConfig, method_name, tiles
from motionexp.data.base import Edit, Reference
from motionexp.data.select import make_reader
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.inversion import inversion_steps
from motionexp.diffusion.sampling import SamplerSettings, in_pairs, videos_per_batch
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.diffusion.window_in_steps import reached, span_of
from motionexp.errors import InputError
from motionexp.files import file_name, user_path
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.checks import check_backbone, check_before_weights, lacks_files
from motionexp.jobs.evaluation import SampleSettings
from motionexp.jobs.guidance import guidance_cost
from motionexp.jobs.plan import BackboneSettings, CellPlan, JobPlan, ProbePlan
from motionexp.jobs.references import read_references, trained_together
from motionexp.jobs.windows import TunedWindow, given_window, sampling_window, stored_window
from motionexp.methods.adapters import check_adapter
from motionexp.methods.base import OptimizerSettings, TrainingSettings
from motionexp.methods.guidance import StepCost
from motionexp.results.selection import TRAINED, changed_settings


def plan_job(cfg: JobConfig, references: list[Reference] | None = None) -> JobPlan:
    """Read a job's references, and resolve its settings, before weights are loaded.

    Nothing after this function takes the job's settings as a whole. The ids of cells contain the hash of the
    weights' files, which are read for it. A dry run of a model that is not on this machine goes by the
    model's configuration: its backbone is on the meta device, and ids are not those of a run.

    Args:
        cfg: checked settings.
        references: of the job, where they have been read already.

    Raises:
        InputError: references, captions, metrics, a stored adapter or the model do not suit each other.
    """
    # 1. What needs no model.
    reader, output = make_reader(cfg.data), user_path(cfg.output)
    without_files = cfg.dry_run and lacks_files(cfg.model)
    if references is None:
        references = read_references(cfg, reader, decode=not without_files)
    check_metrics(cfg.metrics, [reference.name for reference in references if reference.truth is None])
    adapter = _checked_adapter(cfg)
    # 2. What needs the model's class or its files.
    device = _device(cfg)
    precision = resolve_precision(device, cfg.precision)
    check_before_weights(cfg, references, device, without_files=without_files)
    # 3. The backbone, without weights.
    backbone_settings = _backbone_settings(cfg, precision)
    backbone = backbone_settings.make(torch.device("meta") if without_files else device)
    check_backbone(backbone, cfg.probe, cfg.probe_steps, cfg.stg_scale, cfg.stg_blocks)
    # 4. The window, which a stored adapter may bring, and the settings of single stages.
    logged = RunSettings.of(cfg)
    tuned = _tuned_window(cfg, adapter, backbone_settings, backbone, logged.guides)
    text_precision = precision if cfg.text_precision == "auto" else cfg.text_precision
    at_once = _videos_at_once(cfg, backbone)
    # 5. The folders of results, whose names are ids of all that is above.
    folders = _Folders(output, cfg.model.name, backbone.weights_hash, precision, at_once)
    plan = JobPlan(
        model=cfg.model,
        size=(cfg.frames, cfg.model.height, cfg.model.width),
        reader=reader,
        references=references,
        device=device,
        precision=precision,
        backbone_settings=backbone_settings,
        backbone=backbone,
        window=tuned.window,
        sampling_window=sampling_window(tuned.window, cfg.sampling_tau, cfg.sampling_tau_high),
        span=tuned.span,
        sampling=sample_settings(cfg),
        training=training_settings(cfg),
        tuning=cfg.method,
        plugins=cfg.plugins,
        metrics=cfg.metrics,
        scoring=cfg.scoring,
        logged=logged,
        config=_as_yaml(cfg),
        output=output,
        adapter=adapter,
        adapter_note=tuned.note,
        trains=logged.trains,
        guidance=_guidance_cost(cfg, logged.guides, backbone, tuned.window, references),
        method="base" if tuned.window.low == 1000 else tuned.method,
        mode=cfg.mode,
        exact_frames=cfg.exact_frames,
        at_once=at_once,
        ranks=(cfg.trainer.ranks, cfg.trainer.devices),
        text_precision=text_precision,
        encoded_in="-".join(
            dict.fromkeys([precision, text_precision, *["tiles"] * backbone_settings.tiling])
        ),
        cells=_cell_plans(cfg, references, tuned.window, folders, logged),
        probe=None if cfg.probe is None else _probe_plan(cfg, cfg.probe, folders, backbone.schedule),
    )
    # 6. The base model, to which every table compares.
    return replace(plan, base=_base_plan(cfg, plan, folders)) if cfg.base_model else plan


def _tuned_window(
    cfg: JobConfig, adapter: Path | None, settings: BackboneSettings, backbone: Backbone, guides: bool
) -> TunedWindow:
    """The window of the training, which a stored adapter may bring."""
    ends = cfg.tau, cfg.tau_high
    if adapter is not None:
        return stored_window(adapter, settings, *ends, cfg.plugins)
    window, spans = given_window(*ends, cfg.soft_window), backbone.spans
    # A guidance method acts in all networks, and tunes none; nor does the base model.
    networks = spans if guides or window.is_empty else reached(spans, window)
    return TunedWindow(window, span_of(spans, networks), method_name(cfg.method))


def _device(cfg: JobConfig) -> torch.device:
    """The device of this rank. Raises InputError for one that is missing; a dry run may be for elsewhere."""
    if cfg.dry_run and cfg.device == "cuda" and not torch.cuda.is_available():
        return torch.device("cuda")
    device = resolve_device(cfg.device)
    if not cfg.dry_run and (problem := gpu_problem(cfg, device)):
        raise InputError(problem)
    if ranks.size() > 1 and device.type == "cuda":
        return torch.device("cuda", ranks.on_node()[0])
    return device


def gpu_problem(cfg: JobConfig, device: torch.device) -> str:
    """What is wrong with the number of devices on this machine; empty if it has enough."""
    count = torch.cuda.device_count() if device.type == "cuda" else 1 if device.type == "mps" else 0
    is_enough = cfg.device == "cpu" or cfg.trainer.devices <= max(1, count)
    return "" if is_enough else too_many_devices(cfg.trainer.devices, count)


def _base_plan(cfg: JobConfig, plan: JobPlan, folders: "_Folders") -> JobPlan | None:
    """The plan of `tau=1000` with the job's other settings; None where the job is that, or probes."""
    if plan.probe is not None or plan.window.low == 1000:
        return None
    base = base_settings(cfg)
    window, logged = Window(1000), RunSettings.of(base)
    return replace(
        plan,
        window=window,
        sampling_window=window,
        span=EVERYWHERE,
        sampling=sample_settings(base),
        logged=logged,
        config=_as_yaml(base),
        adapter=None,
        trains=False,
        guidance=None,
        method="base",
        cells=[
            _cell_plan(base, reference, window, folders, (base.seed, ()), logged)
            for reference in plan.references
        ],
    )


def _guidance_cost(
    cfg: JobConfig, guides: bool, backbone: Backbone, window: Window, references: list[Reference]
) -> StepCost | None:
    if not guides:
        return None
    sampling = sample_settings(cfg)
    return guidance_cost(cfg.method, cfg.memory_limit, backbone, window, references, sampling)


def _as_yaml(cfg: JobConfig) -> str:
    """All settings as YAML; without those of tuning for the base model, which jobs of any tuning share."""
    settings = asdict(cfg)
    if (cfg.tau, cfg.adapter, cfg.probe) == (1000, None, None):
        settings = {name: value for name, value in settings.items() if name not in ("method", *TRAINED)}
    return OmegaConf.to_yaml(OmegaConf.create(as_values(settings)), resolve=True)


def _checked_adapter(cfg: JobConfig) -> Path | None:
    """The stored adapter that `adapter=` names. Raises InputError if it cannot be used."""
    if cfg.adapter is None:
        return None
    adapter = user_path(cfg.adapter)
    check_adapter(adapter, cfg.tau is not None or cfg.sampling_tau is not None, cfg.plugins)
    return adapter


def _videos_at_once(cfg: JobConfig, backbone: Backbone) -> int:
    """The number of videos that `memory_limit=` allows in a batch; 1 by default."""
    if cfg.memory_limit is None:
        return 1
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    return videos_per_batch(backbone, shape, sample_settings(cfg).sampler, cfg.memory_limit * 2**30)


def _backbone_settings(cfg: JobConfig, precision: str) -> BackboneSettings:
    low_memory = cfg.mode == "low_memory"
    return BackboneSettings(
        model=cfg.model,
        frames=cfg.frames,
        precision=precision,
        text_precision=cfg.text_precision,
        network_precision=cfg.network_precision,
        checkpointing=cfg.checkpointing,
        offload=cfg.offload,
        low_memory=low_memory,
        tiling=tiles(cfg.mode, cfg.model),
        shift=cfg.shift,
        timestep_spacing=cfg.timestep_spacing,
        force_zeros_for_empty_prompt=cfg.force_zeros_for_empty_prompt,
        sharded=cfg.trainer.strategy == "fsdp",
    )


Training = tuple[int, tuple[str, ...]]
"""The training seed of an adapter, and the hashes of the references that are trained together."""


@dataclass(frozen=True)
class _Folders:
    """The folders of a model's results on its suites, with what all their ids contain."""

    output: Path
    model: str
    weights_hash: str
    precision: str
    at_once: int

    def cell(self, cfg: JobConfig, reference: Reference, training: Training) -> Cell:
        """The cell of a reference, with an adapter that is trained or stored, or with the base model."""
        seed, together = training
        about = {"reference_hash": reference.trained_hash, "together": together}
        return self._cell(reference.suite, adapter_id, replace(cfg, seed=seed), **about)

    def probe(
        self, cfg: JobConfig, inversion_steps: int, suite: str, caption: str, reference_hash: str
    ) -> Cell:
        """The cell of a unit of work of a probe."""
        about = {"caption": caption, "reference_hash": reference_hash, "at_once": self.at_once}
        return self._cell(suite, probe_id, cfg, inversion_steps=inversion_steps, **about)

    def _cell(self, suite: str, id_of: Callable[..., str], cfg: JobConfig, **about: Any) -> Cell:
        key = id_of(cfg, weights_hash=self.weights_hash, precision=self.precision, **about)
        return Cell(self.output / file_name(suite) / file_name(self.model) / key)


def _cell_plans(
    cfg: JobConfig,
    references: list[Reference],
    window: Window,
    folders: _Folders,
    settings: RunSettings,
) -> list[CellPlan]:
    """The cells of all references and training seeds."""
    return [
        _cell_plan(cfg, reference, window, folders, (seed, together), settings)
        for reference, together in zip(references, _groups(cfg, references), strict=True)
        for seed in settings.training_seeds
    ]


def _groups(cfg: JobConfig, references: list[Reference]) -> list[tuple[str, ...]]:
    """As `trained_together`.

    Raises:
        InputError: several references are trained together of which one has extra references.
    """
    size = cfg.train_together
    several = [reference.name for reference in references if len(reference.trained_on) > 1]
    if size > 1 and several:
        raise InputError(f"train_together={size}: {several[0]} is trained on several videos; leave it out")
    return trained_together(references, size)


def _cell_plan(
    cfg: JobConfig,
    reference: Reference,
    window: Window,
    folders: _Folders,
    training: Training,
    settings: RunSettings,
) -> CellPlan:
    """The cell of a reference, its samples, and the columns of its grid.

    The columns are the base model, tau = 0, the model's default tau and this job, in this order.
    """
    steps = (*cfg.keep_steps, cfg.train_steps) if settings.trains else ()
    adapters = {count: folders.cell(replace(cfg, train_steps=count), reference, training) for count in steps}
    taus = [1000.0, 0.0, cfg.model.default_tau] if cfg.adapter is None else [1000.0]
    jobs = [(tau, replace(cfg, tau=tau, adapter=None)) for tau in taus]
    if cfg.adapter is not None or cfg.tau not in taus:
        jobs.append((window.low, cfg))
    # The grid shows other cells' samples too, if a job has made them.
    columns, at_once = [], folders.at_once
    for tau, job in jobs:
        cell = folders.cell(job, reference, training)
        is_base = job.adapter is None and tau == 1000
        label = _column_label(settings.rows, tau, "base" if is_base else method_name(cfg.method))
        batches = _batches(reference, cell, job, at_once)
        first = tuple(request for batch in batches for request in batch if request.index == 0)
        columns.append((label, cell, first))
    cell = folders.cell(cfg, reference, training)
    batches = _batches(reference, cell, cfg, at_once)
    return CellPlan(reference, reference.trained_on, *training, cell, batches, adapters, tuple(columns))


def _column_label(settings: Mapping[str, Any], tau: float, method: str) -> str:
    """The base model, or tau; and every other setting of the job that is not its default."""
    first = "base" if method == "base" else f"τ = {tau:g}"
    labels = [first, *(f"{key} = {value}" for key, value in changed_settings(settings, method).items())]
    return ", ".join(labels)


def _batches(
    reference: Reference, cell: Cell, cfg: JobConfig, at_once: int
) -> tuple[tuple[SampleRequest, ...], ...]:
    """The samples of a cell, as they are denoised together: the settings alone decide it."""
    videos = [(edit, index) for edit in reference.edits for index in range(cfg.seeds)]
    batches = [videos[first : first + at_once] for first in range(0, len(videos), at_once)]
    return tuple(_batch(cell.folder.name, cfg, batch) for batch in batches)


def _batch(adapter: str, cfg: JobConfig, batch: list[tuple[Edit, int]]) -> tuple[SampleRequest, ...]:
    images = ["" if edit.image is None else edit.image.content_hash for edit, _ in batch]
    members: list[tuple[str | int, ...]] = [
        (edit.caption, index, image) if image else (edit.caption, index)
        for (edit, index), image in zip(batch, images, strict=True)
    ]
    return tuple(
        SampleRequest(
            edit,
            index,
            sample_id(cfg, adapter, caption=edit.caption, index=index, batch=members, image=image),
        )
        for (edit, index), image in zip(batch, images, strict=True)
    )


def _probe_plan(cfg: JobConfig, kind: str, folders: _Folders, schedule: Schedule) -> ProbePlan:
    # The probe of the inversion measures its error in the steps that the user names.
    steps = cfg.probe_steps
    if kind in ("tampering", "partial_guidance"):
        steps = inversion_steps(schedule, steps)
    return ProbePlan(
        kind=kind,
        steps=cfg.probe_steps,
        guidance_scale=in_pairs(cfg.guidance_scale),
        inversion=SamplerSettings(steps, cfg.inversion_guidance_scale),
        prompts=(cfg.inversion_prompt,) if cfg.inversion_prompt else INVERSION_PROMPTS[kind],
        groups=cfg.references if isinstance(cfg.references, int) else GROUPS,
        cell=partial(folders.probe, cfg, steps),
    )


def sample_settings(cfg: JobConfig) -> SampleSettings:
    """The settings of `sample`."""
    sampler = SamplerSettings(
        *(cfg.steps, in_pairs(cfg.guidance_scale), cfg.eta, cfg.sampler, cfg.dynamic_guidance),
        *(cfg.stg_scale, tuple(cfg.stg_blocks or ()), cfg.guidance_rescale),
    )
    # The base model's samples are shared by jobs of all methods, whatever each starts from.
    is_base = cfg.adapter is None and cfg.tau == 1000
    return SampleSettings(
        sampler,
        seed=cfg.seed,
        negative_prompt=cfg.negative_prompt,
        adapter_scale=cfg.adapter_scale,
        adapter_in_unconditional=cfg.adapter_in_unconditional,
        inverted_noise=0.0 if is_base else cfg.inverted_noise,
    )


def training_settings(cfg: JobConfig) -> TrainingSettings:
    """The settings of `fit`."""
    return TrainingSettings(
        steps=cfg.train_steps,
        batch_size=cfg.batch_size,
        accumulate=cfg.trainer.accumulate,
        seed=cfg.seed,
        optimizer=OptimizerSettings(learning_rate=cfg.learning_rate, weight_decay=cfg.weight_decay),
        keep_steps=tuple(cfg.keep_steps),
        checkpoint_every=cfg.checkpoint_every,
        preview_every=cfg.preview_every,
    )
