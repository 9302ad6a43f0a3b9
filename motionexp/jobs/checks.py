"""What can be wrong with a job that only the backbone's class or files can tell; no weights are loaded."""

import torch
from hydra.utils import get_object

from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.checks import offload_problems
from motionexp.config.schema import JobConfig
from motionexp.data.base import Reference
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import TIMESTEPS, NoiseSchedule
from motionexp.errors import InputError
from motionexp.hub import find_folder
from motionexp.probes.timesteps import BLOCK, EDGES
from motionexp.probes.tree import step_blocks


def check_offload(cfg: JobConfig, device: torch.device) -> None:
    """Raises InputError where `offload=true` cannot do anything on what `device=auto` has become."""
    problems = list(offload_problems(cfg, device.type))
    if problems:
        raise InputError("; ".join(problems))


def check_size(backbone: Backbone, cfg: JobConfig) -> None:
    """Raises InputError where the model's file and its weights disagree on the size of videos."""
    said = f"{cfg.frames} x {cfg.model.height} x {cfg.model.width}"
    made = f"{backbone.frames} x {backbone.height} x {backbone.width}"
    if said != made:
        raise InputError(
            f"model={cfg.model.name}: its settings say {said} (frames, height, width), its weights {made}:"
            " set model.frames, model.height and model.width"
        )


def check_boundary(cfg: JobConfig, *, local_files_only: bool = False) -> None:
    """Raises InputError where `tau=auto` took a boundary that was found on other weights; loads none.

    `local_files_only`: fetch nothing, and say nothing of a hub's model that is not here yet.
    """
    if cfg.tau_from != "boundary":
        return
    model = cfg.model
    kind: type[Backbone] = get_object(model._target_.rpartition(".")[0])
    try:
        folder = find_folder(model.path, model.revision, local_files_only)
    except InputError:
        if local_files_only:
            return
        raise
    found = weights_hash(folder, kind.parts)
    if model.boundary_weights is None or not found.startswith(model.boundary_weights):
        raise InputError(
            f"tau=auto: the boundary {model.boundary:g} of model={model.name} was found on weights"
            f" {model.boundary_weights}, and those of {model.path} are {found[:12]}: run the probes again, or"
            " give tau= a number"
        )


def check_probed(references: list[Reference], cfg: JobConfig) -> None:
    """Partial guidance has no control that motion's edits could be compared with."""
    if cfg.probe == "partial_guidance" and any(
        edit.kind == "motion" for each in references for edit in each.edits
    ):
        raise InputError(
            "probe=partial_guidance: edits of the motion alone are for probe=tampering; leave them out with"
            " edit_kinds="
        )


def check_captions(references: list[Reference], cfg: JobConfig) -> None:
    """Raises InputError with all that is wrong with any caption of the job; loads no weights."""
    model = cfg.model
    kind: type[Backbone] = get_object(model._target_.rpartition(".")[0])
    captions = [cfg.negative_prompt]
    for reference in references:
        captions += [reference.caption, *(edit.caption for edit in reference.edits)]
    problems = kind.caption_problems(model.path, list(dict.fromkeys(captions)), revision=model.revision)
    if problems:
        raise InputError("\n".join(problems))


def check_attention(cfg: JobConfig) -> None:
    """Raises InputError where the model's family lacks the attention to be tuned; loads no weights."""
    kind: type[Backbone] = get_object(cfg.model._target_.rpartition(".")[0])
    if cfg.attention not in (*kind.attentions, "all"):
        raise InputError(
            f"attention={cfg.attention}: {cfg.model.name} has no such attention apart from its motion"
            f" attention; one of {', '.join((*kind.attentions, 'all'))}"
        )


MOST_NAMED = 6


def check_grid(cfg: JobConfig) -> None:
    """See that the model's schedule has as many of a probe's steps in each block; loads no weights.

    Nothing is said of a hub's model that is not here yet: its job fetches it, and then asks again. Nor of a
    backbone that is no pipeline, nor of flow matching, whose timesteps may depend on the size of videos:
    `step_blocks` asks when it is loaded.

    Raises:
        InputError: it has not; names the numbers of steps next to it that would do.
    """
    kind = get_object(cfg.model._target_.rpartition(".")[0])
    if not issubclass(kind, PipelineBackbone):
        return
    try:
        folder = find_folder(cfg.model.path, cfg.model.revision, local_files_only=True)
    except InputError:
        return
    schedule = kind.schedule_of(folder)
    if not isinstance(schedule, NoiseSchedule):
        return
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
