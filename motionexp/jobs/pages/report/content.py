"""All that a report shows, read from the folders of one sweep or of two."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from motionexp.errors import InputError
from motionexp.jobs.failures import Failure, failures
from motionexp.jobs.pages.report.probes import OF_MODELS, Probes, probes_of
from motionexp.jobs.pages.report.references import ShownReference, references_of
from motionexp.jobs.pages.report.samples import Score, ShownSample, sample_order, samples_of, scores_of
from motionexp.jobs.results_folder import ResultsFolder
from motionexp.results.formats import Table
from motionexp.results.rows import Row
from motionexp.results.settings_table import differing_names, settings_tables

Facts = Mapping[str, Sequence[str]]
"""{heading: values in words} of what was run."""


@dataclass(frozen=True)
class Media:
    """A small video of a report: its size in pixels, its frames and their rate."""

    width: int
    height: int
    frames: int
    fps: float


@dataclass(frozen=True)
class Source(ResultsFolder):
    """Where a report's results are read from.

    Attributes:
        name: a letter before all that is of it, where two are compared; empty: there is one.
    """

    name: str = ""


@dataclass
class Content:
    """What a report shows.

    Attributes:
        title: of the report.
        about: sentences below it.
        sources: of its rows.
        samples, references, scores, probes: see there.
        media: {key of a sample, or page of a reference: its small video}; those without one have none.
        problems: {key or page: why it has no video}.
        ranges: {metric: least and most of its values by frame, over all samples}.
        tables: finished tables.
        notes: sentences of the overview, as why there is no table.
        facts: {name of a source: what was run}.
        failed: cells that failed, each with the text of its log.
    """

    title: str
    about: Sequence[str] = ()
    sources: Sequence[Source] = ()
    samples: Sequence[ShownSample] = ()
    references: Sequence[ShownReference] = ()
    scores: Sequence[Score] = ()
    probes: Probes = field(default_factory=Probes)
    media: Mapping[str, Media] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, Facts] = field(default_factory=dict)
    failed: Sequence[tuple[Failure, str]] = ()

    def heading(self, name: str) -> str:
        """Of a metric, in words."""
        of_score = (score.heading for score in self.scores if score.name == name)
        return next(of_score, name.replace("_", " "))


def content_of(sources: Sequence[Source], select: Mapping[str, str]) -> Content:
    """What a report of one source, or of two, shows. Raises InputError where there is nothing to show."""
    content = Content(" and ".join(_title(source) for source in sources), sources=sources)
    samples, tables, failed = list[ShownSample](), list[Table](), list[tuple[Failure, str]]()
    notes, facts = list[str](), dict[str, Facts]()
    for source in sources:
        rows = source.rows(select)
        samples += samples_of(rows, source.output, source.name)
        of_source, reasons = _tables(rows, source)
        tables, notes = tables + of_source, notes + reasons
        facts[source.name] = facts_of(rows)
        failed += [(failure, _log(failure.log)) for failure in failures(source.cells())]
        if not content.probes.units:
            content.probes = probes_of(rows, source.output, source.cells())
    samples.sort(key=sample_order)
    content.samples, content.references, content.scores = samples, references_of(samples), scores_of(samples)
    content.tables, content.notes, content.facts, content.failed = tables, notes, facts, failed
    return content


def _title(source: Source) -> str:
    path = source.path.resolve()
    name = f"sweep {path.name}" if source.is_sweep else path.name
    return f"{source.name}: {name}" if source.name else name


def _tables(rows: Sequence[Row], source: Source) -> tuple[list[Table], list[str]]:
    """The tables of rows by the settings in which they differ, or a note why rows have none."""
    rows = [row for row in rows if not row.tau_start and row.metric not in OF_MODELS]
    if not any(row.seed is not None for row in rows):
        return [], []
    prefix = f"{source.name}: " if source.name else ""
    try:
        names = differing_names(rows)
        return settings_tables(rows, names, f"{prefix}Means by {', '.join(names) or 'tau'}"), []
    except InputError as error:
        return [], [f"{prefix}There is no table. {error}"]


def facts_of(rows: Iterable[Row]) -> Facts:
    """What was run, in words."""
    facts: dict[str, dict[str, None]] = {}
    for row in rows:
        is_sample = row.seed is not None and not row.tau_start
        for heading, value in (
            ("suites", row.suite),
            ("backbones", row.model),
            ("methods", row.method if is_sample else ""),
            ("τ", f"{row.tau:g}" if is_sample and row.method != "base" else ""),
            ("edit kinds", row.edit_kind),
            ("probes", row.method if row.tau_start else ""),
            ("precision", row.precision),
            ("devices", row.device),
            ("commits", f"{row.commit[:12]}{' with uncommitted changes' * row.dirty}" if row.commit else ""),
        ):
            if value:
                facts.setdefault(heading, {})[value] = None
    return {heading: sorted(values, key=natural) for heading, values in facts.items()}


def natural(text: str) -> tuple[int, float, str]:
    """Sorts numbers by their size, and before other texts."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def _log(path: str) -> str:
    """The text of a log; empty if there is none."""
    try:
        return Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""
