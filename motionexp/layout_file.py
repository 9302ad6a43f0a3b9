"""How an experiments/*.yaml file is read, and what is wrong with one as text."""

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from motionexp.errors import InputError
from motionexp.layout_checks import layout_problems
from motionexp.layouts import Layout, standard_columns


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
