"""The plan of a job: its resolved settings as small values, and what it makes of each reference."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object

from motionexp.backbones.memory import give_memory_back
from motionexp.backbones.precision import DTYPES
from motionexp.config.memory import BITS, GROUPED
from motionexp.config.run_settings import RunSettings
from motionexp.config.schema import ModelConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.data.base import Reference, References
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.flow_matching import respaced
from motionexp.diffusion.inversion import inversion_steps
from motionexp.diffusion.sampling import GuidanceScale, SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.solvers import AdapterSteps
from motionexp.errors import InputError
from motionexp.files import file_name, plain_name
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.evaluation import SampleSettings
from motionexp.jobs.kept import kept
from motionexp.jobs.references import Size
from motionexp.jobs.window_notes import boundary_notes, expert_notes, start_warnings, window_warnings
from motionexp.methods.base import TrainingSettings
from motionexp.methods.guidance import StepCost

EMPTY_CAPTION = ""
"""The caption that a reference is inverted with, for `inverted_noise=`."""
MOST_OF_LABEL = 80
"""Characters of a label in the name of a file."""
GridColumn = tuple[str, Cell, tuple[SampleRequest, ...]]
"""A column of a grid of videos: its label, and a cell with one sample of each edit."""


@dataclass(frozen=True)
class CellPlan:
    """What a job makes of one reference.

    Attributes:
        reference: with the edits of the job.
        trained_on: the videos of the training: the reference, and its extra references.
        training_seed: of its adapter.
        together: the hashes of the references whose adapters are trained in one batch.
        cell: the folder of its results.
        batches: the samples that are denoised together; those of one edit follow each other.
        adapters: {training steps: the cell of the adapter after these steps}; empty if nothing is trained.
        columns: the cells that the grid compares, if they have samples.
    """

    reference: Reference
    trained_on: tuple[Reference, ...]
    training_seed: int
    together: tuple[str, ...]
    cell: Cell
    batches: tuple[tuple[SampleRequest, ...], ...]
    adapters: Mapping[int, Cell]
    columns: tuple[GridColumn, ...]

    @property
    def grid_name(self) -> str:
        """The name of the grid of videos: the reference, the label of the job's own column, and a hash.

        The hash is of all samples that the grid can show: two clips of one name have two grids, and so have
        other edits or settings of one clip.
        """
        samples = [request.sample_id for _, _, requests in self.columns for request in requests]
        digest = hashlib.sha256(" ".join(samples).encode()).hexdigest()
        label = next(label for label, cell, _ in self.columns if cell == self.cell)
        plain = plain_name(label.replace("τ", "tau").replace(" = ", "-"))[:MOST_OF_LABEL]
        return f"{file_name(self.reference.name)}-{plain}-{digest[:8]}"

    @property
    def requests(self) -> list[SampleRequest]:
        """The samples of all batches, in order."""
        return [request for batch in self.batches for request in batch]

    @property
    def images(self) -> list[np.ndarray]:
        """The images (H, W, 3) that samples begin with; empty: the model takes none."""
        return [edit.pixels for edit in self.reference.edits if edit.pixels is not None]

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


@dataclass(frozen=True)
class BackboneSettings:
    """What determines a job's backbone, apart from the device.

    Attributes:
        model: names its class and its weights.
        frames: of its videos.
        precision: fp32, bf16 or fp16.
        text_precision: `auto`, 8bit or 4bit.
        network_precision: `auto`, fp8, 8bit or 4bit.
        checkpointing: whether activations are computed again in the backward pass; None: with `low_memory`,
            and where `offload` or fp8 needs it.
        offload: what waits in main memory; None: all that can, with `low_memory` on a GPU.
        low_memory: whether `mode=low_memory`.
        tiling: whether the VAE works in tiles.
        shift: of the sampling sigmas; None: its scheduler's.
        timestep_spacing: of the sampling steps; None: its scheduler's.
        force_zeros_for_empty_prompt: see `Backbone`; None: as the model's files say.
        sharded: whether each rank holds a part of the network.
    """

    model: ModelConfig
    frames: int
    precision: str
    text_precision: str = "auto"
    network_precision: str = "auto"
    checkpointing: bool | None = None
    offload: str | None = None
    low_memory: bool = False
    tiling: bool = False
    shift: float | None = None
    timestep_spacing: str | None = None
    force_zeros_for_empty_prompt: bool | None = None
    sharded: bool = False

    @property
    def respacing(self) -> str:
        """What differs from the scheduler's sampling steps, in words; empty: nothing."""
        differences = {"shift": self.shift, "spacing": self.timestep_spacing}
        return "".join(f", {name} {value}" for name, value in differences.items() if value is not None)

    def on(self, device: torch.device) -> "BackboneSettings":
        """The settings with a value for `offload` and `checkpointing`, as they hold on a device."""
        offload = self.offload
        if offload is None:
            takes_none = self.sharded or self.network_precision in BITS or device.type != "cuda"
            kind: type[Backbone] = get_object(self.model._target_.rpartition(".")[0])
            by_block = kind.moves_blocks and self.checkpointing is not False
            waiting = "group_stream" if by_block else "model"
            offload = waiting if self.low_memory and not takes_none else "none"
        needed = self.low_memory or offload in GROUPED or self.network_precision == "fp8"
        checkpointing = needed if self.checkpointing is None else self.checkpointing
        return replace(self, offload=offload, checkpointing=checkpointing)

    def make(self, device: torch.device) -> Backbone:
        """The backbone on a device. Its weights are loaded when they are first used; on `meta` never.

        In a sweep it may be that of the job before, whose network is loaded and whose encoders are released.

        Raises:
            InputError: the model's file and its weights disagree on the size of videos.
        """
        # A sharded network belongs to the processes of one job. Others are kept whatever their schedule and
        # their empty prompt.
        if device.type == "meta" or self.sharded:
            backbone = self._made(device)
        else:
            key = replace(self, shift=None, timestep_spacing=None, force_zeros_for_empty_prompt=None), device
            backbone = kept("backbone", key, lambda: self._made(device))
        backbone.schedule = respaced(backbone.stored_schedule, self.shift, self.timestep_spacing)
        backbone.respacing = self.respacing
        if self.force_zeros_for_empty_prompt is not None:
            backbone.force_zeros_for_empty_prompt = self.force_zeros_for_empty_prompt
        return backbone

    def _made(self, device: torch.device) -> Backbone:
        give_memory_back()  # an earlier job of a sweep may have left memory to free
        model = self.model
        memory = self.on(device)
        backbone: Backbone = get_object(model._target_)(
            model.path,
            revision=model.revision,
            device=device,
            dtype=DTYPES[self.precision],
            name=model.name,
            fps=model.fps,
            checkpointing=memory.checkpointing,
            offload=memory.offload,
            tiling=self.tiling,
            text_precision=self.text_precision,
            network_precision=self.network_precision,
        )
        if model.frame_range is not None:
            backbone.frames = self.frames  # the weights fix no number of frames
        if backbone.any_size:
            backbone.height, backbone.width = model.height, model.width
            backbone.latent_shape(self.frames, model.height, model.width)
        backbone.stored_schedule = backbone.schedule
        backbone.sharded = self.sharded and device.type != "meta"
        settings = f"{self.frames} x {model.height} x {model.width}"
        weights = f"{backbone.frames} x {backbone.height} x {backbone.width}"
        if settings != weights:
            raise InputError(
                f"model={model.name}: its settings say {settings} (frames, height, width), its weights"
                f" {weights}: set model.frames, model.height and model.width"
            )
        return backbone


