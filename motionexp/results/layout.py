"""Layouts: the sweep, the rows, the tables and the figures that an experiments/*.yaml file describes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from motionexp.config.metrics import METRICS
from motionexp.errors import InputError
from motionexp.results.rows import Row, read_rows
from motionexp.results.selection import check_names, has_defaults, matches
from motionexp.results.versions import of_newest_version

MORE, LESS, EQUAL, UNTESTED = EXPECTATIONS = ("more", "less", "equal", "untested")
"""What a claim says of a difference."""


@dataclass
class Column:
    """One metric's column.

    `minus` is subtracted from each subject's value: `base` (the setting with that mark) or another metric. An
    `optional` column is left out of tables where no row has its metric.
    """

    label: str
    metric: str
    minus: str = ""
    digits: int = 2
    optional: bool = False


def standard_columns() -> dict[str, Column]:
    """The columns that metrics define for tables, by key, in the metrics' order; see `MetricSpec.columns`."""
    return {key: Column(**column) for spec in METRICS.values() for key, column in spec.columns.items()}


@dataclass
class Setting:
    """One line of a table: the rows that `select` or `or_select` matches by fields, strata and settings.

    A setting of a job that neither of them names, nor the layout's `select`, has its default value in these
    rows. `labels` fill the table's first columns. `minus: base` subtracts the setting with `base`.
    """

    labels: list[str]
    select: dict[str, str]
    or_select: dict[str, str] = field(default_factory=dict)
    base: bool = False

    @property
    def alternatives(self) -> list[dict[str, str]]:
        """The selections of which a row has to match one."""
        return [self.select, self.or_select] if self.or_select else [self.select]

    def selects(self, row: Row, names: Collection[str] = ()) -> bool:
        """Whether the row is one of this setting; `names` are what the layout's `select` names."""
        return any(
            matches(row, select) and has_defaults(row, {*select, *names}) for select in self.alternatives
        )

    def can_match(self, group: "Group") -> bool:
        """Whether a row can be both of this setting and of the group."""
        # Alternatives of one name, as "0|700", have to share one value.
        return any(
            all(
                set(select[name].split("|")) & set(group.select[name].split("|"))
                for name in select.keys() & group.select
            )
            for select in self.alternatives
        )

    def at_scale(self, scale: str) -> "Setting":
        """This setting at an adapter scale as rows write it; at any scale for an empty text."""

        def at(select: Mapping[str, str]) -> dict[str, str]:
            rest = {name: value for name, value in select.items() if name != "adapter_scale"}
            return {**rest, "adapter_scale": scale} if scale else rest

        return replace(self, select=at(self.select), or_select=self.or_select and at(self.or_select))


@dataclass
class Group:
    """One block of a table: only the rows that `select` matches, for instance one contrast or edit kind."""

    title: str
    select: dict[str, str] = field(default_factory=dict)


@dataclass
class Difference:
    """Setting `ours` minus setting `theirs`, by their keys, paired by reference, edit and seed."""

    labels: list[str]
    ours: str
    theirs: str


@dataclass
class Reported:
    """What a paper reports: `values` by column key, in a block apart from measured rows."""

    source: str
    labels: list[str]
    values: dict[str, float]


@dataclass
class EqualLeakage:
    """Motion at equal leakage of the settings `curves` at adapter `scales`, and differences to `against`."""

    motion: str
    leakage: list[str]
    levels: list[float]
    scales: list[float]
    curves: list[str]
    against: list[str]


@dataclass
class Dominance:
    """Every setting of `ours` against every one of `theirs`, each at all adapter `scales`.

    `motion` and `leakage` are the columns that decide: more of the first, less of the second.
    """

    motion: str
    leakage: str
    ours: list[str]
    theirs: list[str]
    scales: list[float]


@dataclass
class TableLayout:
    """One table: `file` without suffix, relative to the repository's root.

    The bootstrap resamples `unit`. With a `default` setting, a second block shows the paired difference of
    every other setting to it. Of the columns `corrected`, a difference is bold only after Holm's correction
    for all of the table's differences of these columns. `equal_leakage` and `dominance` add a table below, or
    are all where there are no `settings`.
    """

    file: str
    title: str
    labels: list[str]
    settings: list[str]
    groups: list[Group]
    columns: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    equal_leakage: EqualLeakage | None = None
    dominance: Dominance | None = None
    notes: list[str] = field(default_factory=list)
    unit: str = "references"
    default: str = ""


@dataclass
class FigureLayout:
    """One figure of a table's settings: `file` without suffix, relative to the repository's root.

    `panels` is the table (the last part of its `file`) whose groups are the panels: all, or those of the
    titles `groups`, in their order. With `x` the name of what settings select by (tau, rank, train_steps)
    each of `columns` is a curve over it, one for each of `lines` {label: settings}. With `x` a column's key,
    each setting is a point in the plane of `x` and the one column, with its line's marker; with `scales` it
    is a curve over these adapter scales. With `x: setting` each setting is a row, each of `columns` a panel,
    and each group a point in the row.

    A label of `lines` that is, or begins with, a name of `figures.colours.SETTINGS` has its colour. `names`
    {setting: text} is written at points and rows in the place of the setting's labels.
    """

    file: str
    title: str
    x: str
    panels: str
    columns: list[str]
    lines: dict[str, list[str]]
    groups: list[str] = field(default_factory=list)
    x_label: str = ""
    log: bool = False
    names: dict[str, str] = field(default_factory=dict)
    scales: list[float] = field(default_factory=list)


