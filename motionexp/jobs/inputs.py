"""What a job's settings stand for: references, and each stage's settings as its own module takes them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from hydra.utils import get_object

from motionexp.backbones.base import Backbone
from motionexp.backbones.checkpoint import find_folder, weights_hash
from motionexp.config import InputError, JobConfig, select_references
from motionexp.data.base import Edit, Reference, References
from motionexp.data.shapes.scenes import Scene
from motionexp.evaluation import TGVE_MODELS, SampleSettings, ScoringModels
from motionexp.jobs.cell import FIT_FILE, read_json
from motionexp.methods.base import OptimizerSettings
from motionexp.sampling import SamplerSettings
from motionexp.training import TrainingSettings

# Settings that say where and how a job runs, or what it runs on, and nothing about how a result came about.
NOT_IN_ROWS = {
    *("references", "edits", "edit_kinds", "seeds", "video", "caption", "adapter", "metrics", "data"),
    *("device", "output", "dry_run", "memory_limit", "checkpoint_every", "preview_every", "logger"),
}
CHANCE_REFERENCES = 9
SHARE_OF_FREE_MEMORY = 0.5


def make_reader(cfg: JobConfig) -> References:
    """The suite that `data=` names."""
    arguments = dict(cfg.data)
    reader: References = get_object(arguments.pop("_target_"))(**arguments)
    return reader


def read_references(cfg: JobConfig, reader: References) -> list[Reference]:
    """The job's references, with the captions of `edits=` where there are some.

    With a kept adapter and no reference named, it is the one that the adapter was tuned on.

    Raises:
        InputError: a reference that does not exist or cannot be read, or is not the adapter's while nobody
            named another.
    """
    unnamed = cfg.adapter is not None and cfg.video is None and isinstance(cfg.references, int)
    wanted = (tuned_on(cfg, reader) if unnamed else None) or cfg.references
    references = [_read(cfg, reader, name) for name in select_references(wanted, reader.names())]
    if cfg.edits is None:
        return [_of_kinds(reference, cfg.edit_kinds) for reference in references]
    edits = tuple(Edit("caption", caption) for caption in dict.fromkeys(cfg.edits))
    return [replace(reference, edits=edits) for reference in references]


def _of_kinds(reference: Reference, kinds: list[str] | None) -> Reference:
    if kinds is None:
        return reference
    known = [edit.kind for edit in reference.edits]
    if unknown := [kind for kind in kinds if kind not in known]:
        raise InputError(
            f"edit_kinds=[{','.join(unknown)}]: reference {reference.name} has edits of {', '.join(known)}"
        )
    return replace(reference, edits=tuple(edit for edit in reference.edits if edit.kind in kinds))


def _read(cfg: JobConfig, reader: References, name: str) -> Reference:
    return reader.read(name, cfg.frames, cfg.model.height, cfg.model.width)


def tuned_on(cfg: JobConfig, reader: References) -> str | None:
    """The name of the reference that a kept adapter was tuned on; None for an adapter from elsewhere.

    Raises:
        InputError: the suite does not have it, or another of that name.
    """
    record = fit_record(Path(cfg.adapter or "").expanduser())
    if not record:
        return None
    name = str(record["reference"])
    if record["suite"] == reader.suite and name in reader.names():
        same = record.get("reference_hash") in (None, _read(cfg, reader, name).content_hash)
        if same:
            return name
    own = "video= and caption=" if record["suite"] == "clip" else "data= and data.split="
    raise InputError(
        f"adapter={cfg.adapter}: it was tuned on {name} ({record['suite']}), and its samples would be"
        f" compared with another video: give that one again ({own}), or name one (references=NAME)"
    )


def taken_of(cfg: JobConfig, clip: Reference) -> str:
    """Which part of a clip a job takes, in words."""
    end = cfg.start + len(clip.frames) / clip.fps
    return (
        f"{cfg.video}: {len(clip.frames)} frames, {clip.fps:g} a second, from {cfg.start:g} s to {end:g} s"
        " (start=, fps= and stride= choose others)"
    )


def fit_record(adapter: Path) -> dict[str, Any]:
    """What a training left beside its adapter; empty for an adapter from elsewhere."""
    return read_json(adapter / FIT_FILE) or {}


def chance_scenes(cfg: JobConfig, reader: References, references: list[Reference]) -> list[Scene]:
    """Scenes against which chance is measured: the suite's first, whatever the job's own references."""
    if not isinstance(references[0].truth, Scene):
        return []
    scenes = [_read(cfg, reader, name).truth for name in reader.names()[:CHANCE_REFERENCES]]
    return [scene for scene in scenes if isinstance(scene, Scene)]


def check_size(backbone: Backbone, cfg: JobConfig) -> None:
    """Raises InputError where the model's file and its weights disagree on the size of videos."""
    said = f"{cfg.frames} x {cfg.model.height} x {cfg.model.width}"
    made = f"{backbone.frames} x {backbone.height} x {backbone.width}"
    if said != made:
        raise InputError(
            f"model={cfg.model.name}: its settings say {said} (frames, height, width), its weights {made}:"
            " set model.frames, model.height and model.width"
        )


def check_boundary(cfg: JobConfig) -> None:
    """Raises InputError where `tau=auto` took a boundary that was found on other weights; loads none."""
    if cfg.tau_from != "boundary":
        return
    model = cfg.model
    kind: type[Backbone] = get_object(model._target_.rpartition(".")[0])
    found = weights_hash(find_folder(model.path, model.revision, local_files_only=False), kind.parts)
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
            "probe=partial_guidance: edits of the motion alone are for probe=tampering; leave data=motion out"
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


def sample_settings(cfg: JobConfig) -> SampleSettings:
    """The part of the settings that `sample` takes."""
    sampler = SamplerSettings(cfg.steps, cfg.guidance_scale, cfg.eta, cfg.sampler)
    return SampleSettings(
        sampler, cfg.seed, cfg.negative_prompt, cfg.adapter_scale, cfg.adapter_in_unconditional
    )


def training_settings(cfg: JobConfig) -> TrainingSettings:
    """The part of the settings that `fit` takes."""
    return TrainingSettings(
        steps=cfg.train_steps,
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        optimizer=OptimizerSettings(learning_rate=cfg.learning_rate, weight_decay=cfg.weight_decay),
        checkpoint_every=cfg.checkpoint_every,
        preview_every=cfg.preview_every,
    )


def scoring_models(cfg: JobConfig) -> ScoringModels:
    """The bundled ones know the bundled world's words alone, as the small backbones do; else TGVE's."""
    return ScoringModels() if cfg.model.closed_vocabulary else TGVE_MODELS


def row_settings(cfg: JobConfig) -> dict[str, Any]:
    """The resolved settings that determine a result, as plain values."""
    plain: Mapping[str, Any] = asdict(cfg)
    return {name: value for name, value in plain.items() if name not in NOT_IN_ROWS}


def sampling_memory(cfg: JobConfig, device: torch.device) -> float:
    """Bytes that sampling may fill: `memory_limit`, or half of what is free now."""
    if cfg.memory_limit is not None:
        return cfg.memory_limit * 2**30
    if device.type == "cuda":
        return SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]
    return SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available
