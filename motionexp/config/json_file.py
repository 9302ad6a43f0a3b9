"""The one reader of JSON files that a user hands over: bounded, no key twice, errors with their place."""

import json
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from motionexp.config.text_file import read_text
from motionexp.errors import InputError


def read_json(path: Path) -> Any:
    """The content of a JSON file, as `parse_json`. Raises InputError."""
    return parse_json(read_text(path), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: it must be a JSON object, {{...}}")
    return content


def parse_json(text: str, source: str) -> Any:
    """The content of JSON as dicts, lists, text, finite numbers, booleans and None.

    Args:
        source: where the text is from, for errors.

    Raises:
        InputError: one line with the source and the place of what is wrong.
    """
    try:
        content = DECODER.decode(text)
        if "\\u" in text:
            # Half of a character, as "\ud800", which no file and no terminal takes.
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{source}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: cannot be read as JSON ({error})") from error
    return content


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        first, value = pairs[0]
        start = f"{{{reprlib.repr(first)}: {reprlib.repr(value)}, ..."
        raise ValueError(f"the key {reprlib.repr(key)} stands twice in {start}")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_checked_object, parse_constant=_refuse_constant)
"""Python's decoder, but a key that stands twice, NaN and Infinity are a ValueError."""
