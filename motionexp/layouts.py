"""Layouts: what an experiments/*.yaml file says of its sweep, its rows and its tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from motionexp.config import InputError
from motionexp.results import Row, of_newest_version, read_rows


@dataclass
class Column:
    """One metric's column, less `minus`: `base` (the setting marked so, same subject) or another metric."""

    label: str
    metric: str
    minus: str = ""
    digits: int = 2


@dataclass
class Setting:
    """One line of a table: the rows that `select`, or else `or_select`, picks by their fields or strata.

    `labels` fill the table's first columns; the setting with `base` is what `minus: base` subtracts.
    """

    labels: list[str]
    select: dict[str, str]
    or_select: dict[str, str] = field(default_factory=dict)
    base: bool = False

    def picks(self, row: Row) -> bool:
        """Whether the row is one of this setting."""
        return matches(row, self.select) or (bool(self.or_select) and matches(row, self.or_select))


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
    """One table: `file` without suffix, relative to the repository's root; `unit` is what is redrawn."""

    file: str
    title: str
    labels: list[str]
    settings: list[str]
    columns: list[str]
    groups: list[Group]
    differences: list[Difference] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    decision: Decision | None = None
    notes: list[str] = field(default_factory=list)
    unit: str = "references"


@dataclass
class Layout:
    """One experiment: what is run, which rows are published (none if `rows` is empty), and their tables.

    A line of `sweep` may name the subset with `"references=[${references}]"`.
    """

    question: str
    cost: str
    sweep: list[str]
    rows: str
    select: dict[str, str]
    settings: dict[str, Setting]
    columns: dict[str, Column]
    tables: list[TableLayout]
    allow_mixed: list[str] = field(default_factory=list)
    references: str = ""


def read_layout(path: Path) -> Layout:
    """The layout of an experiments/*.yaml file.

    Raises:
        InputError: unreadable, a key that does not exist, a wrong type, or a name that is not defined in it.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Layout), OmegaConf.load(path))
        layout = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a table layout ({' '.join(str(error).split())})") from error
    assert isinstance(layout, Layout)
    problems = [
        f"table {table.file} names {kind} {name}, which is not defined"
        for table in layout.tables
        for kind, names, defined in _references(table, layout)
        for name in names
        if name not in defined
    ]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    return layout


def _references(table: TableLayout, layout: Layout) -> list[tuple[str, list[str], Iterable[str]]]:
    settings = [*table.settings, *(name for each in table.differences for name in (each.ours, each.theirs))]
    columns = [*table.columns, *(name for each in table.reported for name in each.values)]
    if table.decision:
        settings += [*table.decision.curves, *table.decision.against]
        columns += [table.decision.motion, *table.decision.leakage]
    return [("setting", settings, layout.settings), ("column", columns, layout.columns)]


def matches(row: Row, select: Mapping[str, str]) -> bool:
    """Whether the row's fields and strata are what is asked; alternatives are parted by `|`."""
    return all(row.stratum(name) in wanted.split("|") for name, wanted in select.items())


def selected_rows(layout: Layout, outputs: Path) -> list[Row]:
    """The rows below `outputs` that a layout selects, each metric's newest version of them.

    Raises:
        InputError: no such folder, or a rows file is corrupted.
    """
    return of_newest_version(row for row in read_rows(outputs) if matches(row, layout.select))
