"""What follows from the settings of a job: its loggers, the base model's job, and what rows hold of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from motionexp.config.ids import sampling_id
from motionexp.config.ranks import plain_settings
from motionexp.config.schema import JobConfig, method_name, tiles
from motionexp.config.settings import names_in


def loggers(cfg: JobConfig) -> list[str]:
    """The loggers of a job, of which `logger=` names one or a list."""
    return [str(name) for name in cfg.logger] if isinstance(cfg.logger, list) else [str(cfg.logger)]


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
        adapter=None,
    )


def row_settings(cfg: JobConfig) -> dict[str, Any]:
    """The resolved settings that determine a result, as plain values, which rows hold."""
    matters = {"mode": tiles(cfg.mode, cfg.model), "adapter": cfg.adapter is not None}
    names = names_in(JobConfig, lambda about: about.rows == "always")
    return {name: value for name, value in plain_settings(cfg).items() if name in names or matters.get(name)}


@dataclass(frozen=True)
class RunSettings:
    """The settings of a job as rows and loggers show them.

    Attributes:
        rows: that rows hold.
        sampling: the id of those of the sampling.
        model, method: their names.
        tau: the window's lower end; None: that of the stored adapter.
        is_base: whether it is the job of the base model.
        pairs: of frames, of the frame consistency that is shown.
        loggers: their names.
        log_adapter: whether W&B stores the adapters too.
    """

    rows: Mapping[str, Any]
    sampling: str
    model: str
    method: str
    tau: float | None
    is_base: bool
    pairs: str
    loggers: tuple[str, ...]
    log_adapter: bool

    @classmethod
    def of(cls, cfg: JobConfig) -> "RunSettings":
        """Those of a job."""
        is_base = cfg.adapter is None and cfg.tau == 1000
        method = "base" if is_base else method_name(cfg.method)
        names = row_settings(cfg), sampling_id(cfg), cfg.model.name, method
        where = tuple(loggers(cfg)), cfg.log_adapter
        tau = None if cfg.tau is None else float(cfg.tau)
        return cls(*names, tau, is_base, cfg.scoring.pairs, *where)
