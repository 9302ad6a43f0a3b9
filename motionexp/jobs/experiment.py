"""An experiment's jobs: composed, checked before the first starts, and listed. Imports no torch."""

import ast
import itertools
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException

from motionexp.config.command_line import is_text, override_key, prepared, values_of
from motionexp.config.compose import RENAMED, explain, job_reader
from motionexp.config.effects import check_effects
from motionexp.config.job_settings import plain_settings
from motionexp.config.options import CONF, EXPERIMENTS
from motionexp.config.schema import JobConfig, method_name, training_seeds, trains
from motionexp.config.targets import check_allowed
from motionexp.data.select import check_source, make_reader, subjects_of
from motionexp.errors import InputError, one_of
from motionexp.files import user_path
from motionexp.jobs.paper_table import layout_of
from motionexp.jobs.sweeps import (
    Sweep,
    check_comparable_jobs,
    check_training_versions,
    in_a_line,
    settings_of,
    sweeps_of,
)
from motionexp.jobs.tasks import SweepJob
from motionexp.jobs.waiting import announced
from motionexp.results.formats import amount
from motionexp.results.layout import Layout, has_setting
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row
from motionexp.results.selection import matches

MOST_JOBS = 1000
"""Of a sweep. To check one takes up to a tenth of a second."""


def experiment_text(name: str, layout: Layout, jobs: Sequence[JobConfig]) -> str:
    """What an experiment's jobs are: what they share, in what each differs, and how many samples it makes."""
    same, differences = settings_of(jobs)
    lines, cells, videos = [], 0, 0
    for number, (cfg, differs) in enumerate(zip(jobs, differences, strict=True), start=1):
        names, edits = subjects_of(cfg)
        count = len(names) * len(training_seeds(cfg))
        samples = count * edits * cfg.seeds
        lines.append(
            f"{number:4}. {in_a_line(differs)}: {amount(count, 'cell')}, {amount(edits, 'edit')},"
            f" {amount(cfg.seeds, 'seed')}: {amount(samples, 'sample')}"
        )
        cells, videos = cells + count, videos + samples
    return "\n".join(
        [
            f"experiment={name}: {' '.join(layout.question.split())}",
            f"cost: {' '.join(layout.cost.split())}",
            f"in every job: {in_a_line(same)}",
            *lines,
            f"{amount(len(jobs), 'job')}, {amount(cells, 'cell')}, {amount(videos, 'sample')}",
        ]
    )


Job = tuple[JobConfig, set[str]]
"""The settings of a job, and the names of those that were given for it."""


def check_sweep(overrides: Sequence[str], hidden: Sequence[str] = ()) -> list[Job]:
    """The settings of every job of a sweep, checked; inside a Hydra that is initialised.

    Args:
        overrides: in Hydra's form (`prepared`).
        hidden: overrides of Hydra itself, such as its search path.

    Raises:
        InputError: lists every problem with the jobs that have it.
    """
    jobs_with: dict[str, list[str]] = defaultdict(list)
    checked, (fixed, jobs) = [], _jobs(overrides)
    reader = job_reader([*fixed, *hidden])
    with announced(f"checking the settings of {amount(len(jobs), 'job')} ..."):
        for swept in jobs:
            try:
                cfg = reader.read([*fixed, *hidden, *swept])
                _check_inputs(cfg)
                checked.append((cfg, set(map(override_key, [*fixed, *swept]))))
            except InputError as error:
                for problem in str(error).splitlines():
                    jobs_with[problem].append(" ".join(swept))
    if jobs_with:
        lines = []
        # One line a problem: a wrong setting is wrong in every job of its sweep.
        for problem, (first, *more) in jobs_with.items():
            which = f" (in job {first}" + (f" and {len(more)} more)" if more else ")")
            lines.append(problem + which * (1 + len(more) < len(jobs)))
        raise InputError("\n".join(lines))
    _check_distinct([" ".join(swept) for swept in jobs], [cfg for cfg, _ in checked])
    return checked


def _check_distinct(jobs: Sequence[str], settings: Sequence[JobConfig]) -> None:
    """Raises InputError for two jobs of a sweep with equal settings, as of tau=0,0.0."""
    first_of: dict[str, str] = {}
    for job, cfg in zip(jobs, settings, strict=True):
        first = first_of.setdefault(repr(cfg), job)
        if first is not job:
            raise InputError(f"two jobs of the sweep are the same, {first} and {job}: name each value once")


