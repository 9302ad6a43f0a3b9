"""The table at the end of a sweep, and `table`: rows of jobs, or of a folder, by some settings."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from rich.console import Console

from motionexp.config.command_line import override_key
from motionexp.config.commands import TableConfig, command_settings
from motionexp.config.job_settings import loggers, plain_settings
from motionexp.config.ranks import rank_of
from motionexp.config.schema import JobConfig, method_name, training_seeds
from motionexp.config.settings import names_in
from motionexp.data.clip import Clip
from motionexp.data.select import make_reader, subjects_of
from motionexp.errors import InputError
from motionexp.files import file_name, plain_name, user_path, write_whole
from motionexp.jobs.failures import failures
from motionexp.jobs.results_folder import ResultsFolder
from motionexp.jobs.sweep_folder import SweepFolder
from motionexp.jobs.sweep_plan import cells_of_sweep
from motionexp.jobs.sweeps import as_text, in_a_line
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import Table, to_csv, to_markdown
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.rows import Row, read_rows
from motionexp.results.selection import (
    SAMPLED,
    TRAINED,
    settings_key,
    text_in,
)
from motionexp.results.settings_table import EXTERNAL, differing_names, settings_tables
from motionexp.results.tables import build
from motionexp.results.terminal import print_table

OF_FRAMES = ("start", "fps", "stride", "fit")
OF_SAMPLE = (
    *("suite", "model", "reference", "reference_hash", "edit_kind", "edit_caption"),
    *("seed", "training_seed", "tau_start"),
)
OF_METHOD = names_in(JobConfig, lambda about: "method" in about.stages)
MOST_OF_NAME = 60
"""Characters of the names of settings in a file's name."""


def print_sweep(jobs: Sequence[tuple[JobConfig, Collection[str]]], swept: Sequence[str], done: bool) -> None:
    """Print and store the table of a sweep's jobs; of those that have rows, where one failed.

    Args:
        jobs: the settings of all jobs, and the names of those that were given.
        swept: the names of the swept settings.
        done: whether all jobs ended well.
    """
    if any((rank := rank_of(cfg.trainer)) is not None and rank.number > 0 for cfg, _ in jobs):
        return  # rank 0 speaks for all
    console = Console()
    _print_probes(console, [cfg for cfg, _ in jobs if cfg.probe is not None], swept)
    tuned = [cfg for cfg, _ in jobs if cfg.probe is None]
    if not tuned:
        return
    rows: list[Row] = []
    finished = 0
    for output in dict.fromkeys(cfg.output for cfg in tuned):
        of_output = [cfg for cfg in tuned if cfg.output == output]
        makers = _Makers([JobRows.of(cfg) for cfg in of_output])
        chosen = [row for row in _stored_rows(of_output) if makers.having(row)]
        finished += len({id(maker) for row in chosen for maker in makers.having(row) if maker.made(row)})
        rows += chosen
    if not rows:
        log_summary(tuned, [])
        return  # no job came as far as a score
    count = "1 job" if len(tuned) == 1 else f"{len(tuned)} jobs"
    title = count if done else f"{finished} of {count}"
    # A swept setting may change others with it, as full-rank tuning has a learning rate of its own.
    names = list(dict.fromkeys([*swept, *differing_names(rows)]))
    # Rows hold the draws of a step, and not how they are spread.
    names = [name for name in names if not name.startswith("trainer.")] or ["tau"]
    tables = settings_tables(rows, names, f"{title} by {', '.join(swept or ['tau'])}")
    settings = [json.dumps(asdict(cfg), sort_keys=True, default=str) for cfg in tuned]
    _show(console, tables, user_path(tuned[0].output), swept or ["tau"], settings)
    log_summary(tuned, tables)


def print_experiment(layout: Layout, output: Path, jobs: Sequence[JobConfig]) -> None:
    """Print an experiment's tables of the rows in a folder, and run its report."""
    comparison = Comparison(layout, selected_rows(layout, output))
    tables = [table for table_layout in layout.tables for table in build(comparison, table_layout)]
    for table in tables:
        print_table(Console(), table)
    log_summary(jobs, tables)
    print(f"Rows, videos and contact sheets: {output.resolve()}")
    if layout.report:
        get_method(layout.report)(layout, output)


