"""Layouts: what an experiments/*.yaml file says of its sweep, its rows and its tables."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from motionexp.config.metrics import METRICS
from motionexp.results.rows import Row, of_newest_version, read_rows
from motionexp.results.selection import check_names, is_plain, matches


@dataclass
class Column:
    """One metric's column, less `minus`: `base` (the setting marked so, same subject) or another metric.

    An `optional` one is left out of tables where no row has its metric.
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
    """One line of a table: the rows that `select`, or else `or_select`, picks by their fields or strata.

    What neither they nor the layout's own `select` names is at its default in these rows. `labels` fill the
    table's first columns; the setting with `base` is what `minus: base` subtracts.
    """

    labels: list[str]
    select: dict[str, str]
    or_select: dict[str, str] = field(default_factory=dict)
    base: bool = False

    def picks(self, row: Row, named: Collection[str] = ()) -> bool:
        """Whether the row is one of this setting; `named` are settings that the layout selects by itself."""
        selects = [each for each in (self.select, self.or_select) if each or each is self.select]
        return any(matches(row, each) and is_plain(row, {*each, *named}) for each in selects)

    def may_be_in(self, group: "Group") -> bool:
        """Whether a row can be both of this setting and of the group, by what both select."""
        return any(
            all(
                set(each[name].split("|")) & set(group.select[name].split("|"))
                for name in each.keys() & group.select
            )
            for each in (self.select, self.or_select)
            if each or each is self.select
        )


@dataclass
class Group:
    """One block of a table: only rows that `select` picks, for instance one contrast or one edit kind."""

    title: str
    select: dict[str, str] = field(default_factory=dict)


@dataclass
class Difference:
    """Setting `ours` less setting `theirs`, by their keys, paired by reference, edit and seed."""

    labels: list[str]
    ours: str
    theirs: str


@dataclass
class Reported:
    """What a paper prints: `values` by column key. Shown apart and marked; never mixed with measured rows."""

    source: str
    labels: list[str]
    values: dict[str, float]


@dataclass
class Decision:
    """Motion at equal leakage of the settings `curves`, at adapter `scales`, and less each of `against`."""

    motion: str
    leakage: list[str]
    levels: list[float]
    scales: list[float]
    curves: list[str]
    against: list[str]


@dataclass
class TableLayout:
    """One table: `file` without suffix, relative to the repository's root; `unit` is what is redrawn.

    With a `default` setting, every other one is shown less that too, paired.
    """

    file: str
    title: str
    labels: list[str]
    settings: list[str]
    groups: list[Group]
    columns: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    decision: Decision | None = None
    notes: list[str] = field(default_factory=list)
    unit: str = "references"
    default: str = ""


@dataclass
class FigureLayout:
    """One figure of a table's settings: `file` without suffix, relative to the repository's root.

    `panels` is the table (the last part of its `file`) whose groups are the panels: all, or those of the
    titles `groups`, in their order. With `x` the name of what settings select by (tau, rank, train_steps)
    each of `columns` is a curve over it, one for each of `lines` {label: settings}. With `x` a column's key,
    each setting is a point in the plane of `x` and the one column, with its line's marker.
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


@dataclass
class Layout:
    """One experiment: what is run, which rows are published (none if `rows` is empty), and their tables.

    `sweep` is run on the bundled models. `paper` holds what the paper ran: lines that name real models, each
    taken where `model=` on the command line names one of its models.

    `verdict` is what came out, in paragraphs; its intervals are those of the tables, or of `pages`, which
    other commands write. `decides` says which number decides, and what was fixed before the run; `choice`
    what was chosen beforehand, and how; `cut` which references were dropped to save time.

    `references` names a subset, or of each model its own (others then take all): a line of `sweep` names it
    as `"references=[${references}]"` or `"references=[${references.tiny_unet3d}]"`. Without `columns` there
    are those of `standard_columns`. `report` names a function of
    layout and output folder that prints what no table of samples can say. `pictures` are PNG files below the
    outputs that are published too, into the folder called as the rows' file, without its suffix.
    """

    question: str
    cost: str
    sweep: list[str]
    rows: str
    select: dict[str, str]
    settings: dict[str, Setting]
    tables: list[TableLayout]
    verdict: str = ""
    decides: str = ""
    choice: str = ""
    cut: str = ""
    pages: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    paper: list[str] = field(default_factory=list)
    allow_mixed: list[str] = field(default_factory=list)
    references: Any = ""
    report: str = ""
    figures: list[FigureLayout] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def selects(self) -> Iterator[dict[str, str]]:
        """All that rows are selected by: in whole, of each setting and of each group."""
        yield self.select
        for setting in self.settings.values():
            yield from (setting.select, setting.or_select)
        yield from (group.select for table in self.tables for group in table.groups)


def selected_rows(layout: Layout, outputs: Path) -> list[Row]:
    """The rows below `outputs` that a layout selects, each metric's newest version of them.

    Where it names its references, rows of others are left out; rows of none (energies) stay. Of tables of
    tuning, which have a base, only rows that one of the settings picks stay, at any scale where a table
    compares at equal leakage.

    Raises:
        InputError: no such folder, or a rows file is corrupted.
    """
    everything = read_rows(outputs)
    check_names(layout.selects(), everything)
    rows = (row for row in everything if matches(row, layout.select))
    if any(setting.base for setting in layout.settings.values()):
        rows = (row for row in rows if row.anchor or is_picked(row, layout))
    return of_newest_version(row for row in rows if not row.reference_hash or _is_named(row, layout))


def is_picked(row: Row, layout: Layout) -> bool:
    """Whether a setting takes the row, at any adapter scale where a table compares at equal leakage."""
    settings, named = list(layout.settings.values()), set(layout.select)
    if any(table.decision for table in layout.tables):
        named.add("adapter_scale")
        settings = [
            replace(each, select=_at_any_scale(each.select), or_select=_at_any_scale(each.or_select))
            for each in settings
        ]
    return any(setting.picks(row, named) for setting in settings)


def _at_any_scale(select: Mapping[str, str]) -> dict[str, str]:
    return {name: wanted for name, wanted in select.items() if name != "adapter_scale"}


def _is_named(row: Row, layout: Layout) -> bool:
    named = named_references(layout, row.model)
    return not named or row.reference in named


def named_references(layout: Layout, model: str) -> set[str]:
    """The references that a layout names of a model; empty where it takes all."""
    names = layout.references
    if isinstance(names, Mapping):
        names = names.get(model, "")
    return {name.strip() for name in names.split(",")} - {""}