def _check_inputs(cfg: JobConfig) -> None:
    """What a job looks at before it loads weights, as far as it is on this machine already."""
    check_source(cfg)
    if cfg.probe is not None or cfg.tau_from == "boundary":
        from motionexp.jobs.checks import check_boundary, check_grid  # which imports torch

        check_boundary(cfg, local_files_only=True)
        check_grid(cfg)


def _jobs(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The overrides that all jobs of a sweep have, and those of each job.

    There is no job where a sweeper draws its values as it goes: there each job checks itself.

    Raises:
        InputError: the sweep has no job, or more than `MOST_JOBS`.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(overrides))
    swept = [override for override in parsed if override.is_sweep_override()]
    if not all(override.is_discrete_sweep() for override in swept):
        return [], []
    # Before the values are listed, of which a range may have any number.
    if not 0 < (count := math.prod(map(_number_of_values, swept))) <= MOST_JOBS:
        words = " ".join(str(override.input_line) for override in swept)
        raise InputError(f"{words}: {count:,} jobs; a sweep has from 1 to {MOST_JOBS:,}")
    fixed = [str(override.input_line) for override in parsed if override not in swept]
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        for override in swept
    ]
    return fixed, list(itertools.product(*values))


def _number_of_values(override: Override) -> int:
    """How many values a sweep has, which are not listed. Raises InputError for a range without an end."""
    values = override._value
    if not isinstance(values, RangeSweep):
        return sum(1 for _ in override.sweep_iterator())
    try:
        return max(0, math.ceil(((values.stop or 0) - (values.start or 0)) / values.step))
    except (ArithmeticError, ValueError) as error:
        raise InputError(f"{override.input_line}: a range from a number to a number in steps") from error


def swept_names(overrides: Sequence[str]) -> list[str]:
    """The names of the settings that have several values in a sweep; overrides in Hydra's form."""
    parser = OverridesParser.create()
    parsed = [parser.parse_override(override) for override in overrides]
    return [override_key(str(word.input_line)) for word in parsed if word.is_sweep_override()]


def sweep_jobs(lines: Iterable[Sequence[str]], jobs: Sequence[JobConfig]) -> list[SweepJob]:
    """The jobs of sweeps, each with the words that a user would type for it alone.

    Args:
        lines: the words of each sweep, as they were typed.
        jobs: of all sweeps, in their order, checked.

    Raises:
        InputError: a sweep without an order, or one whose values are drawn while it runs.
    """
    words = [of_job for line in lines for of_job in _typed_jobs(line)]
    return [SweepJob(cfg, tuple(of_job)) for cfg, of_job in zip(jobs, words, strict=True)]