@dataclass
class ClaimedDifference:
    """Setting `ours` minus `theirs` in one group of a table, both by their keys, paired.

    `table` is the last part of a table's `file`, `group` the title of one of its groups. `expected` says of
    columns, by key, that the difference is `more` or `less` than zero, `equal` within the experiment's
    `margin`, or `untested`, which only shows it. `scales` are the adapter scales of ours and of theirs where
    they are not those of the settings. `name` says in README which of a claim's differences it is.
    """

    table: str
    group: str
    ours: str
    theirs: str
    expected: dict[str, str]
    scales: list[float] = field(default_factory=list)
    name: str = ""


@dataclass
class Claim:
    """One sentence of README's table, and all that it says: differences, or boundaries of the models named.

    `chosen` says when the claim was chosen: before the run, or as most are.
    """

    statement: str
    differences: list[ClaimedDifference] = field(default_factory=list)
    boundaries: list[str] = field(default_factory=list)
    chosen: str = "after the rows had been seen"


@dataclass
class Layout:
    """One experiment: the sweep, the rows that are published (none if `rows` is empty), and their tables.

    The bundled models run `sweep`. `paper` holds the runs of the papers: lines that name real models; such a
    line is run where `model=` on the command line names one of its models.

    `answer` is the outcome in a sentence or two, without numbers; `verdict` is all of it, in paragraphs. The
    verdict's intervals are those of the tables, or of `pages`, which other commands write. `decision` is the
    rule that decides, and says what was fixed before the run; `choice` what was chosen beforehand, and how;
    `cut` the references that were dropped to save time. Two settings are equal if their difference is within
    `margin` (0: nothing is called equal). With fewer than `n` references nothing is decided. `claims` are the
    experiment's part of README's table.

    `references` names a subset of the references, or one for each model (other models then take all): a line
    of `sweep` names it as `"references=[${references}]"` or `"references=[${references.tiny_unet3d}]"`.
    `chosen` has settings that another experiment chooses, {method: {setting: value}}: lines and selections
    name one as `${chosen.METHOD.SETTING}`, so that it stands in one place.

    Without `columns` a layout has those of `standard_columns`. `report` names a function of layout and output
    folder that prints what no table of samples shows. `pictures` are PNG files below the outputs; they are
    published into a folder with the name of the rows' file, without its suffix.
    """

    question: str
    cost: str
    sweep: list[str]
    rows: str
    select: dict[str, str]
    settings: dict[str, Setting]
    tables: list[TableLayout]
    answer: str = ""
    verdict: str = ""
    decision: str = ""
    margin: float = 0.0
    n: int = 0
    claims: list[Claim] = field(default_factory=list)
    choice: str = ""
    cut: str = ""
    pages: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    paper: list[str] = field(default_factory=list)
    allow_mixed: list[str] = field(default_factory=list)
    references: Any = ""
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)
    report: str = ""
    figures: list[FigureLayout] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def selects(self) -> Iterator[dict[str, str]]:
        """The selections of the layout, of its settings and of its groups."""
        yield self.select
        for setting in self.settings.values():
            yield from (setting.select, setting.or_select)
        yield from (group.select for table in self.tables for group in table.groups)


def selected_rows(layout: Layout, outputs: Path) -> list[Row]:
    """The rows below `outputs` that a layout selects, each metric's newest version of them.

    Where the layout names its references, rows of other references are left out; rows of no reference
    (energies) stay. Where a setting is the base, a row has to belong to a setting, or to be a sanity
    baseline.

    Raises:
        InputError: no such folder, or a rows file is corrupted.
    """
    selected = read_rows(outputs, layout.select)
    try:
        check_names(layout.selects(), selected)
    except InputError:
        # The selection may have dropped the rows that have the names.
        check_names(layout.selects(), read_rows(outputs))
    rows: Iterable[Row] = selected
    if any(setting.base for setting in layout.settings.values()):
        rows = (row for row in rows if row.sanity_baseline or has_setting(row, layout))
    return of_newest_version(
        row
        for row in rows
        if not row.reference_hash or row.reference in (named_references(layout, row.model) or {row.reference})
    )


def has_setting(row: Row, layout: Layout) -> bool:
    """Whether a setting selects the row, at any adapter scale where a table compares settings at scales."""
    settings, names = list(layout.settings.values()), set(layout.select)
    if any(table.equal_leakage or table.dominance for table in layout.tables):
        # A curve needs rows at every scale, not only those that a line of the table selects.
        names.add("adapter_scale")
        settings = [setting.at_scale("") for setting in settings]
    return any(setting.selects(row, names) for setting in settings)


def named_references(layout: Layout, model: str) -> set[str]:
    """The references that a layout names of a model; empty where it takes all."""
    names = layout.references
    if isinstance(names, Mapping):
        names = names.get(model, "")  # a model that is not named takes all
    return {name.strip() for name in names.split(",")} - {""}
