"""What the steps of a sweep's models cost, by which the sweep is cut into tasks. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from motionexp.config.launcher import Launcher
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs.costs import BACKWARD, Rates
from motionexp.jobs.sweep_table import results_folder
from motionexp.jobs.tasks import backbone_of
from motionexp.jobs.waiting import announced, loading_libraries
from motionexp.results.rows import read_rows


class ModelRates:
    """The rates of the models of a sweep, in one unit for all.

    They are those of finished cells. Where a model has none, and tasks are given hours, a step of it is
    measured now. Where seconds are still missing and there are several models, the arithmetic of their steps
    is counted instead, of all of them.

    Args:
        jobs: of the sweep.
        launcher: checked settings.

    Attributes:
        source: where they come from, in words; empty for the steps of one model, which need no seconds.
    """

    def __init__(self, jobs: Sequence[JobConfig], launcher: Launcher) -> None:
        models = {backbone_of(cfg): cfg for cfg in jobs}
        self._rates, self.source = _each(models, of_finished_cells), "the seconds of finished cells"
        if not self.are_measured and launcher.hours is not None and launcher.is_here:
            self.source = "the seconds of finished cells, or of a step that was measured now"
            self._rates |= _each(
                {key: cfg for key, cfg in models.items() if not self._rates[key].is_measured}, measured_now
            )
        if self.are_measured:
            return
        self.source = ""
        if len(models) > 1:
            self._compute(models)

    def _compute(self, models: dict[str, JobConfig]) -> None:
        try:
            self._rates = _each(models, by_arithmetic)
            self.source = "the arithmetic of each model's steps, computed"
        except InputError as error:  # a model of which nothing is here, while its tasks run elsewhere
            self._rates = dict.fromkeys(models, Rates())
            self.source = f"the number of steps, as if those of all models were alike ({error})"

    def of(self, cfg: JobConfig) -> Rates:
        """Those of the model of one of the jobs."""
        return self._rates[backbone_of(cfg)]

    @property
    def are_measured(self) -> bool:
        """Whether all are in seconds of this sweep's machines."""
        return all(rates.is_measured for rates in self._rates.values())


def _each(models: dict[str, JobConfig], rates: Callable[[JobConfig], Rates]) -> dict[str, Rates]:
    return {key: rates(cfg) for key, cfg in models.items()}


def of_finished_cells(cfg: JobConfig) -> Rates:
    """The rates by the rows that a job's model has in `output=`."""
    folder = results_folder(cfg)
    return Rates.of(read_rows(folder)) if folder.is_dir() else Rates()


def measured_now(cfg: JobConfig) -> Rates:
    """The rates of a model by one step of each kind, measured as a dry run does; without weights in units."""
    with loading_libraries():
        from motionexp.jobs.inputs import plan_job
        from motionexp.jobs.measurement import measure
        from motionexp.jobs.memory_plan import rows_of
    plan = plan_job(replace(cfg, dry_run=True))
    if not plan.has_weights:
        return Rates()
    with announced(f"measuring a step of {cfg.model.name} ..."):
        seconds = measure(plan, rows_of(plan))
    sampling = seconds.sampling / seconds.rows
    training = (
        seconds.training / cfg.batch_size if plan.trains and plan.probe is None else BACKWARD * sampling
    )
    return Rates(training, sampling, seconds.decoding, is_measured=True)


def by_arithmetic(cfg: JobConfig) -> Rates:
    """The rates of a model by the FLOP of its steps, as a dry run counts them; no weights are loaded.

    Raises:
        InputError: nothing of the model is here, not even its configuration.
    """
    with loading_libraries():
        from motionexp.jobs.inputs import plan_job
        from motionexp.jobs.stated_costs import step_flops
    with announced(f"counting the arithmetic of a step of {cfg.model.name} ..."):
        plan = plan_job(replace(cfg, dry_run=True))
        seconds = step_flops(plan).seconds(plan)
    sampling = seconds.sampling / seconds.rows
    return Rates(seconds.training / cfg.batch_size or BACKWARD * sampling, sampling)
