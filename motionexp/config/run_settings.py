"""The settings of a job as rows and loggers show them, resolved once. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motionexp.config.ids import sampling_id
from motionexp.config.job_settings import loggers, row_settings
from motionexp.config.schema import JobConfig, guides, method_name, training_seeds, trains


@dataclass(frozen=True)
class RunSettings:
    """The settings of a job as rows and loggers show them.

    Attributes:
        rows: that rows hold.
        sampling: the id of those of the sampling.
        model, method: their names.
        tau: the window's lower end; None: that of the stored adapter.
        training_seeds: of the adapters of one reference.
        trains: whether an adapter is trained in each cell.
        guides: whether a guidance method samples, which trains nothing.
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
    training_seeds: tuple[int, ...]
    trains: bool
    guides: bool
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
        where = tuple(loggers(cfg.logger)), cfg.log_adapter
        tau = None if cfg.tau is None else float(cfg.tau)
        training = tuple(training_seeds(cfg)), trains(cfg), guides(cfg)
        return cls(*names, tau, *training, is_base, cfg.scoring.pairs, *where)
