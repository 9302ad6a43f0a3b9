"""Settings that were given and would change nothing. Imports no torch."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Set

from motionexp.config.job_settings import loggers
from motionexp.config.sampling import is_guided
from motionexp.config.schema import RECIPE_SETTINGS, JobConfig, guides, method_name
from motionexp.config.settings import settings_in
from motionexp.errors import InputError

# Beside the settings whose stages say that they belong to training.
OF_TRAINING = (
    "training_seeds",
    "train_together",
    "keep_steps",
    "checkpoint_every",
    "log_adapter",
    "preview_every",
    "checkpointing",
)
GROUP_OF = {
    "rank": "method",
    "alpha": "method",
    "projections": "method",
    "attention": "method",
    "fit": "data",
}
"""Settings that reach a job through a group alone, whose options need not take them."""
OF_CLIPS = ("caption", "start", "fps", "stride")
DEFAULTS_OF_MODEL = {
    "default_tau": "tau",
    "boundary": "tau",
    "train_steps": "train_steps",
    "learning_rate": "learning_rate",
    "full_rank_learning_rate": "learning_rate",
    "batch_size": "batch_size",
    "probe_steps": "probe_steps",
    **{name: name for name in RECIPE_SETTINGS},
}
"""Settings of a model, and the setting of the job whose default they are."""


def check_effects(jobs: Iterable[tuple[JobConfig, Collection[str]]]) -> None:
    """Refuses a setting that has an effect in none of the jobs for which it was given.

    Args:
        jobs: of a run, a sweep or an experiment: their settings, and the names of those that were given.

    Raises:
        InputError: a line for each such setting, with the reason in the first of its jobs.
    """
    reasons: dict[str, list[str | None]] = defaultdict(list)
    for cfg, names in jobs:
        for name in names:
            reasons[name].append(_without_effect(cfg, name))
    problems = [f"{name}=: {of_jobs[0]}" for name, of_jobs in reasons.items() if None not in of_jobs]
    if problems:
        raise InputError("\n".join(problems))


def _without_effect(cfg: JobConfig, name: str) -> str | None:
    """Why a setting that was given changes nothing in a job; None where it has an effect."""
    group, _, key = name.partition(".")
    if group == "model" and key in DEFAULTS_OF_MODEL:
        return _default_without_effect(cfg, key)
    if group == "trainer":
        return _trainer_without_effect(cfg, key)
    if group not in settings_in(JobConfig) or getattr(cfg, name, 0) in (None, []):
        return None
    return next(filter(None, (*_by_stage(cfg, group), *_by_value(cfg, name))), None)


def _trainer_without_effect(cfg: JobConfig, key: str) -> str | None:
    """As `_without_effect`, of a setting of `trainer.`."""
    active, reason = _active(cfg)
    if key == "accumulate" and "training" not in active:
        return f"has no effect {reason}; leave it out"
    if key == "strategy" and cfg.trainer.strategy == "ddp" and cfg.trainer.ranks == 1:
        return "has no effect on one device; leave it out"
    return None


def _default_without_effect(cfg: JobConfig, key: str) -> str | None:
    """As `_without_effect`, of a model's setting that is the default of a setting of the job."""
    name = DEFAULTS_OF_MODEL[key]
    if key == "boundary":
        return None if cfg.tau_from == "boundary" else "has no effect without tau=auto; leave it out"
    if getattr(cfg, name) != getattr(cfg.model, key):
        return f"has no effect, because {name} has another value here; leave it out"
    return next(filter(None, _by_stage(cfg, name)), None)


