"""The command: `python run.py`, or `motionexp` where the package is installed. No torch before a job runs."""

import itertools
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp import help
from motionexp.config.compose import CONF, EXPERIMENTS, explain, prepared, read, read_job
from motionexp.config.schema import JobConfig
from motionexp.config.score import load_score
from motionexp.data.select import check_source
from motionexp.errors import InputError
from motionexp.layout_file import read_layout
from motionexp.layouts import Layout, selected_rows
from motionexp.paper_runs import check_real_data, layout_of
from motionexp.shown_jobs import check_shown
from motionexp.sweeps import Sweep, check_comparable_jobs, sweeps_of
from motionexp.table_formats import to_markdown
from motionexp.tables import build

# What the user's input or machine is to blame for: said in a line. Anything else is a mistake of ours.
EXPECTED = (
    *(InputError, HydraException, OmegaConfBaseException),
    *(OSError, FloatingPointError, KeyboardInterrupt),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code: 0, 1 (failed) or 2 (wrong input)."""
    # Hydra would show the user's mistakes as shortened tracebacks; this hands them over as they are.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not sys.stderr.isatty():
        # In a log file a progress bar is a line, and one every half minute is enough.
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except EXPECTED as error:
        return _failed(error)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def _failed(error: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    message, code = str(error), 1
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command goes on where it stopped"
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
        _score(arguments[1:])
    elif arguments[:1] == ["submission"]:
        _write_submission(arguments[1:])
    elif experiments := [each for each in arguments if each.startswith("experiment=")]:
        rest = [each for each in arguments if each not in (*experiments, "-m", "--multirun")]
        _run_experiment(experiments[-1].removeprefix("experiment="), rest)
    else:
        _run_hydra(arguments)


def _score(overrides: list[str]) -> None:
    cfg = load_score(overrides)
    from motionexp.jobs.external import score_external

    score_external(cfg)


def _write_submission(arguments: list[str]) -> None:
    """`folder=` and `samples=` are paths; what else is given chooses samples by what their rows say."""
    given = {key: value for key, sign, value in (each.partition("=") for each in arguments) if sign}
    if len(given) != len(arguments) or not {"folder", "samples"} <= set(given):
        raise InputError(
            "submission folder=NEW samples=outputs/tgve/MODEL, and tau=, seed= or what else chooses"
        )
    folder, samples = Path(given.pop("folder")).expanduser(), Path(given.pop("samples")).expanduser()
    from motionexp.jobs.submission import write_submission

    count, whole = write_submission(samples, folder, given)
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
    cfg = read(composed, HydraConfig.get().runtime.choices)
    check_source(cfg)
    from motionexp.jobs.planning import plan
    from motionexp.jobs.probing import probe
    from motionexp.jobs.running import run

    (plan if cfg.dry_run else probe if cfg.probe else run)(cfg)


class EveryJob(Callback):
    """Checks every job of a multirun before the first starts, and names each that fails."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        overrides = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        try:
            check_sweep(overrides)
        except InputError as error:
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            raise SystemExit(_failed(error)) from error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN and job_return.status == JobStatus.FAILED:
            overrides = " ".join(job_return.overrides or [])
            print(f"error: job {overrides} failed: {job_return._return_value}", file=sys.stderr)


def check_sweep(overrides: Sequence[str]) -> list[JobConfig]:
    """The settings of every job of a sweep, checked; inside a Hydra that is initialised.

    Raises:
        InputError: lists every problem with the jobs that have it.
    """
    problems: dict[str, list[str]] = defaultdict(list)
    checked, jobs = [], list(_jobs(overrides))
    for job in jobs:
        try:
            checked.append(read_job(job.overrides))
            _check_inputs(checked[-1])
        except InputError as error:
            for problem in str(error).splitlines():
                problems[problem].append(job.name)
    if problems:
        lines = [
            problem + (f" ({_which(names)})" if len(names) < len(jobs) else "")
            for problem, names in problems.items()
        ]
        raise InputError("\n".join(lines))
    return checked


def _check_inputs(cfg: JobConfig) -> None:
    """What a job looks at before it loads weights, as far as it is on this machine already."""
    check_source(cfg)
    if cfg.probe is not None:
        from motionexp.probes.grid import check_grid

        check_grid(cfg)
    if cfg.tau_from == "boundary":
        from motionexp.jobs.inputs import check_boundary

        check_boundary(cfg, local_files_only=True)


def _which(names: Sequence[str]) -> str:
    return f"in job {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


class SweptJob(NamedTuple):
    """One job of a sweep: what tells it from the others, and all its overrides."""

    name: str
    overrides: list[str]


def _jobs(overrides: Sequence[str]) -> Iterator[SweptJob]:
    """None where a sweeper draws its values as it goes: there each job checks itself."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    fixed: list[str] = []
    swept: list[list[str]] = []
    for each in parser.parse_overrides(list(overrides)):
        if not each.is_sweep_override():
            assert each.input_line is not None
            fixed.append(each.input_line)
        elif each.is_discrete_sweep():
            swept.append([f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()])
        else:
            return
    for values in itertools.product(*swept):
        yield SweptJob(" ".join(values), [*fixed, *values])


def _run_experiment(name: str, overrides: list[str]) -> None:
    """Check every sweep of `experiments/NAME.yaml`, run them in this process, and print the tables.

    A dry run ends with the list of jobs where a model's weights are not here: each job's own plan measures.
    """
    layout, sweeps, jobs = experiment_jobs(name, overrides)
    if all(cfg.dry_run for cfg in jobs):
        print(help.experiment_text(name, layout, jobs))
        if commands := _to_fetch(jobs):
            print("no memory, time and disk of each job: weights are not on this machine yet")
            print("\n".join(commands))
            return
    for sweep in sweeps:
        _run_hydra(["-m", *sweep.arguments])
    for output in sorted({cfg.output for cfg in jobs if not cfg.dry_run}):
        _print_tables(layout, Path(output))
        if layout.report:
            get_method(layout.report)(layout, Path(output))


def _to_fetch(jobs: Sequence[JobConfig]) -> list[str]:
    """The commands that fetch the models of these jobs that are not on this machine; asks no hub."""
    from motionexp.hub import fetch_command, is_to_fetch

    models = dict.fromkeys((cfg.model.path, cfg.model.revision) for cfg in jobs)
    return [fetch_command(*model) for model in models if is_to_fetch(*model)]


def experiment_jobs(name: str, overrides: Sequence[str]) -> tuple[Layout, list[Sweep], list[JobConfig]]:
    """An experiment's layout, its sweeps, and all their jobs, checked.

    Where a line of `paper` is taken, the cost and the table are those of these jobs.

    Raises:
        InputError: no such experiment, or what is wrong with its jobs, with the line they come from.
    """
    path = EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        names = sorted(each.stem for each in EXPERIMENTS.glob("*.yaml"))
        raise InputError(f"experiment={name}: one of {', '.join(names)}")
    layout = read_layout(path)
    if not layout.sweep:
        raise InputError(
            f"experiment={name}: `sweep` in {path} has no line, so that there is nothing to run; a line is"
            " the settings of a sweep, as model=tiny_latte tau=0,700 (the rows of experiment=bench come from"
            " `make bench` instead)"
        )
    sweeps = sweeps_of(layout, name, overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        by_sweep = [_checked_line(path, sweep, overrides) for sweep in sweeps]
    jobs = [cfg for each in by_sweep for cfg in each]
    paper = [
        cfg for sweep, each in zip(sweeps, by_sweep, strict=True) if sweep.key == "paper" for cfg in each
    ]
    check_real_data(name, paper)
    check_comparable_jobs(name, layout, jobs)
    if paper:
        return layout_of(name, layout, jobs), sweeps, jobs
    check_shown(name, layout, jobs, overrides)
    return layout, sweeps, jobs


def _checked_line(path: Path, sweep: Sweep, overrides: Sequence[str]) -> list[JobConfig]:
    """As `check_sweep`; what is wrong is said with the line, and with what the command line adds to it."""
    try:
        return check_sweep(sweep.arguments)
    except (InputError, HydraException) as error:
        added = f" with {' '.join(overrides)}" if overrides else ""
        raise InputError(f"{path}, {sweep.where}{added}:\n{explain(error)}") from error


def _print_tables(layout: Layout, output: Path) -> None:
    rows = selected_rows(layout, output)
    for wanted in layout.tables:
        for table in build(layout, wanted, rows):
            print(to_markdown(table))
    print(f"Rows, videos and contact sheets: {output.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
