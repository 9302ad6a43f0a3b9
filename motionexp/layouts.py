"""Layouts: what an experiments/*.yaml file says of its sweep, its rows and its tables."""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from motionexp.config import InputError
from motionexp.results import Row, of_newest_version, read_rows
from motionexp.row_selection import check_names, is_plain, matches


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
    """The three published scores, and beside them always motion and both parts of leakage.

    Where they were measured, the fidelities of tracks too, each with its level of chance.
    """
    return {
        "text": Column("text alignment ↑", "text_alignment"),
        "consistency": Column("consistency ↑", "frame_consistency_consecutive"),
        "pick": Column("pick score ↑", "pick_score"),
        "motion": Column("motion ↑", "velocity_similarity"),
        "flow": Column("flow ↑", "flow_similarity"),
        "replaced": Column("leakage: replaced looks ↓", "replaced_attributes", "base"),
        "nuisances": Column("leakage: ground ↓", "nuisance_similarity", "nuisance_chance"),
        "fidelity": Column("motion fidelity ↑", "motion_fidelity", optional=True),
        "fidelity_chance": Column("the same by chance", "motion_fidelity_chance", optional=True),
        "ditflow": Column("DiTFlow's fidelity ↑", "mf_ditflow", optional=True),
        "ditflow_chance": Column("DiTFlow's by chance", "mf_ditflow_chance", optional=True),
    }


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


def read_layout(path: Path) -> Layout:
    """The layout of an experiments/*.yaml file.

    Raises:
        InputError: unreadable, a key that is missing or does not exist, a wrong type, a line of its sweep
            that is empty or cannot be read, or a name that is not defined in it.
    """
    layout = _loaded(path)
    problems = list(_figure_problems(layout))
    problems += [
        f"table {table.file} names {kind} {name}, which is not defined"
        for table in layout.tables
        for kind, names, defined in _references(table, layout)
        for name in names
        if name not in defined
    ]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    return layout


def _loaded(path: Path) -> Layout:
    try:
        loaded = OmegaConf.load(path)
        plain = OmegaConf.to_container(loaded, resolve=True)
        problems = [*_key_problems(plain, Layout, ""), *_line_problems(plain)]
        merged = OmegaConf.merge(OmegaConf.structured(Layout), {} if problems else loaded)
        layout = None if problems else OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a table layout ({' '.join(str(error).split())})") from error
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    assert isinstance(layout, Layout)
    layout.columns = layout.columns or standard_columns()
    for table in layout.tables:
        table.columns = table.columns or list(layout.columns)
    return layout


def _key_problems(plain: object, kind: Any, where: str) -> Iterator[str]:
    """Keys that are missing or do not exist, in what should be a `kind` and in all that is in it."""
    inner: list[tuple[str, object, Any]] = []
    if get_origin(kind) is UnionType:
        inner = [(where, plain, each) for each in get_args(kind)]
    elif is_dataclass(kind) and isinstance(plain, dict):
        known, hints = {each.name: each for each in fields(kind)}, get_type_hints(kind)
        for key in sorted(str(key) for key in plain if key not in known):
            yield f"{where}{key}: there is no such key; there are {', '.join(known)}"
        for name, own in known.items():
            if own.default is MISSING and own.default_factory is MISSING and name not in plain:
                yield f"{where}{name}: the key is missing; experiments/tau.yaml shows all"
        inner = [(f"{where}{key} ", each, hints[key]) for key, each in plain.items() if key in known]
    elif get_origin(kind) is list and isinstance(plain, list):
        inner = [(f"{where}{_named(number, each)}: ", each, get_args(kind)[0])
                 for number, each in enumerate(plain, start=1)]  # fmt: skip
    elif get_origin(kind) is dict and isinstance(plain, dict):
        inner = [(f"{where}{key}: ", each, get_args(kind)[1]) for key, each in plain.items()]
    for at, each, of in inner:
        yield from _key_problems(each, of, at)


def _named(number: int, plain: object) -> str:
    """One of a list by its number, and by its file or title where it says one."""
    name = (plain.get("file") or plain.get("title")) if isinstance(plain, dict) else None
    return f"{number} ({name})" if name else str(number)


def _line_problems(plain: object) -> Iterator[str]:
    """What is wrong with the lines of `sweep` and `paper` as text; settings are looked at in a run."""
    right = "write a sweep's settings there, as model=tiny_latte tau=0,700"
    for key in ("sweep", "paper"):
        lines = plain.get(key, []) if isinstance(plain, dict) else []
        if not isinstance(lines, list):
            yield f"{key}: is {lines!r} and no list; each sweep is a line under it: - model=tiny_latte tau=0"
            continue
        for number, line in enumerate(lines, start=1):
            if problem := _line_problem(line):
                yield f"line {number} of `{key}` {problem}; {right}"


def _line_problem(line: object) -> str:
    if not isinstance(line, str | None):
        return f"is no text but {line!r}"
    try:
        keys = [word.partition("=")[0] for word in shlex.split(line or "")]
    except ValueError:
        return f"has a quote that is not closed ({line})"
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return f"gives {', '.join(twice)} more than once ({line})" if twice else "" if keys else "is empty"


def _figure_problems(layout: Layout) -> Iterator[str]:
    tables = {Path(table.file).name: table for table in layout.tables}
    for figure in layout.figures:
        named = [name for names in figure.lines.values() for name in names]
        if figure.panels not in tables:
            yield f"figure {figure.file} has panels={figure.panels}; tables are {', '.join(tables)}"
        else:
            titles = [group.title for group in tables[figure.panels].groups]
            yield from _undefined(f"figure {figure.file} names group", figure.groups, titles)
        yield from _undefined(f"figure {figure.file} names setting", named, layout.settings)
        yield from _undefined(f"figure {figure.file} names column", figure.columns, layout.columns)
        if figure.x not in layout.columns:
            lacking = [each for each in named if each in layout.settings]
            lacking = [each for each in lacking if not _is_number(layout.settings[each].select.get(figure.x))]
            if lacking:
                yield f"figure {figure.file}: setting {lacking[0]} does not select a number by x={figure.x}"
        elif len(figure.columns) != 1:
            yield f"figure {figure.file}: with a column as x= there is one column for the other axis"


def _undefined(what: str, names: Iterable[str], defined: Collection[str]) -> Iterator[str]:
    yield from (f"{what} {name}, which is not defined" for name in names if name not in defined)


def _is_number(text: str | None) -> bool:
    return text is not None and text.replace(".", "", 1).isdigit()


def _references(table: TableLayout, layout: Layout) -> list[tuple[str, list[str], Iterable[str]]]:
    settings = [*table.settings, *(name for each in table.differences for name in (each.ours, each.theirs))]
    settings += [table.default] if table.default else []
    columns = [*table.columns, *(name for each in table.reported for name in each.values)]
    if table.decision:
        settings += [*table.decision.curves, *table.decision.against]
        columns += [table.decision.motion, *table.decision.leakage]
    return [("setting", settings, layout.settings), ("column", columns, layout.columns)]


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
        rows = (row for row in rows if row.anchor or _is_picked(row, layout))
    return of_newest_version(row for row in rows if not row.reference_hash or _is_named(row, layout))


def _is_picked(row: Row, layout: Layout) -> bool:
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
    names = layout.references
    if isinstance(names, Mapping):
        names = names.get(row.model, "")
    named = {name.strip() for name in names.split(",")} - {""}
    return not named or row.reference in named
