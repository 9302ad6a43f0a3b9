"""What a job's settings stand for: references, and each stage's settings as its own module takes them."""

from collections.abc import Collection
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from motionexp.config.metrics import CHANCE_REFERENCES, needs_chance_references
from motionexp.config.schema import JobConfig, ScoreConfig, tiles, wanted_references
from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import names_in
from motionexp.data.base import Edit, Reference, References
from motionexp.data.select import select_references
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.cell import FIT_FILE, read_json
from motionexp.jobs.evaluation import SampleSettings
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.training import TrainingSettings
from motionexp.metrics.scorer import TGVE_MODELS, ScoringModels

Size = tuple[int, int, int]  # of a video: frames, height, width
SHARE_OF_FREE_MEMORY = 0.5
PROBED_KINDS = ("multiple", "motion")  # all looks at once, and the motion: what a boundary takes


def read_references(cfg: JobConfig, reader: References) -> list[Reference]:
    """The job's references, with the captions of `edits=` where there are some.

    With a kept adapter and no reference named, it is the one that the adapter was tuned on.

    Raises:
        InputError: a reference that does not exist or cannot be read, or is not the adapter's while nobody
            named another.
    """
    names = reader.names()
    unnamed = cfg.adapter is not None and cfg.video is None and isinstance(cfg.references, int | None)
    own = tuned_on(cfg, reader) if unnamed else None
    wanted = select_references(wanted_references(cfg, len(names)), names)
    references = [_read(cfg, reader, name) for name in wanted] if own is None else [own]
    if cfg.edits is None:
        return [replace(each, edits=_chosen_edits(each, cfg)) for each in references]
    edits = tuple(Edit("caption", caption) for caption in dict.fromkeys(cfg.edits))
    return [replace(reference, edits=edits) for reference in references]


def _chosen_edits(reference: Reference, cfg: JobConfig) -> tuple[Edit, ...]:
    """Those that `edit_kinds=` names; unless it does all, and of a probe those of PROBED_KINDS."""
    edits = reference.edits
    kinds: Collection[str] | None = cfg.edit_kinds
    if cfg.probe == "tampering":
        edits = (*edits, *reference.motion_edits)
    known = [edit.kind for edit in edits]
    if kinds is None and cfg.probe is not None and set(PROBED_KINDS) & set(known):
        kinds = PROBED_KINDS
    elif unknown := [kind for kind in kinds or () if kind not in known]:
        raise InputError(
            f"edit_kinds=[{','.join(unknown)}]: reference {reference.name} has edits of {', '.join(known)}"
        )
    return tuple(edit for edit in edits if kinds is None or edit.kind in kinds)


def _read(cfg: JobConfig, reader: References, name: str) -> Reference:
    return reader.read(name, cfg.frames, cfg.model.height, cfg.model.width)


def tuned_on(cfg: JobConfig, reader: References) -> Reference | None:
    """The reference that a kept adapter was tuned on; None for an adapter from elsewhere.

    Raises:
        InputError: the suite does not have it, or another of that name.
    """
    record = fit_record(Path(cfg.adapter or "").expanduser())
    if not record:
        return None
    name = str(record["reference"])
    if record["suite"] == reader.suite and name in reader.names():
        found = _read(cfg, reader, name)
        if record.get("reference_hash") in (None, found.content_hash):
            return found
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
    return read_json((adapter.parent if adapter.is_file() else adapter) / FIT_FILE) or {}


def chance_references(
    cfg: JobConfig | ScoreConfig, reader: References, size: Size, known: Collection[Reference] = ()
) -> list[Reference]:
    """References against which chance is measured, if anything is: the suite's first that are long enough.

    Those of `known`, which have that size, are not read again.
    """
    if not needs_chance_references(cfg.metrics) and not cfg.scoring.sanity_baselines:
        return []
    there = {each.name: each for each in known}
    names = (name for name in reader.names() if reader.long_enough(name, size[0]))
    # One more: a reference among them is not its own chance.
    return [there.get(name) or reader.read(name, *size) for name in islice(names, CHANCE_REFERENCES + 1)]


def training_window(cfg: JobConfig, tau: float) -> Window:
    """The timesteps that are trained at, and with no other setting applied at."""
    knots = tuple((t, weight) for t, weight in cfg.soft_window or [])
    return Window(tau, max(cfg.tau_high, tau), knots)


def sampling_window(cfg: JobConfig, trained: Window) -> Window:
    """The timesteps that the method acts at while sampling: a hard window where it is not the trained one."""
    if cfg.sampling_tau is None and cfg.sampling_tau_high is None:
        return trained
    low = trained.low if cfg.sampling_tau is None else cfg.sampling_tau
    return Window(low, trained.high if cfg.sampling_tau_high is None else cfg.sampling_tau_high)


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
        keep_steps=tuple(cfg.keep_steps),
        checkpoint_every=cfg.checkpoint_every,
        preview_every=cfg.preview_every,
    )


def scoring_models(scoring: ScoringConfig, closed_vocabulary: bool) -> ScoringModels:
    """Those of `scoring=`; where it names none the bundled ones for the bundled world, and else TGVE's.

    The bundled ones know the bundled world's words alone, as the small backbones do.
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


def sampling_memory(cfg: JobConfig, device: torch.device) -> float:
    """Bytes that sampling may fill: `memory_limit`, or half of what is free now; one video's: 0."""
    if cfg.memory_limit is not None:
        return cfg.memory_limit * 2**30
    if cfg.mode == "low_memory":
        return 0
    return SHARE_OF_FREE_MEMORY * free_memory(device)


def free_memory(device: torch.device) -> float:
    """Bytes that nobody uses now: of a GPU its own, else of main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
