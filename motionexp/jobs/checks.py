"""Checks of a job that need the backbone's class or files. They load no weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from hydra.utils import get_object

from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.checks import missing_attention
from motionexp.config.memory import GROUPED, device_problems
from motionexp.config.metrics import chosen_metrics
from motionexp.config.schema import JobConfig, ModelConfig, is_guidance, method_name
from motionexp.data.base import Reference
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.sampling import perturbed_places
from motionexp.diffusion.schedule import TIMESTEPS, NoiseSchedule
from motionexp.errors import InputError
from motionexp.hub import find_configuration, find_folder, is_to_fetch
from motionexp.metrics.tracks import check_trackable
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.probes.tree import step_blocks


def check_before_weights(
    cfg: JobConfig, references: list[Reference], device: torch.device, *, without_files: bool = False
) -> None:
    """Check a job against its model's class and files, on the device that `device=auto` stands for.

    `without_files` leaves out what needs files of the model that are not on this machine.

    Raises:
        InputError: the first problem.
    """
    problems = list(device_problems(cfg.offload, cfg.network_precision, device.type))
    if problems:
        raise InputError("; ".join(problems))
    _check_tracks(cfg)
    _check_blocks(cfg)
    _check_probed(references, cfg)
    if not without_files:
        _check_captions(references, cfg)
    check_boundary(cfg, local_files_only=without_files)
    _check_attention(cfg)
    check_grid(cfg)


def _check_tracks(cfg: JobConfig) -> None:
    """Raises InputError where videos are too small or too short for metrics that follow points."""
    if cfg.probe is not None or cfg.scoring.tracker_weights is not None:
        return
    names = [spec.name for spec in chosen_metrics(cfg.metrics) if "tracks" in spec.needs]
    if not names:
        return
    try:
        check_trackable(cfg.frames, cfg.model.height, cfg.model.width)
    except InputError as error:
        raise InputError(
            f"metrics=[{','.join(names)}]: {error}; name other metrics, or take larger videos"
        ) from error


def _check_blocks(cfg: JobConfig) -> None:
    """Raises InputError for settings of a network's blocks where a backbone does not move its blocks."""
    names = {"offload": cfg.offload in GROUPED, "network_precision": cfg.network_precision != "auto"}
    for name in (name for name, is_set in names.items() if is_set):
        if not _backbone_class(cfg.model).moves_blocks:
            value = getattr(cfg, name)
            raise InputError(f"{name}={value}: the backbone of model={cfg.model.name} has no such setting")


def check_backbone(
    backbone: Backbone,
    probe: str | None,
    probe_steps: int,
    stg_scale: float,
    stg_blocks: Sequence[int] | None,
) -> None:
    """Check what the network's blocks and its schedule decide; loads no weights.

    Raises:
        InputError: it lacks the blocks of `stg_blocks=` or self-attention in them, or some timesteps of a
            probe's grid have no step.
    """
    if probe in TREES:
        step_blocks(backbone.schedule, probe_steps)
    if stg_scale and probe is None:
        try:
            perturbed_places(backbone, stg_blocks or ())
        except InputError as error:
            raise InputError(f"stg_blocks={stg_blocks}: {error}") from error


def lacks_files(model: ModelConfig) -> bool:
    """Whether some of the model's files are still on its hub; asks no hub."""
    return is_to_fetch(model.path, model.revision, _backbone_class(model).parts)


def is_planned_first(model: ModelConfig, dry_run: bool) -> bool:
    """Whether a job's model is still on its hub, and its dry run can be planned without it; asks no hub."""
    if dry_run or not lacks_files(model):
        return False
    try:
        find_configuration(model.path, model.revision, _backbone_class(model).parts)
    except InputError:
        return False
    return True


def _backbone_class(model: ModelConfig) -> type[Backbone]:
    backbone_class: type[Backbone] = get_object(model._target_.rpartition(".")[0])
    return backbone_class


