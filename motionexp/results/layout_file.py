"""How an experiments/*.yaml file is read, and what is wrong with one as text."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from motionexp.errors import InputError
from motionexp.results.layout import Decision, Layout, TableLayout, standard_columns


def read_layout(path: Path) -> Layout:
    """The layout of an experiments/*.yaml file.

    Raises:
        InputError: unreadable, a key that is missing or does not exist, a wrong type, a line of its sweep
            that is empty or cannot be read, or a name that is not defined in it.
    """
    layout = _loaded(path)
    if problems := list(layout_problems(layout)):
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
    elif kind is str and isinstance(plain, dict | list):
        yield f"{where.removesuffix(' ').removesuffix(':')}: is {plain!r} and no text; put it in quotes"
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
    if isinstance(line, dict | list):
        return ""  # said already, as of any key
    if not isinstance(line, str | None):
        return f"is no text but {line!r}"
    try:
        keys = [word.partition("=")[0] for word in shlex.split(line or "")]
    except ValueError:
        return f"has a quote that is not closed ({line})"
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return f"gives {', '.join(twice)} more than once ({line})" if twice else "" if keys else "is empty"


def layout_problems(layout: Layout) -> Iterator[str]:
    """One sentence a problem; none of a layout whose tables and figures can be made."""
    for table in layout.tables:
        for kind, names, defined in _references(table, layout):
            yield from _undefined(f"table {table.file} names {kind}", names, defined)
        yield from _label_problems(table, layout)
        yield from _twice(f"table {table.file} has two groups of the title", (g.title for g in table.groups))
        if table.decision:
            yield from _decision_problems(table.file, table.decision)
    if len(bases := [name for name, setting in layout.settings.items() if setting.base]) > 1:
        yield f"settings {', '.join(bases)} are all marked `base`; there is one"
    # A figure names its table by the last part alone.
    yield from _twice("two tables have the file", (Path(table.file).name for table in layout.tables))
    yield from _twice("two figures have the file", (figure.file for figure in layout.figures))
    yield from _figure_problems(layout)
    yield from _number_problems(layout)
    yield from _reference_problems(layout)


def _label_problems(table: TableLayout, layout: Layout) -> Iterator[str]:
    """Labels that would stand under another heading than their own."""
    named = {name: layout.settings[name].labels for name in _settings(table) if name in layout.settings}
    labels = [(f"setting {name}", each) for name, each in named.items()]
    labels += [(f"difference {each.ours} less {each.theirs}", each.labels) for each in table.differences]
    labels += [(f"what {each.source} reports", each.labels) for each in table.reported]
    for what, own in labels:
        if len(own) != len(table.labels):
            yield (
                f"table {table.file}: {what} has the labels {own}, and the table the headings {table.labels};"
                " there is one label a heading"
            )


def _decision_problems(file: str, decision: Decision) -> Iterator[str]:
    for key in ("leakage", "levels", "scales", "curves"):
        if not getattr(decision, key):
            yield f"table {file}: decision has an empty `{key}`"
    yield from _undefined(
        f"table {file}: decision compares against setting", decision.against, decision.curves
    )


def _number_problems(layout: Layout) -> Iterator[str]:
    """Numbers that are equal to a row's and are never its text."""
    values = {value for each in layout.selects() for text in each.values() for value in text.split("|")}
    for value in sorted(values):
        if _is_number(value) and f"{float(value):g}" != value:
            yield f"select: {value} is written {float(value):g} in rows"


def _reference_problems(layout: Layout) -> Iterator[str]:
    named = layout.references
    if isinstance(named, Mapping):
        swept = {model for line in layout.sweep for model in _models(line)}
        yield from _undefined("references are named of model", map(str, named), swept)
    texts = named.values() if isinstance(named, Mapping) else [named]
    for each in texts:
        if not isinstance(each, str):
            yield f"references: {each!r} is no text of names, as 01-wander-cyan-square, 25-zigzag-orange-moon"


def _models(line: str) -> list[str]:
    words = [word.removeprefix("model=") for word in line.split() if word.startswith("model=")]
    return words[0].split(",") if words else []


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {name}" for name, count in Counter(names).items() if count > 1)


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
        if not (figure.columns and named):
            yield f"figure {figure.file} has no columns, or no setting in its lines"
        elif figure.x not in layout.columns:
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


def _references(table: TableLayout, layout: Layout) -> list[tuple[str, list[str], Collection[str]]]:
    settings = [*_settings(table), *([table.default] if table.default else [])]
    settings += [name for each in table.differences for name in (each.ours, each.theirs)]
    columns = [*table.columns, *(name for each in table.reported for name in each.values)]
    if table.decision:
        columns += [table.decision.motion, *table.decision.leakage]
    return [("setting", settings, layout.settings), ("column", columns, layout.columns)]


def _settings(table: TableLayout) -> list[str]:
    """Those that have a line of their own."""
    return [*table.settings, *(table.decision.curves if table.decision else [])]
