"""The one reader of YAML files that a user hands over: bounded, no code, errors with their place."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]

from motionexp.errors import InputError

MOST_CHARACTERS = 2_000_000
"""Of a file, and of what it stands for once every alias (`*name`) is replaced by its content."""
MOST_LEVELS = 50
KINDS = ("str", "int", "float", "bool", "null", "seq", "map")
PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in KINDS))


class _Loader(yaml.SafeLoader):
    """As OmegaConf's, but more is text: `1e-4` is a number; a date, `12:30` and `007` are text.

    A key that stands twice is an error.
    """

    yaml_implicit_resolvers: ClassVar = {
        letter: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float"))
        ]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key, _ in node.value:
            # A list or a mapping as a key is an error of the library.
            if isinstance(key.value, str) and key.value in keys and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} stands twice", key.start_mark
                )
            if isinstance(key.value, str):
                keys.add(key.value)
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
            |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
            |\.[0-9_]+(?:[eE][-+][0-9]+)?
            |[-+]?\.(?:inf|Inf|INF)
            |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)
# YAML 1.1 reads 12:30 as 750 and 010 as 8, which nobody means.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, as `parse_yaml`.

    Raises:
        InputError: one line with the file and the place of what is wrong.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        if path.stat().st_size > MOST_CHARACTERS:
            raise InputError(f"{path}: more than {MOST_CHARACTERS // 1_000_000} MB; split the file")
        return parse_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from error


def parse_yaml(text: str, source: str) -> Any:
    """The content of YAML or JSON as dicts, lists, text, numbers, booleans and None.

    The text may come from anywhere: its length, its depth and what its aliases stand for are limited, and
    a tag such as `!!python/object` is refused.

    Args:
        source: where the text is from, for errors.

    Raises:
        InputError: one line with the source and the place of what is wrong.
    """
    try:
        _check_size(source, text)
        content = yaml.load(text, _Loader)
        if "\\u" in text:
            # Half of a character, as "\\ud800", which no file and no terminal takes.
            json.dumps(content, ensure_ascii=False, default=str).encode()
        return content
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{source}{place}: {error.problem or error.context}") from error
    except InputError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{source}: cannot be read as YAML ({' '.join(str(error).split())[:300]})"
        ) from error


def _check_size(source: str, text: str) -> None:
    """Raises InputError for a file that is too deep or too long with its aliases replaced, or has other tags.

    Events are read one after the other: nothing of the file is built.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{source}: more than {MOST_CHARACTERS // 1_000_000} MB; split the file")
    sizes: dict[str, int] = {}
    # Of the collections that are open: (anchor, characters and nodes so far).
    stack: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, yaml.SafeLoader):
        size = 0
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1))
            sizes.pop(event.anchor or "", None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = stack.pop()
            sizes |= {anchor: size} if anchor else {}
        if isinstance(event, yaml.ScalarEvent) and event.anchor:
            sizes[event.anchor] = size
        stack[-1] = stack[-1][0], stack[-1][1] + size
        if problem := _problem(event, len(stack), stack[-1][1], size):
            raise InputError(f"{source}, line {event.start_mark.line + 1}: {problem}")


def _problem(event: Any, levels: int, total: int, size: int) -> str:
    """What is wrong with an event: `levels` are open, and `total` characters and nodes in the innermost."""
    if getattr(event, "tag", None) not in PLAIN_TAGS:
        return f"the tag {event.tag} is not allowed; write plain text, numbers, lists and mappings"
    if isinstance(event, yaml.AliasEvent) and not size:
        return f"the alias *{event.anchor} has no finished content before it"
    if levels > MOST_LEVELS:
        return f"more than {MOST_LEVELS} levels of lists and mappings"
    if total > MOST_CHARACTERS:
        return f"its aliases stand for more than {MOST_CHARACTERS // 1_000_000} MB; write out what is meant"
    return ""
