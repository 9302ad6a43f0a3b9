"""What the command does with its arguments. No torch before a job runs."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from motionexp.cli import completion, help
from motionexp.cli.subcommands import OF_ARGUMENTS, run_command
from motionexp.config.checks import check_device
from motionexp.config.command_line import COMMANDS, check_not_empty, check_once, override_key, prepared
from motionexp.config.compose import check_source_of_plugins, read, typed_names
from motionexp.config.effects import check_effects
from motionexp.config.flags import split_flags
from motionexp.config.launcher import Launcher, load_launcher, split_launcher
from motionexp.config.options import CONF
from motionexp.config.ranks import check_ranks
from motionexp.config.schema import JobConfig
from motionexp.data.select import check_source
from motionexp.errors import InputError, Stopped, stoppable
from motionexp.files import version
from motionexp.jobs.ends import EXPECTED, explained
from motionexp.jobs.engine_basic import in_this_process
from motionexp.jobs.experiment import (
    Job,
    check_sweep,
    experiment_jobs,
    experiment_text,
    sweep_jobs,
    swept_names,
)
from motionexp.jobs.failures import (
    CellsFailed,
    JobEnds,
    failures_of,
    in_one_line,
    print_failures,
    stops_all,
)
from motionexp.jobs.kept import drop_kept, keeping
from motionexp.jobs.launch import launch
from motionexp.jobs.pages.report.command import report_jobs
from motionexp.jobs.sweep_folder import in_task
from motionexp.jobs.sweep_table import print_experiment, print_sweep
from motionexp.jobs.sweeps import check_training_versions
from motionexp.jobs.waiting import loading_libraries
from motionexp.results.formats import printable

# Whether the sweep that runs is a line of an experiment.
IN_EXPERIMENT = ContextVar("IN_EXPERIMENT", default=False)
# The jobs of the sweep that runs, and the names of its swept settings; none before they were checked.
SWEEP: ContextVar[tuple[list[Job], list[str]]] = ContextVar("SWEEP")
# What ends with the sweep that this process runs.
IN_SWEEP: ContextVar[ExitStack] = ContextVar("IN_SWEEP")
# How jobs of the sweep that runs, or of the experiment, have ended.
ENDS: ContextVar[JobEnds] = ContextVar("ENDS")
# What was typed.
COMMAND: ContextVar[list[str]] = ContextVar("COMMAND")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, which `docs/usage.md` explains."""
    # Without this, Hydra prints the user's mistakes as shortened tracebacks.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not sys.stderr.isatty():
        # In a log file a progress bar is a line, and one every half minute is enough.
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding than UTF-8 lacks letters; half of a character no terminal has.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with stoppable(), keeping():
        try:
            _dispatch(list(sys.argv[1:] if arguments is None else arguments))
            # What is still buffered may be all of the output, and its reader may be gone.
            if sys.stdout is not None:
                sys.stdout.flush()
        except EXPECTED as error:
            return _failed(error)
        except SystemExit as stop:
            # rich leaves so where nobody reads its output.
            if isinstance(stop.__context__, BrokenPipeError):
                return _failed(stop.__context__)
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _failed(error: BaseException) -> int:
    """Print an error's message; returns the exit code."""
    message, code = explained(error)
    if isinstance(error, CellsFailed):
        print_failures(Console(), error.failures)
    if isinstance(error, OSError) and error.filename is None and sys.stdout is not None:
        # Perhaps of the output itself: else Python would try to write the rest at its end, and fail again.
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    # Names out of data may hold characters that command a terminal.
    lines = map(printable, message.splitlines())
    with suppress(OSError, ValueError):
        print("error:", "\n       ".join(lines), file=sys.stderr)
    return code


def run_commands(commands: list[list[str]]) -> int:
    """Run the commands of a task, as many of them as no signal stops; returns the greatest exit code."""
    codes = [0]

    def run(command: list[str]) -> None:
        if max(codes) <= 128:
            codes.append(main(command))

    # All of them run, also after one that ends in an error of this package, which is raised at the end.
    with stoppable(), keeping(), ExitStack() as stack:
        for command in commands[::-1]:
            stack.callback(run, command)
    return max(codes)


