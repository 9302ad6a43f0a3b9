"""What follows from the settings of a job: its loggers, the base model's job, and what rows hold of them."""

from dataclasses import asdict, replace
from typing import Any

from motionexp.config.schema import JobConfig, tiles
from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import names_in

OF_BASE = tuple(
    name
    for name in names_in(JobConfig, lambda about: {"cell", "content", "sampling"} & {*about.stages})
    if name not in ("references", "training_seeds", "adapter")
)
"""The settings that the base model's samples of a reference and their scores depend on."""


def loggers(named: object) -> list[str]:
    """The loggers of a job, of which `logger=` names one or a list."""
    return [str(name) for name in named] if isinstance(named, list) else [str(named)]


def base_settings(cfg: JobConfig) -> JobConfig:
    """The settings of the base model's job: without those of windows beside tau, which it has none of."""
    return replace(
        cfg,
        tau=1000.0,
        tau_from="given",
        tau_high=1000.0,
        soft_window=None,
        sampling_tau=None,
        sampling_tau_high=None,
        inverted_noise=0.0,
        adapter=None,
    )


def is_base_job(cfg: JobConfig) -> bool:
    """Whether a job is the base model's: all its cells are."""
    return cfg.tau == 1000 and cfg.adapter is None and cfg.probe is None


def makes_base(cfg: JobConfig) -> bool:
    """Whether a job makes cells of the base model beside its own."""
    return cfg.base_model and cfg.tau != 1000 and cfg.probe is None


def plain_settings(cfg: JobConfig) -> dict[str, Any]:
    """All settings as plain values; `batch_size` is that of one batch a step on one rank, as rows have it."""
    batch = {"batch_size": cfg.trainer.draws(cfg.batch_size)}
    return asdict(cfg) | batch | dict.fromkeys(idle_settings(cfg.stg_scale))


def idle_settings(stg_scale: float) -> tuple[str, ...]:
    """The settings whose values change nothing beside the others: no id holds them, and rows have null."""
    return () if stg_scale else ("stg_blocks",)


def row_settings(cfg: JobConfig) -> dict[str, Any]:
    """The resolved settings that determine a result, as plain values, which rows hold."""
    matters = {"mode": tiles(cfg.mode, cfg.model), "adapter": cfg.adapter is not None}
    matters["network_precision"] = cfg.network_precision != "auto"
    names = names_in(JobConfig, lambda about: about.rows == "always")
    plain = plain_settings(cfg)
    # The model of rows has the settings of its own recipe, which are the defaults, and no other recipe.
    model = plain["model"] | cfg.model.recipes.get(cfg.model.recipe or "", {})
    plain["model"] = {name: value for name, value in model.items() if name != "recipes"}
    # Rows from before a setting was added lack it, and are compared with rows of its default.
    added = names_in(ScoringConfig, lambda about: about.added_later)
    plain["scoring"] = {
        name: value for name, value in plain["scoring"].items() if value is not None or name not in added
    }
    return {name: value for name, value in plain.items() if name in names or matters.get(name)}