def log_summary(jobs: Sequence[JobConfig], tables: Sequence[Table]) -> None:
    """Write the run of a whole sweep where its jobs have logger=wandb: tables, a figure and failures."""
    if any("wandb" in loggers(cfg.logger) for cfg in jobs):
        from motionexp.jobs.wandb_sweep import log_sweep  # which imports wandb and matplotlib

        sweep = SweepFolder.of(jobs).path
        log_sweep(user_path(jobs[0].output), sweep.name, tables, failures(cells_of_sweep(sweep)))


def _print_probes(console: Console, jobs: Sequence[JobConfig], swept: Sequence[str]) -> None:
    """Print where the results of each job lie: what probes measure has no table in common."""
    for cfg in jobs:
        texts = as_text(cfg)
        label = in_a_line({name: texts[name] for name in dict.fromkeys(["probe", *swept]) if name in texts})
        folder = results_folder(cfg) / "figures"
        place = f"{folder}/" if folder.is_dir() else "no result"
        console.print(f"{label}: {place}", markup=False, highlight=False, soft_wrap=True)


def table(words: Sequence[str]) -> None:
    """`python run.py table output=... by=tau,rank`: a table of the rows in a folder.

    `by=` are the settings that are columns; without it those in which the rows differ. Other words select
    rows by their settings, fields or strata, as `model=tiny_latte rank=1,4`.

    Raises:
        InputError: no rows, or rows that cannot be compared.
    """
    cfg, select = command_settings("table", TableConfig, words, selects=True)
    output, by = user_path(cfg.output), cfg.by
    rows = ResultsFolder(output).rows(select)
    nothing = InputError(f"{output}: there are no scores of samples, which a job or `score` makes")
    if not any(not row.tau_start for row in rows):
        raise nothing
    names = [override_key(name.strip()) for name in by.split(",")] if by else differing_names(rows)
    if "" in names:
        raise InputError(f"by={by}: names of settings with commas between, as by=tau,rank")
    tables = settings_tables(rows, names, f"{output} by {', '.join(names) or 'tau'}")
    if not tables:  # rows of a model's energies alone
        raise nothing
    chosen = [f"{key}={value}" for key, value in select.items()]
    _show(Console(), tables, output, names or ["tau"], chosen)


@dataclass(frozen=True)
class JobRows:
    """Which rows are of a job's samples, or of the base model on the same references and edits.

    Attributes:
        plain: the job's settings, as JSON has them.
        method: its name in rows.
        references, captions, kinds: of its samples; no captions or kinds: all.
        content_hash: of the user's clip, else empty.
    """

    cfg: JobConfig
    plain: dict[str, Any]
    method: str
    references: frozenset[str]
    captions: frozenset[str]
    kinds: frozenset[str]
    suite: str
    content_hash: str

    @classmethod
    def of(cls, cfg: JobConfig) -> "JobRows":
        """The rows of a job."""
        reader, (names, _) = make_reader(cfg.data), subjects_of(cfg)
        size = cfg.model.height, cfg.model.width
        is_clip = isinstance(reader, Clip)
        return cls(
            cfg,
            json.loads(json.dumps(plain_settings(cfg))),
            method_name(cfg.method),
            frozenset(names),
            frozenset(cfg.edits or ()),
            frozenset(cfg.edit_kinds or ()),
            reader.suite,
            reader.read(names[0], cfg.frames, *size).content_hash if is_clip else "",
        )

    @property
    def is_base(self) -> bool:
        """Whether the job is that of the base model."""
        return self.cfg.adapter is None and self.cfg.tau == 1000

    def has(self, row: Row) -> bool:
        """Whether the row is one of the job's samples, of the base model's, or of a sanity baseline."""
        if (row.suite, row.model) != (self.suite, self.cfg.model.name) or row.tau_start:
            return False
        if row.reference not in self.references or self.content_hash not in ("", row.reference_hash):
            return False
        if not (self._has_edit(row) and self._agrees(row, OF_FRAMES)):
            return False
        if row.sanity_baseline:
            return True
        if row.method == EXTERNAL or (row.seed or 0) >= self.cfg.seeds or not self._samples_like(row):
            return False
        return row.method == "base" or (not self.is_base and self._tunes_like(row))

    def made(self, row: Row) -> bool:
        """Whether a row that the job has is one of its own samples."""
        return not row.sanity_baseline and (row.method != "base" or self.is_base)

    def _has_edit(self, row: Row) -> bool:
        is_caption = not self.captions or row.edit_caption in self.captions
        return is_caption and (not self.kinds or row.edit_kind in self.kinds)

    def _agrees(self, row: Row, names: Collection[str]) -> bool:
        # A setting that a row lacks is newer than the row.
        return all(row.settings[name] == self.plain[name] for name in names if name in row.settings)

    def _samples_like(self, row: Row) -> bool:
        model = row.settings.get("model", {})
        weights = [
            model.get(name) == self.plain["model"][name] for name in ("path", "revision") if name in model
        ]
        return (
            self._agrees(row, (*SAMPLED, "seed"))
            and all(weights)
            and self.cfg.precision in ("auto", row.precision)
        )

    def _tunes_like(self, row: Row) -> bool:
        if self.cfg.adapter is not None:
            return row.settings.get("adapter") == self.cfg.adapter
        method = row.settings.get("method", {})
        same_method = all(method.get(name, value) == value for name, value in self.plain["method"].items())
        return (
            row.settings.get("adapter") is None
            and row.method == self.method
            and row.tau == self.cfg.tau
            and same_method
            and self._agrees(row, [name for name in TRAINED if name not in OF_METHOD])
            # Rows from before training seeds were stored are of the one seed, which all settings name.
            and (row.training_seed is None or row.training_seed in training_seeds(self.cfg))
        )