def _dispatch(arguments: list[str]) -> None:
    COMMAND.set(arguments)
    if {"-h", "--help"} & set(arguments):
        print(help.help_text(next((word for word in arguments if word in COMMANDS), "")))
        return
    if completion.FLAGS & set(arguments):
        _complete(arguments)
        return
    if "--version" in arguments:
        print(f"motionexp {version()}")
        return
    command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    if command in OF_ARGUMENTS:
        OF_ARGUMENTS[command](arguments[1:])
        return
    flags, words = split_flags(arguments[bool(command) :])
    check_once(words)
    check_not_empty(words)
    experiments = [word for word in words if word.startswith("experiment=")]
    if (command or experiments) and flags and (command or set(flags) - {"-m", "--multirun"}):
        raise InputError(f"{flags[0]} has no effect with {command or experiments[0]}: leave it out")
    if command:
        run_command(command, words)
        return
    about_launcher, rest = split_launcher([word for word in words if word not in experiments])
    launcher = load_launcher(about_launcher, rest)
    if about_launcher and not (experiments or {"-m", "--multirun"} & set(flags)):
        raise InputError(f"{about_launcher[0]} has no effect on one job: add -m, or leave it out")
    if experiments:
        _run_experiment(experiments[0].removeprefix("experiment="), rest, launcher)
    elif launcher is not None and set(flags) <= {"-m", "--multirun"}:
        _launch_sweep(rest, launcher)
    else:
        _run_hydra([*flags, *prepared(rest)])


def _complete(arguments: list[str]) -> None:
    """Print what the shell asks for: a script to install, or the words that a line may go on with."""
    if not any(word.startswith("query=") for word in arguments):
        _run_hydra(arguments)
        return
    words, is_of_command = completion.completions(os.environ.get("COMP_LINE", ""))
    print(" ".join(words))
    # A line that is half typed may be none that Hydra reads: then nothing completes it.
    with suppress(InputError, HydraException, OmegaConfBaseException):
        if not is_of_command:
            _run_hydra(arguments)


