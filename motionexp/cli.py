"""The command: `python run.py`, or `motionexp` where the package is installed. No torch before a job runs."""

import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp import help
from motionexp.config.compose import CONF, check_source_of_plugins, explain, prepared, read
from motionexp.config.score import load_score
from motionexp.config.targets import check_allowed
from motionexp.data.select import check_source
from motionexp.errors import InputError
from motionexp.jobs.experiment import check_sweep, experiment_jobs, experiment_text
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import to_markdown
from motionexp.results.layout import selected_rows
from motionexp.results.tables import build

# Errors of the user's input or machine: one line is printed. Any other exception is a defect of this package.
EXPECTED = (
    *(InputError, HydraException, OmegaConfBaseException),
    *(OSError, FloatingPointError, KeyboardInterrupt),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (failed) or 2 (wrong input)."""
    # Without this, Hydra prints the user's mistakes as shortened tracebacks.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not sys.stderr.isatty():
        # In a log file a progress bar is a line, and one every half minute is enough.
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except EXPECTED as error:
        return _failed(error)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _failed(error: BaseException) -> int:
    """Print an error's message; returns the exit code."""
    message, code = str(error), 1
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command continues where it stopped"
    elif isinstance(error, InputError):
        code = 2
    elif isinstance(error, HydraException | OmegaConfBaseException):
        message, code = explain(error), 2
    print("error:", "\n       ".join(message.splitlines()), file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(help.help_text())
    elif arguments[:1] == ["list"]:
        print(help.listed(arguments[1:]))
    elif arguments[:1] == ["score"]:
        cfg = load_score(arguments[1:])
        from motionexp.jobs.external import score_external  # which imports torch

        score_external(cfg)
    elif arguments[:1] == ["submission"]:
        _write_submission(arguments[1:])
    elif experiments := [word for word in arguments if word.startswith("experiment=")]:
        rest = [word for word in arguments if word not in (*experiments, "-m", "--multirun")]
        _run_experiment(experiments[-1].removeprefix("experiment="), rest)
    else:
        _run_hydra(arguments)


def _write_submission(arguments: list[str]) -> None:
    """`folder=` and `samples=` are paths; other arguments select samples by the fields of their rows."""
    select = {key: value for key, sign, value in (word.partition("=") for word in arguments) if sign}
    if len(select) != len(arguments) or not {"folder", "samples"} <= set(select):
        raise InputError("submission needs folder=NEW and samples=outputs/tgve/MODEL; tau=, seed= ... select")
    folder, samples = Path(select.pop("folder")).expanduser(), Path(select.pop("samples")).expanduser()
    from motionexp.jobs.submission import write_submission

    count, whole = write_submission(samples, folder, select)
    print(f"{count} of the benchmark's {whole} videos written to {folder}")


def _run_hydra(arguments: list[str]) -> None:
    if not {"-m", "--multirun"} & set(arguments):
        arguments = prepared(arguments)
    if {"-c", "--cfg"} & set(arguments):
        arguments = [*arguments, "--resolve"]
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        _job()
    finally:
        sys.argv = before


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(composed: DictConfig) -> None:
    try:
        _run_job(composed)
    except EXPECTED as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        # Hydra would list all overrides before the error; an exit it lets through.
        raise SystemExit(_failed(error)) from error


def _run_job(composed: DictConfig) -> None:
    cfg = read(composed, cast(DictConfig, HydraConfig.get()))
    check_source(cfg)
    if cfg.probe is not None:
        # Importing torch takes seconds, in which nothing else would show.
        print(f"probe={cfg.probe} model={cfg.model.name}: loading", flush=True)
    from motionexp.jobs.dry_run import plan
    from motionexp.jobs.probe_job import probe
    from motionexp.jobs.run import run

    (plan if cfg.dry_run else probe if cfg.probe else run)(cfg)


class SweepCallback(Callback):
    """Hydra's callback: checks all jobs of a sweep before the first starts, and names the jobs that fail."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        task = list(config.hydra.overrides.task)
        overrides = [*(f"{key}={value}" for key, value in params.items()), *task]
        try:
            check_source_of_plugins(params.get("plugins"), ())
            check_sweep(overrides)
        except InputError as error:
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            raise SystemExit(_failed(error)) from error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN and job_return.status == JobStatus.FAILED:
            overrides = " ".join(job_return.overrides or [])
            print(f"error: job {overrides} failed: {job_return._return_value}", file=sys.stderr)


def _run_experiment(name: str, overrides: list[str]) -> None:
    """Check every sweep of `experiments/NAME.yaml`, run them in this process, and print the tables.

    A dry run prints the list of jobs, and each job's plan.
    """
    layout, sweeps, jobs = experiment_jobs(name, overrides)
    if all(cfg.dry_run for cfg in jobs):
        print(experiment_text(name, layout, jobs))
    for sweep in sweeps:
        _run_hydra(["-m", *sweep.arguments])
    for output in sorted({cfg.output for cfg in jobs if not cfg.dry_run}):
        comparison = Comparison(layout, selected_rows(layout, Path(output)))
        for table_layout in layout.tables:
            for table in build(comparison, table_layout):
                print(to_markdown(table))
        print(f"Rows, videos and contact sheets: {Path(output).resolve()}")
        if layout.report:
            check_allowed(layout.report, setting="report", kind=ast.FunctionDef)
            get_method(layout.report)(layout, Path(output))


if __name__ == "__main__":
    sys.exit(main())