def check_boundary(cfg: JobConfig, *, local_files_only: bool = False) -> None:
    """Raises InputError if `tau=auto` took a boundary that was found on other weights; loads none.

    With `local_files_only` nothing is fetched, and a hub's model that is not on this machine is not checked.
    """
    if cfg.tau_from != "boundary":
        return
    model = cfg.model
    try:
        folder = find_folder(model.path, model.revision, local_files_only, _backbone_class(cfg.model).parts)
    except InputError:
        if local_files_only:
            return
        raise
    weights = weights_hash(folder, _backbone_class(cfg.model).parts)
    if model.boundary_weights is None or not weights.startswith(model.boundary_weights):
        raise InputError(
            f"tau=auto: the boundary {model.boundary:g} of model={model.name} was found on weights"
            f" {model.boundary_weights}, and those of {model.path} are {weights[:12]}: run the probes again,"
            " or give tau= a number"
        )


def _check_probed(references: list[Reference], cfg: JobConfig) -> None:
    """Raises InputError for motion edits in partial guidance, which has no control for them."""
    if cfg.probe == "partial_guidance" and any(
        edit.kind == "motion" for reference in references for edit in reference.edits
    ):
        raise InputError(
            "probe=partial_guidance: edits of the motion alone are for probe=tampering; leave them out with"
            " edit_kinds="
        )


def _check_captions(references: list[Reference], cfg: JobConfig) -> None:
    """Raises InputError with all problems of all captions of the job."""
    captions = [cfg.negative_prompt]
    for reference in references:
        captions += [reference.caption, *(edit.caption for edit in reference.edits)]
    path, revision = cfg.model.path, cfg.model.revision
    problems = _backbone_class(cfg.model).caption_problems(
        path, list(dict.fromkeys(captions)), revision=revision
    )
    if problems:
        raise InputError("\n".join(problems))


def _check_attention(cfg: JobConfig) -> None:
    """Raises InputError if the model's family lacks attention that is tuned, or that the method needs."""
    uses_method = cfg.adapter is None and cfg.tau != 1000 and cfg.probe is None
    if uses_method and not is_guidance(cfg.method, cfg.plugins):
        needs, attentions = get_object(cfg.method["_target_"]).needs, _backbone_class(cfg.model).attentions
        for problem in missing_attention(method_name(cfg.method), needs, cfg.model.name, attentions):
            raise InputError(problem)
    choices = (*_backbone_class(cfg.model).attentions, "all")
    if cfg.attention not in choices:
        raise InputError(
            f"attention={cfg.attention}: {cfg.model.name} has no such attention apart from its motion"
            f" attention; one of {', '.join(choices)}"
        )


MOST_NAMED = 6
TREES = ("tampering", "partial_guidance")  # the probes whose condition changes at blocks of timesteps


def check_grid(cfg: JobConfig) -> None:
    """Check that the model's schedule has the same number of a probe's steps in each block of timesteps.

    A job without such a probe passes. Only `check_backbone` checks a hub's model that is not on this
    machine, a backbone that is no pipeline, and flow matching, whose timesteps may depend on the size of
    videos.

    Raises:
        InputError: it has not; names the nearest numbers of steps that would do.
    """
    backbone_class = _backbone_class(cfg.model)
    if cfg.probe not in TREES or not issubclass(backbone_class, PipelineBackbone):
        return
    try:
        folder = find_folder(cfg.model.path, cfg.model.revision, True, ("scheduler",))
    except InputError:
        return
    schedule = backbone_class.schedule_of(folder)
    if not isinstance(schedule, NoiseSchedule):
        return
    if cfg.timestep_spacing is not None:
        schedule = replace(schedule, timestep_spacing=cfg.timestep_spacing)
    if _fits(schedule, cfg.probe_steps):
        return
    blocks = len(EDGES) - 1
    fitting = [steps for steps in range(blocks, TIMESTEPS + 1, blocks) if _fits(schedule, steps)]
    nearest = sorted(sorted(fitting, key=lambda steps: abs(steps - cfg.probe_steps))[:MOST_NAMED])
    raise InputError(
        f"probe_steps={cfg.probe_steps}: with the {schedule.timestep_spacing} timesteps of"
        f" model={cfg.model.name} not every {BLOCK} timesteps have as many steps;"
        f" {', '.join(map(str, nearest)) or 'no number'} would do"
    )


def _fits(schedule: NoiseSchedule, steps: int) -> bool:
    try:
        step_blocks(schedule, steps)
    except InputError:
        return False
    return True