def _by_stage(cfg: JobConfig, name: str) -> Iterator[str | None]:
    stages = set(settings_in(JobConfig)[name].stages)
    if name in OF_TRAINING:
        stages = {"training"}
    if name == "tau":  # with tau=1000 it is the base model
        stages |= {"sampling"}
    if guides(cfg) and name in ("method", "soft_window"):
        stages = {"applying"}
    active, reason = _active(cfg)
    if stages == {"probe"} and cfg.probe is None:
        yield "has no effect without probe="
    elif stages not in (set(), {"none"}) and not stages & active:
        yield f"has no effect {reason}; leave it out"
    elif name == "seeds" and cfg.probe is not None:
        yield f"has no effect with probe={cfg.probe}, which draws no noise; leave it out"
    elif name == "logger" and cfg.probe is not None:
        yield f"has no effect with probe={cfg.probe}, which trains and samples no adapter; leave it out"
    elif name == "metrics" and cfg.probe is not None:
        yield f"has no effect with probe={cfg.probe}, which has metrics of its own; leave it out"


def _active(cfg: JobConfig) -> tuple[Set[str], str]:
    """The stages that a job has, and why it has no others."""
    if cfg.probe is not None:
        return {"cell", "probe", "content"}, f"with probe={cfg.probe}, which neither trains nor draws noise"
    sampled = {"cell", "content", "sampling"}
    if cfg.adapter is not None:
        return sampled | {"applying"}, "with adapter=, which trains nothing"
    if cfg.tau == 1000:
        return sampled, "with tau=1000, where nothing is trained"
    if guides(cfg):
        return sampled | {
            "applying",
            "method",
        }, f"with method={method_name(cfg.method)}, which trains nothing"
    return sampled | {"applying", "training", "method"}, "where an adapter is trained"


def _by_value(cfg: JobConfig, name: str) -> Iterator[str | None]:
    node = getattr(cfg, GROUP_OF[name]) if name in GROUP_OF else {}
    if name in GROUP_OF and node.get(name) != getattr(cfg, name):
        yield f"{GROUP_OF[name]}= does not take it, or gives another value; leave it out"
    if name in OF_CLIPS and cfg.video is None:
        yield "describes the clip of video=, which is not given; leave it out"
    if name == "image" and cfg.probe is not None:
        yield f"has no effect with probe={cfg.probe}, which takes references' first frames; leave it out"
    if name == "edit_kinds" and cfg.edits is not None:
        yield "edits= replaces the edits of all kinds; leave out one of both"
    if name == "retry" and cfg.probe is not None:
        yield f"has no effect with probe={cfg.probe}; leave it out"
    elif name == "retry" and cfg.train_together == 1 and cfg.memory_limit is None:
        yield "has no effect without train_together= or memory_limit=, which it halves; leave it out"
    if name == "log_adapter" and "wandb" not in loggers(cfg.logger):
        yield "has no effect without logger=wandb; leave it out"
    yield from _guidance_by_value(cfg, name)


def _guidance_by_value(cfg: JobConfig, name: str) -> Iterator[str]:
    unguided = not is_guided(cfg.guidance_scale) and cfg.probe is None
    if name in ("negative_prompt", "adapter_in_unconditional", "dynamic_guidance") and unguided:
        yield "has no effect with guidance_scale=1, which has no unconditional branch; leave it out"
    if name == "stg_blocks" and not cfg.stg_scale:
        yield "has no effect with stg_scale=0; leave it out"
    if name == "guidance_rescale" and cfg.guidance_rescale and unguided and not cfg.stg_scale:
        yield "has no effect with guidance_scale=1 and stg_scale=0, where nothing is guided; leave it out"
    if name == "force_zeros_for_empty_prompt" and getattr(cfg, name) and not _has_empty_caption(cfg):
        yield "has no effect, for no caption is empty; leave it out"


def _has_empty_caption(cfg: JobConfig) -> bool:
    """Whether a job embeds the empty caption: in the unconditional branch, an inversion or a guidance."""
    guided = is_guided(cfg.guidance_scale) or cfg.probe is not None
    reads_empty = guides(cfg) or cfg.inverted_noise > 0 or cfg.inversion_prompt == "empty"
    return (guided and not cfg.negative_prompt) or reads_empty