def _typed_jobs(words: Sequence[str]) -> list[list[str]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        for word in words:
            if not is_text(override_key(word)) and re.search(r"=\s*(shuffle|interval)\(", word):
                raise InputError(f"{word}: only hydra/launcher=basic takes it; list the values")
        values = [values_of(word, parser) for word in words]
    return [list(of_job) for of_job in itertools.product(*values)]


def experiment_jobs(name: str, overrides: Sequence[str]) -> tuple[Layout, list[Sweep], list[JobConfig]]:
    """An experiment's layout, its sweeps, and all their jobs, checked.

    Where a line of `paper` is taken, the cost and the table are those of these jobs.

    Raises:
        InputError: no such experiment, or what is wrong with its jobs, with the line they come from.
    """
    path = experiment_file(name)
    layout = read_layout(path)
    if not layout.sweep:
        raise InputError(
            f"experiment={name}: `sweep` in {path} has no line, so that there is nothing to run; a line is"
            " the settings of a sweep, as model=tiny_latte tau=0,700 (the rows of experiment=bench come from"
            " `make bench` instead)"
        )
    sweeps = sweeps_of(layout, name, overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        keyed = [(sweep.key, job) for sweep in sweeps for job in _checked_line(path, sweep, overrides)]
    check_effects(job for _, job in keyed)
    check_training_versions(cfg for _, (cfg, _) in keyed)
    jobs, paper = [cfg for _, (cfg, _) in keyed], [cfg for key, (cfg, _) in keyed if key == "paper"]
    if layout.report:
        check_report(layout.report, jobs[0].plugins)
    check_comparable_jobs(name, layout, jobs)
    if paper:
        return layout_of(name, layout, jobs), sweeps, jobs
    check_shown(name, layout, jobs, overrides)
    return layout, sweeps, jobs


def experiment_file(name: str) -> Path:
    """The file of `experiment=NAME`, or of `experiment=PATH` with a slash or the ending .yaml.

    Raises:
        InputError: there is no such experiment or file.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = user_path(name)
        if not os.path.isfile(path):
            raise InputError(f"experiment={name}: there is no such file")
        return path
    path = EXPERIMENTS / f"{name}.yaml"
    if os.path.isfile(path):
        return path
    if new := RENAMED.get(f"experiment={name}"):
        raise InputError(f"experiment={name}: renamed to {new}")
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    raise InputError(f"experiment={name}: {one_of(name, names)}, or the path of a .yaml file")


def check_report(report: str, plugins: Collection[str]) -> None:
    """Check the function that `report:` names, before any job runs.

    Raises:
        InputError: it is no function of this package or of a plugin, or takes something else than
            a layout and a folder.
    """
    definition = check_allowed(report, plugins, setting="report", kind=ast.FunctionDef)
    assert isinstance(definition.node, ast.FunctionDef)
    types = [ast.unparse(arg.annotation or ast.Constant("")) for arg in definition.node.args.args]
    if types != ["Layout", "Path"]:
        raise InputError(f"report={report}: it must be a function NAME(layout: Layout, output: Path)")


def _checked_line(path: Path, sweep: Sweep, overrides: Sequence[str]) -> list[Job]:
    """As `check_sweep`; what is wrong is said with the line, and with what the command line adds to it."""
    try:
        return check_sweep(prepared(sweep.arguments))
    except (InputError, HydraException) as error:
        raise InputError(f"{path}, {sweep.where}{_with(overrides)}:\n{explain(error)}") from error


def _with(overrides: Sequence[str]) -> str:
    return f" with {' '.join(overrides)}" if overrides else ""


def check_shown(name: str, layout: Layout, jobs: Iterable[JobConfig], overrides: Sequence[str]) -> None:
    """Refuses jobs whose rows no table of the experiment would show: hours of work for an empty table.

    Layouts without a base model have other tables than those of tuning, and are let through.

    Raises:
        InputError: names the first such job and what the command line gave.
    """
    if not any(setting.base for setting in layout.settings.values()):
        return
    for cfg in jobs:
        # Not known before the run, or several in a job, and no reason to refuse it.
        unknown = {"metric", "edit_kind"} | ({"precision"} if cfg.precision == "auto" else set())
        select = {key: value for key, value in layout.select.items() if key not in unknown}
        row = _row_of(cfg)
        if not (matches(row, select) and has_setting(row, layout)):
            raise InputError(
                f"experiment={name}{_with(overrides)}: its tables have no line for the job"
                f" model={cfg.model.name} method={row.method} tau={cfg.tau:g} rank={cfg.rank}"
                f" train_steps={cfg.train_steps} steps={cfg.steps} precision={cfg.precision}. Leave"
                " out what changes it, or copy the"
                " experiment's file and name the setting under `settings` (or, of all jobs, `select`) there"
            )


def _row_of(cfg: JobConfig) -> Row:
    """What tables select by in the rows that the job leaves of its first reference."""
    reader, (names, _) = make_reader(cfg.data), subjects_of(cfg)
    reference = reader.read(names[0], cfg.frames, cfg.model.height, cfg.model.width)
    return Row(
        metric="",
        metric_version=0,
        value=0.0,
        suite=reference.suite,
        reference=reference.name,
        reference_hash=reference.content_hash,
        strata=dict(reference.strata),
        seed=0,
        model=cfg.model.name,
        method="base" if cfg.tau == 1000 else method_name(cfg.method),
        tau=float(cfg.tau),
        steps=cfg.steps,
        train_steps=cfg.train_steps if trains(cfg) else 0,
        adapter_scale=float(cfg.adapter_scale),
        settings=json.loads(json.dumps(plain_settings(cfg))),
        precision=cfg.precision,
    )