def _launch_sweep(words: list[str], launcher: Launcher) -> None:
    """Run a sweep of jobs through a launcher, and print its table."""
    overrides = prepared(words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        jobs = check_sweep(overrides)
    check_effects(jobs)
    check_training_versions(cfg for cfg, _ in jobs)
    settings = [cfg for cfg, _ in jobs]
    is_dry = any(cfg.dry_run for cfg in settings)
    failed = launch(sweep_jobs([words], settings), launcher, COMMAND.get(), run_commands, dry=is_dry)
    if is_dry:
        _print_sweep_cost(settings)
        return
    print_sweep(jobs, swept_names(overrides), not failed)
    report_jobs(settings)
    JobEnds(failed).check()


def _run_hydra(arguments: list[str]) -> None:
    """Run Hydra on flags and on overrides in its form (`prepared`)."""
    if {"-c", "--cfg"} & set(arguments):
        arguments = [*arguments, "--resolve"]
    before, is_done, is_part = sys.argv, False, in_task()
    sys.argv = [before[0], *arguments]
    SWEEP.set(([], []))
    if not IN_EXPERIMENT.get():
        ENDS.set(JobEnds())
    failed_before = len(ENDS.get().failed)
    try:
        with ExitStack() as stack:
            IN_SWEEP.set(stack)
            _job()
        is_done = True
    except (KeyboardInterrupt, Stopped, BrokenPipeError):
        SWEEP.set(([], []))  # the same command makes the table when it is through
        raise
    except Exception:
        # Hydra raises the first failure of a sweep after its last job.
        if len(ENDS.get().failed) == failed_before:
            raise
    finally:
        sys.argv = before
        jobs, swept = SWEEP.get()
        if not (is_part or any(cfg.dry_run for cfg, _ in jobs)):
            print_sweep(jobs, swept, is_done)
            if not IN_EXPERIMENT.get():
                report_jobs([cfg for cfg, _ in jobs])
    if not IN_EXPERIMENT.get():  # whose next line runs first
        ENDS.get().check()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(composed: DictConfig) -> None:
    try:
        _run_job(composed)
    except Stopped:
        raise
    except EXPECTED as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        # Hydra would list all overrides before the error; an exit it lets through.
        raise SystemExit(_failed(error)) from error


def _run_job(composed: DictConfig) -> None:
    hydra_config = cast(DictConfig, HydraConfig.get())
    cfg = read(composed, hydra_config)
    if hydra_config.mode == RunMode.RUN:  # a sweep's jobs were checked together
        check_effects([(cfg, typed_names(hydra_config))])
    check_source(cfg)
    if not cfg.dry_run or cfg.device != "cuda":  # a plan may be for another machine's GPU
        check_device(cfg.device)
    if not cfg.dry_run:
        check_ranks(cfg)
    if cfg.dry_run:
        with loading_libraries():
            from motionexp.jobs.dry_run import plan
        if problems := plan(cfg):
            raise InputError("\n".join(problems))
    elif cfg.probe:
        with loading_libraries():
            from motionexp.jobs.probe_job import probe
        probe(cfg)
    else:
        from motionexp.jobs.run import run  # which imports torch only if the job is not finished

        run(cfg)
    if hydra_config.mode == RunMode.RUN:
        report_jobs([cfg])


def _print_sweep_cost(jobs: Sequence[JobConfig]) -> None:
    """Print one plan of all jobs of a sweep. Raises InputError for what this machine lacks."""
    with loading_libraries():
        from motionexp.jobs.sweep_cost import plan_sweep
    if problems := plan_sweep(jobs):
        raise InputError("\n".join(problems))


class SweepCallback(Callback):
    """Hydra's callback: checks all jobs of a sweep before the first starts, and names the jobs that fail."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        # Unresolved: what looks like a reference in free text is none.
        typed: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
        overrides = [*(f"{key}={value}" for key, value in params.items()), *typed["task"]]
        try:
            check_source_of_plugins(params.get("plugins"), ())
            if IN_EXPERIMENT.get() or in_task():  # whose jobs were checked together
                return
            hidden = [word for word in typed.get("hydra", []) if word.startswith("hydra.searchpath=")]
            jobs = check_sweep(overrides, hidden)
            check_effects(jobs)
            settings = [cfg for cfg, _ in jobs]
            check_training_versions(settings)
            SWEEP.set((jobs, swept_names(overrides)))
            if jobs and all(cfg.dry_run for cfg in settings):
                _print_sweep_cost(settings)
                raise SystemExit(0)
            IN_SWEEP.get().enter_context(_in_this_process(settings))
        except (InputError, OSError) as error:
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            raise SystemExit(_failed(error)) from error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if job_return.status == JobStatus.COMPLETED:
            ENDS.get().done += 1
        elif job_return.status == JobStatus.FAILED:
            error, (_, swept) = job_return._return_value, SWEEP.get()
            drop_kept()
            if stops_all(error):
                raise SystemExit(_failed(error))
            words = list(job_return.overrides or [])
            words = [word for word in words if override_key(word) in swept] or words
            job = f"job {' '.join(words)}"
            message = explained(error)[0] if isinstance(error, EXPECTED) else in_one_line(error)
            print(printable(f"error: {job} failed: {message}"), file=sys.stderr)
            if not isinstance(error, EXPECTED):  # a defect of this package
                traceback.print_exception(error)
            if not config.dry_run:  # of which the first problem is the result
                ENDS.get().failed.extend(failures_of(error, job))
            # Hydra holds the error until the sweep ends, and its frames would hold the job's model.
            while error is not None:
                traceback.clear_frames(error.__traceback__)
                error = error.__context__


def _run_experiment(name: str, overrides: list[str], launcher: Launcher | None) -> None:
    """Check every sweep of `experiments/NAME.yaml`, run them, here or by a launcher, and print the tables.

    A dry run prints the list of jobs, and one plan of all.
    """
    layout, sweeps, jobs = experiment_jobs(name, overrides)
    lines = [sweep.arguments for sweep in sweeps]
    if all(cfg.dry_run for cfg in jobs):
        print(help.wrapped(experiment_text(name, layout, jobs)))
        if launcher is not None:
            launch(sweep_jobs(lines, jobs), launcher, COMMAND.get(), run_commands, dry=True)
        _print_sweep_cost(jobs)
        return
    ENDS.set(JobEnds())
    if launcher is not None:
        ENDS.set(JobEnds(launch(sweep_jobs(lines, jobs), launcher, COMMAND.get(), run_commands)))
    else:
        _run_lines(lines, jobs)
    for output in sorted({cfg.output for cfg in jobs}):
        try:
            print_experiment(layout, Path(output), [cfg for cfg in jobs if cfg.output == output])
        except InputError as error:
            if not ENDS.get().failed:
                raise
            print(f"no table: {error}", file=sys.stderr)  # rows are missing, for something failed
    report_jobs(jobs)
    ENDS.get().check()


def _in_this_process(jobs: Sequence[JobConfig]) -> AbstractContextManager[None]:
    return in_this_process(jobs, COMMAND.get(), lambda: ENDS.get().failed)


def _run_lines(lines: list[list[str]], jobs: list[JobConfig]) -> None:
    """Run the sweeps of an experiment one after the other in this process."""
    IN_EXPERIMENT.set(True)
    try:
        with nullcontext() if in_task() else _in_this_process(jobs):
            for line in lines:
                _run_hydra(["-m", *prepared(line)])
    finally:
        IN_EXPERIMENT.set(False)