@dataclass(frozen=True)
class ProbePlan:
    """The settings of a probe, and where its results go.

    Attributes:
        kind: one of `config.schema.INVERSION_PROMPTS`.
        steps: of sampling and of the inversion.
        guidance_scale: of sampling.
        inversion: the sampler of the inversion.
        prompts: that references are inverted with: `caption`, or `empty` for the negative prompt.
        groups: of videos, of the linear probe.
        cell: returns the cell of a suite, a caption, and the hash or name of what is probed.
    """

    kind: str
    steps: int
    guidance_scale: GuidanceScale
    inversion: SamplerSettings
    prompts: tuple[str, ...]
    groups: int
    cell: Callable[[str, str, str], Cell]


@dataclass(frozen=True, eq=False)
class JobPlan:
    """The resolved settings of a job. Its backbone loads weights when they are first used.

    Attributes:
        model: the model's file.
        size: frames, height and width of videos.
        reader: of the suite.
        references: of the job, with its edits.
        device: that `device=auto` stands for.
        precision: that `precision=auto` stands for.
        backbone_settings: make the backbone on any device.
        backbone: shared by all cells.
        window: the timesteps that the method is trained at.
        sampling_window: the timesteps that the method acts at while sampling.
        span: the timesteps of the networks that are tuned; see `TuningMethod.span`.
        sampling: settings of `sample`.
        training: settings of `fit`.
        tuning: the method's class under `_target_`, and its arguments.
        plugins: the packages whose classes an adapter may name.
        metrics: that are scored; None: all that the data allow.
        scoring: the models behind scores, and the sanity baselines.
        logged: the settings as rows and loggers show them.
        config: all settings, as YAML.
        output: the folder of all results.
        adapter: a stored adapter that is sampled with in place of a trained one, or None.
        adapter_note: what of an external LoRA's file is loaded, and what is not; else empty.
        trains: whether the job trains an adapter in each cell.
        guidance: what the guidance of a sample costs; None where the method is no guidance.
        method: the method's name in rows.
        mode: fast or low_memory.
        exact_frames: how exact frames of samples are stored, video or npz.
        at_once: videos that are denoised in one batch.
        ranks: processes that share the job, and those of one node.
        text_precision: of embedded captions: the network's precision, or the bits of the text encoder.
        encoded_in: the precisions that latents and conditionings depend on, in words.
        cells: one for each reference and training seed.
        probe: of a job that probes, else None.
        base: the base model on the same references and edits; None with `base_model=false`, and of a
            job that is this or probes.
    """

    model: ModelConfig
    size: Size
    reader: References
    references: list[Reference]
    device: torch.device
    precision: str
    backbone_settings: BackboneSettings
    backbone: Backbone
    window: Window
    sampling_window: Window
    span: Window
    sampling: SampleSettings
    training: TrainingSettings
    tuning: Mapping[str, Any]
    plugins: list[str]
    metrics: list[str] | None
    scoring: ScoringConfig
    logged: RunSettings
    config: str
    output: Path
    adapter: Path | None
    adapter_note: str
    trains: bool
    guidance: StepCost | None
    method: str
    mode: str
    exact_frames: str
    at_once: int
    ranks: tuple[int, int]
    text_precision: str
    encoded_in: str
    cells: list[CellPlan]
    probe: ProbePlan | None
    base: "JobPlan | None" = None

    @property
    def row_settings(self) -> Mapping[str, Any]:
        """The settings that rows hold."""
        return self.logged.rows

    @property
    def captions_of_sampling(self) -> list[str]:
        """The captions of the unconditional branch, of guidance and of the inversion, beside the edits'."""
        reads_empty = self.guidance is not None or self.sampling.inverted_noise > 0
        return [self.sampling.negative_prompt, *[EMPTY_CAPTION] * reads_empty]

    @property
    def steps_of_inversion(self) -> int:
        """Steps to invert a reference, from whose latents sampling starts; 0: it starts from noise alone."""
        steps = self.sampling.sampler.steps
        return inversion_steps(self.backbone.schedule, steps) if self.sampling.inverted_noise else 0

    @property
    def has_weights(self) -> bool:
        """Whether the model is on this machine; else it is a plan by the model's configuration."""
        return self.backbone.device.type != "meta"

    @property
    def reads_references(self) -> bool:
        """Whether the latents of references are needed, and not their captions alone."""
        return self.trains or self.guidance is not None or self.sampling.inverted_noise > 0

    @cached_property
    def adapter_steps(self) -> AdapterSteps:
        """Which of the sampling steps have the adapter, or the guidance method, on."""
        schedule, sampler = self.backbone.schedule, self.sampling.sampler
        return AdapterSteps.of(schedule, sampler.sampler, sampler.steps, self.sampling_window, self.span)

    @property
    def window_notes(self) -> list[str]:
        """All that a user should know of the window before the job runs, beside `adapter_steps`."""
        schedule = self.backbone.schedule
        if self.guidance is not None and self.guidance.at_start:
            return start_warnings(schedule.timesteps(self.sampling.sampler.steps)[0], self.sampling_window)
        return [
            *expert_notes(self.span),
            *window_warnings(self.adapter_steps, self.sampling_window, schedule, self.span),
            *boundary_notes(self.row_settings["tau_from"], self.model, schedule),
        ]

    @property
    def batch_steps(self) -> float:
        """Sampling steps of one batch; guidance beside the classifier-free counts in such steps too."""
        sampler = self.sampling.sampler
        steps = sampler.steps * sampler.batches
        if self.guidance is None or not self.sampling.adapter_scale:
            return steps
        # A backward pass takes as long as two forward passes.
        evaluations = self.adapter_steps.on * (self.guidance.forward + 2 * self.guidance.backward)
        return steps + evaluations / sampler.rows

    @property
    def trained_together(self) -> int:
        """The most references whose adapters are trained in one batch; from 1."""
        return max(1, *(len(cell.together) for cell in self.cells))

    def group_of(self, cell: CellPlan) -> list[CellPlan]:
        """The cells whose adapters are trained in one batch with that of a cell, itself included."""
        if len(cell.together) < 2:
            return [cell]
        about = cell.training_seed, cell.together
        return [plan for plan in self.cells if (plan.training_seed, plan.together) == about]

    def title(self, cell: CellPlan) -> str:
        """The reference of a cell, and the training seed where there are several."""
        several = len({plan.training_seed for plan in self.cells}) > 1
        return (
            f"{cell.reference.name}, training seed {cell.training_seed}" if several else cell.reference.name
        )

    def folder(self, suite: str) -> Path:
        """The folder of the model's results on a suite."""
        return self.output / file_name(suite) / file_name(self.model.name)