class _Makers:
    """The jobs of a sweep by their settings: a row is compared with few of a thousand."""

    def __init__(self, jobs: Sequence[JobRows]) -> None:
        self.jobs = jobs
        self._by_settings: dict[tuple[str, ...], dict[tuple[str, ...], list[JobRows]]] = {}
        self._having: dict[tuple[Any, ...], list[JobRows]] = {}
        self._shared: list[Any] = []  # keeps objects whose ids are keys

    def having(self, row: Row) -> list[JobRows]:
        """The jobs whose samples, or base model's or sanity baselines', a row is of.

        It is the same for all metrics of a sample, and rows that were read share their objects.
        """
        about = (*settings_key(row), id(row.strata), *(getattr(row, name) for name in OF_SAMPLE))
        if about not in self._having:
            self._shared += [row.settings, row.strata]
            self._having[about] = [maker for maker in self.of(row) if maker.has(row)]
        return self._having[about]

    def of(self, row: Row) -> list[JobRows]:
        """The jobs that agree with a row in the settings of sampling, and in those of training if any."""
        tuning = () if row.method == "base" or row.settings.get("adapter") else ("tau", *TRAINED)
        names = tuple(
            name for name in (*SAMPLED, "seed", *tuning) if name in row.settings and name not in OF_METHOD
        )
        if row.sanity_baseline:
            names = ()  # it agrees with all
        if names not in self._by_settings:
            by_settings = self._by_settings[names] = defaultdict(list)
            for job in self.jobs:
                by_settings[_texts({"settings": job.plain, "tau": job.plain["tau"]}, names)].append(job)
        return self._by_settings[names].get(_texts(row, names), [])


def _texts(fields: Mapping[str, Any] | Row, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(text_in(fields, name) for name in names)


def _stored_rows(jobs: Sequence[JobConfig]) -> Iterator[Row]:
    """The rows of the suites and models of these jobs."""
    for folder in dict.fromkeys(map(results_folder, jobs)):
        if folder.is_dir():
            yield from read_rows(folder)


def results_folder(cfg: JobConfig) -> Path:
    """The folder of a job's results: of its suite and model."""
    return user_path(cfg.output) / file_name(make_reader(cfg.data).suite) / file_name(cfg.model.name)


def _show(
    console: Console, tables: Sequence[Table], output: Path, names: Sequence[str], about: Sequence[str]
) -> None:
    """Print the first table, and store all as Markdown and CSV under a name of its own."""
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:6]
    file = output / "tables" / f"{plain_name('-'.join(names))[:MOST_OF_NAME]}-{digest}"
    file.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", "\n".join(map(to_markdown, tables))), (".csv", to_csv(tables))):
        write_whole(file.with_name(file.name + suffix), text.encode(errors="backslashreplace"))
    console.print()
    print_table(console, tables[0])
    console.print(
        f"table{', with further scores' * (len(tables) > 1)}: {file}.md and .csv",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
