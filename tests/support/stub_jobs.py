"""Jobs that write down what the command hands them, in the place of those that import torch."""

from collections.abc import Sequence
from types import ModuleType

from motionexp.cli import main
from motionexp.config.schema import JobConfig, ScoreConfig


class Jobs(ModuleType):
    """Stands for the modules of `motionexp.jobs` that import torch: writes down what it was handed."""

    def __init__(self) -> None:
        super().__init__("motionexp.jobs")
        self.ran: list[JobConfig] = []
        self.planned: list[JobConfig] = []
        self.scored: list[ScoreConfig] = []
        self.error: dict[float | None, BaseException] = {}

    def run(self, cfg: JobConfig) -> None:
        self.ran.append(cfg)
        if cfg.tau in self.error:
            raise self.error[cfg.tau]

    def probe(self, cfg: JobConfig) -> None:
        self.ran.append(cfg)

    def plan(self, cfg: JobConfig) -> list[str]:
        self.planned.append(cfg)
        return []

    def plan_sweep(self, cfgs: Sequence[JobConfig]) -> list[str]:
        self.planned += cfgs
        return []

    def score_external(self, cfg: ScoreConfig) -> None:
        self.scored.append(cfg)


def run(arguments: list[str]) -> int:
    """The exit code, also where Hydra itself ends the process."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
