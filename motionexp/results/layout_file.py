"""Reading and checking experiments/*.yaml files."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.command_line import as_values
from motionexp.config.yaml_file import read_yaml
from motionexp.errors import InputError
from motionexp.results.layout import (
    EQUAL,
    EXPECTATIONS,
    UNTESTED,
    Claim,
    ClaimedDifference,
    Layout,
    TableLayout,
    standard_columns,
)

NAMED = re.compile(r"\$\{(?:references|chosen)\b[^}]*\}")


def read_layout(path: Path) -> Layout:
    """The layout of an experiments/*.yaml file, a copy of its own.

    Raises:
        InputError: unreadable, a key that is missing or does not exist, a wrong type, a line of its sweep
            that is empty or cannot be read, or a name that is not defined in it.
    """
    state: tuple[int, ...] = ()
    with suppress(OSError):  # which `_read` says
        about = path.stat()
        state = about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size
    return deepcopy(_read(path, state))


@lru_cache(maxsize=64)
def _read(path: Path, state: tuple[int, ...]) -> Layout:
    """The layout of a file in this state. Programs read all of them several times, 0.1 s each."""
    # 1. Keys and lines, before OmegaConf, which stops at the first fault.
    try:
        plain = _with_names(read_yaml(path))
        problems = [*_key_problems(plain, Layout, ""), *_line_problems(plain)]
        merged = OmegaConf.merge(OmegaConf.structured(Layout), {} if problems else as_values(plain))
        layout = None if problems else OmegaConf.to_object(merged)
    except InputError:
        raise
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{path}: not a table layout ({' '.join(str(error).split())})") from error
    # 2. Defaults that are not of one class alone, then the names within the layout.
    if isinstance(layout, Layout):
        layout.columns = layout.columns or standard_columns()
        for table in layout.tables:
            table.columns = table.columns or list(layout.columns)
        if not (problems := list(layout_problems(layout))):
            return layout
    raise InputError(f"{path}: " + "; ".join(problems))


def _with_names(plain: Any) -> Any:
    """A file's content with its `references` and `chosen` where a text names them.

    They are named as `${references}`, `${references.MODEL}` and `${chosen.METHOD.SETTING}`. Nothing else is
    replaced: a file reads neither the environment nor other settings.
    """
    if not isinstance(plain, dict):
        raise ValueError("it is no mapping with keys such as question: and sweep:")
    references, chosen = plain.get("references"), plain.get("chosen")
    named = references if isinstance(references, dict) else {}
    texts = {f"${{references.{model}}}": str(names) for model, names in named.items()}
    texts |= {"${references}": references} if isinstance(references, str) else {}
    for method, settings in (chosen if isinstance(chosen, dict) else {}).items():
        for name, value in (settings if isinstance(settings, dict) else {}).items():
            texts[f"${{chosen.{method}.{name}}}"] = str(value)

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replaced(item) for item in value]
        if not isinstance(value, str):
            return value
        if unknown := [match for match in NAMED.findall(value) if match not in texts]:
            key = unknown[0].removeprefix("${").partition(".")[0].removesuffix("}")
            raise ValueError(f"{unknown[0]}: `{key}` has no such entry")
        return NAMED.sub(lambda match: texts[match[0]], value)

    return replaced(plain)


def _key_problems(plain: object, kind: Any, where: str) -> Iterator[str]:
    """Keys that are missing or do not exist, in what should be a `kind` and in everything inside it.

    OmegaConf stops at the first wrong key, and names neither its place in a list nor the keys that exist.
    """
    # What is inside: (its place in words, its content, what it should be).
    inner: list[tuple[str, object, Any]] = []
    # 1. What lies inside `plain`, with the type that the layout's classes declare for it.
    if get_origin(kind) is UnionType:
        inner = [(where, plain, alternative) for alternative in get_args(kind)]
    elif is_dataclass(kind) and isinstance(plain, dict):
        entries, hints = {entry.name: entry for entry in fields(kind)}, get_type_hints(kind)
        for key in sorted(str(key) for key in plain if key not in entries):
            yield f"{where}{key}: there is no such key; there are {', '.join(entries)}"
        for name, entry in entries.items():
            if entry.default is MISSING and entry.default_factory is MISSING and name not in plain:
                yield f"{where}{name}: the key is missing; experiments/tau.yaml shows all"
        inner = [(f"{where}{key} ", value, hints[key]) for key, value in plain.items() if key in entries]
    elif get_origin(kind) is list and isinstance(plain, list):
        entry_kind = get_args(kind)[0]
        inner = [(f"{where}{n}{_name(value)}: ", value, entry_kind) for n, value in enumerate(plain, start=1)]
    elif get_origin(kind) is dict and isinstance(plain, dict):
        inner = [(f"{where}{key}: ", value, get_args(kind)[1]) for key, value in plain.items()]
    if wrong := _wrong_kind(plain, kind):
        yield f"{where.removesuffix(' ').removesuffix(':')}: is {plain!r:.80} and no {wrong}"
    # 2. The same question of each part.
    for place, value, inner_kind in inner:
        yield from _key_problems(value, inner_kind, place)


def _wrong_kind(plain: object, kind: Any) -> str:
    """What a value should be where OmegaConf would let something else pass; empty where it is right."""
    if is_dataclass(kind) or get_origin(kind) is dict:
        return "" if isinstance(plain, dict | None) else "mapping of KEY: VALUE"
    if get_origin(kind) is list:
        return "" if isinstance(plain, list | None) else "list"
    if kind in (int, float, bool):
        return (
            "" if isinstance(plain, int | float | None) else "number" if kind is not bool else "true or false"
        )
    return "text; put it in quotes" if kind is str and isinstance(plain, dict | list) else ""


def _name(entry: object) -> str:
    """An entry's file or title in brackets, where it has one."""
    name = (entry.get("file") or entry.get("title")) if isinstance(entry, dict) else None
    return f" ({name})" if name else ""


def _line_problems(plain: object) -> Iterator[str]:
    """Lines of `sweep` and `paper` that cannot be read; a run checks the settings in them."""
    example = "model=tiny_latte tau=0,700"
    for key in ("sweep", "paper"):
        lines = plain.get(key, []) if isinstance(plain, dict) else []
        if not isinstance(lines, list):
            yield f"{key}: is {lines!r} and no list; each sweep is a line under it: - {example}"
            continue
        for number, line in enumerate(lines, start=1):
            if problem := _line_problem(line):
                yield f"line {number} of `{key}` {problem}; write its settings there, as {example}"


def _line_problem(line: object) -> str:
    if isinstance(line, dict | list):
        return ""  # `_key_problems` reports it
    if not isinstance(line, str | None):
        return f"is no text but {line!r}"
    try:
        keys = [word.partition("=")[0] for word in shlex.split(line or "")]
    except ValueError:
        return f"has a quote that is not closed ({line})"
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return f"gives {', '.join(twice)} more than once ({line})" if twice else "" if keys else "is empty"


def layout_problems(layout: Layout) -> Iterator[str]:
    """One sentence for each problem; none where the tables and figures of the layout can be made."""
    for table in layout.tables:
        yield from _table_problems(table, layout)
    files = [layout.rows, *layout.pages, *(table.file for table in layout.tables)]
    files += [figure.file for figure in layout.figures]
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            yield f"{file}: a path below the folder that has experiments/, without .."
    for name, column in layout.columns.items():
        if not 0 <= column.digits <= 12:
            yield f"columns {name}: digits is {column.digits}; 0 to 12"
    if len(bases := [name for name, setting in layout.settings.items() if setting.base]) > 1:
        yield f"settings {', '.join(bases)} are all marked `base`; there is one"
    # A figure names its table by the last part alone.
    yield from _twice("two tables have the file", (Path(table.file).name for table in layout.tables))
    yield from _twice("two figures have the file", (figure.file for figure in layout.figures))
    if not (0 <= layout.margin < math.inf and layout.n >= 0):
        yield f"margin is {layout.margin:g} and n is {layout.n}; numbers from 0 up"
    for claim in layout.claims:
        yield from _claim_problems(claim, layout)
    yield from _figure_problems(layout)
    yield from _number_problems(layout)
    yield from _reference_problems(layout)


def _table_problems(table: TableLayout, layout: Layout) -> Iterator[str]:
    # 1. The names of settings and columns; curves of equal leakage have lines of their own.
    equal, dominance = table.equal_leakage, table.dominance
    lines = [*table.settings, *(equal.curves if equal else [])]
    settings = [*lines, *filter(None, [table.default])]
    settings += [name for entry in table.differences for name in (entry.ours, entry.theirs)]
    columns = [*table.columns, *table.corrected, *(name for entry in table.reported for name in entry.values)]
    columns += [equal.motion, *equal.leakage] if equal else []
    if dominance:
        settings += [*dominance.ours, *dominance.theirs]
        columns += [dominance.motion, dominance.leakage]
    yield from _undefined(f"table {table.file} names setting", settings, layout.settings)
    yield from _undefined(f"table {table.file} names column", columns, layout.columns)
    # 2. Lines with more or fewer labels than the table has headings.
    labels = [(f"setting {name}", layout.settings[name].labels) for name in lines if name in layout.settings]
    labels += [(f"difference {entry.ours} minus {entry.theirs}", entry.labels) for entry in table.differences]
    labels += [(f"what {entry.source} reports", entry.labels) for entry in table.reported]
    for line, texts in labels:
        if len(texts) != len(table.labels):
            yield (
                f"table {table.file}: {line} has the labels {texts}, and the table the headings"
                f" {table.labels}; there is one label a heading"
            )
    if not table.labels:
        yield f"table {table.file}: `labels` is empty; its first columns need headings"
    # 3. Groups, and what a table compares at scales.
    yield from _twice(f"table {table.file} has two groups of the title", (g.title for g in table.groups))
    yield from _twice(f"table {table.file} names twice the column", table.columns)
    yield from _twice(f"table {table.file} names twice the setting", table.settings)
    lists: list[tuple[str, object, str]] = [
        ("equal_leakage", equal, key) for key in ("leakage", "levels", "scales", "curves")
    ]
    lists += [("dominance", dominance, key) for key in ("ours", "theirs", "scales")]
    for part, entry, key in lists:
        if entry and not getattr(entry, key):
            yield f"table {table.file}: {part} has an empty `{key}`"
        if entry:
            yield from _twice(f"table {table.file}: {part} has twice in `{key}`", getattr(entry, key))
    if equal:
        what = f"table {table.file}: equal_leakage compares against setting"
        yield from _undefined(what, equal.against, equal.curves)


def _number_problems(layout: Layout) -> Iterator[str]:
    """Numbers in another notation than that of rows: they would select nothing."""
    texts = (text for select in layout.selects() for text in select.values())
    for value in sorted({value for text in texts for value in text.split("|")}):
        if _is_number(value) and f"{float(value):g}" != value:
            yield f"select: {value} is written {float(value):g} in rows"


def _reference_problems(layout: Layout) -> Iterator[str]:
    texts = [layout.references]
    if isinstance(layout.references, Mapping):
        words = (word for line in layout.sweep for word in line.split() if word.startswith("model="))
        models = {model for word in words for model in word.removeprefix("model=").split(",")}
        yield from _undefined("references are named of model", map(str, layout.references), models)
        texts = list(layout.references.values())
    for text in texts:
        if not isinstance(text, str):
            yield f"references: {text!r} is no text of names, as 01-wander-cyan-square, 25-zigzag-orange-moon"


def _claim_problems(claim: Claim, layout: Layout) -> Iterator[str]:
    what = f"claim {claim.statement.strip()!r:.50}"
    if not claim.statement.strip():
        yield "a claim has an empty `statement`"
    if not layout.rows:
        yield f"{what}: the experiment has no `rows`"
    if bool(claim.differences) == bool(claim.boundaries):
        yield f"{what}: it has either `differences` or `boundaries`"
    expected = {word for entry in claim.differences for word in entry.expected.values()}
    if claim.differences and not expected - {UNTESTED}:
        yield f"{what}: nothing of it is tested; a difference is {', '.join(EXPECTATIONS)}"
    tables = {Path(table.file).name: table for table in layout.tables}
    for entry in claim.differences:
        yield from _claimed_difference_problems(what, entry, tables, layout)


def _claimed_difference_problems(
    what: str, entry: ClaimedDifference, tables: Mapping[str, TableLayout], layout: Layout
) -> Iterator[str]:
    titles = [group.title for group in tables[entry.table].groups] if entry.table in tables else []
    if entry.table not in tables:
        yield f"{what} names table {entry.table}; tables are {', '.join(tables)}"
    elif entry.group not in titles:
        yield f"{what} names group {entry.group!r}; groups of {entry.table} are {', '.join(titles)}"
    yield from _undefined(f"{what} names setting", [entry.ours, entry.theirs], layout.settings)
    yield from _undefined(f"{what} names column", entry.expected, layout.columns)
    if wrong := set(entry.expected.values()) - set(EXPECTATIONS):
        yield f"{what} expects {', '.join(sorted(wrong))}; a difference is {', '.join(EXPECTATIONS)}"
    if EQUAL in entry.expected.values() and not layout.margin:
        yield f"{what} says equal, and the experiment has no margin; add `margin: 0.05`"
    if len(entry.scales) not in (0, 2):
        yield f"{what} has {len(entry.scales)} scales; two, of ours and of theirs, or none"


def _twice(what: str, names: Iterable[object]) -> Iterator[str]:
    yield from (f"{what} {name}" for name, count in Counter(names).items() if count > 1)


def _figure_problems(layout: Layout) -> Iterator[str]:
    tables = {Path(table.file).name: table for table in layout.tables}
    for figure in layout.figures:
        names = [name for line in figure.lines.values() for name in line]
        if figure.panels not in tables:
            yield f"figure {figure.file} has panels={figure.panels}; tables are {', '.join(tables)}"
        else:
            titles = [group.title for group in tables[figure.panels].groups]
            yield from _undefined(f"figure {figure.file} names group", figure.groups, titles)
        yield from _undefined(f"figure {figure.file} names setting", [*names, *figure.names], layout.settings)
        yield from _undefined(f"figure {figure.file} names column", figure.columns, layout.columns)
        if not (figure.columns and names):
            yield f"figure {figure.file} has no columns, or no setting in its lines"
        elif figure.x not in (*layout.columns, "setting"):
            for name in names:
                if name in layout.settings and not _is_number(layout.settings[name].select.get(figure.x)):
                    yield f"figure {figure.file}: setting {name} does not select a number by x={figure.x}"
        elif figure.x != "setting" and len(figure.columns) != 1:
            yield f"figure {figure.file}: with a column as x= there is one column for the other axis"


def _undefined(what: str, names: Iterable[str], defined: Collection[str]) -> Iterator[str]:
    yield from (f"{what} {name}, which is not defined" for name in names if name not in defined)


def _is_number(text: str | None) -> bool:
    return text is not None and text.replace(".", "", 1).isdigit()
