"""Checks that several suites' readers share: captions, reference names, lists of problems. No torch."""

import reprlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from motionexp.errors import InputError, nearest

Entry = TypeVar("Entry")
# Of one error; the rest is counted.
MOST_PROBLEMS = 8
MOST_SHOWN = 300
"""Characters of one text in an error."""
MOST_CAPTION = 5000
"""Characters of one caption; text encoders read a few hundred."""
MOST_COMPARED = 1000
"""Names among which a similar one is looked for; each takes about 20 µs."""


def raise_problems(heading: str, problems: Sequence[str]) -> None:
    """Raises InputError with the heading and the first problems, a line each, if there is a problem.

    A single problem stands on the line of the heading.
    """
    if problems:
        hidden = len(problems) - MOST_PROBLEMS
        more = [f"... and {hidden} more"] if hidden > 0 else []
        lines = [
            shortened(problem.replace("\n", " "), 2 * MOST_SHOWN) for problem in problems[:MOST_PROBLEMS]
        ]
        raise InputError(f"{heading} {lines[0]}" if len(lines) == 1 else "\n".join([heading, *lines, *more]))


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """The text, or its first `most` characters and how many it has."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def caption_problem(text: Any) -> str:
    """What is wrong with a caption, as the end of a sentence that begins with its name, or an empty text."""
    if not isinstance(text, str):
        return f"is {reprlib.repr(text)}; it must be text, and in quotes if it looks like something else"
    if not text.strip():
        return "is empty; write what the video shows"
    if len(text) > MOST_CAPTION:
        return f"has {len(text)} characters; it may have {MOST_CAPTION}"
    if not any(character.isalpha() for character in text):
        return f"is {text!r}, which has no letter; is a cell missing before it?"
    if any(character < " " and character not in "\n\r\t" for character in text) or "\ufffd" in text:
        return f"is {shortened(text)!r}, with a character that is no text; store the file as UTF-8"
    return ""


def folded(text: str) -> str:
    """The text without differences in capitals and in spaces, to find what stands twice."""
    return " ".join(text.split()).casefold()


def reference_named(name: str, references: Mapping[str, Entry], source: str) -> Entry:
    """The reference of this name. Raises InputError with the nearest name or the source's first names."""
    if name not in references:
        near = nearest(name, references)
        more = ", ..." if len(references) > MOST_PROBLEMS else ""
        names = f"it has {shortened(', '.join(islice(references, MOST_PROBLEMS)))}{more}"
        hint = f"did you mean {near}?" if near else names
        raise InputError(f"reference {shortened(name)!r}: {source} has no such video; {hint}")
    return references[name]


def scored_frames(frames: int, longest: int | None = None) -> int | None:
    """How many of `frames` are scored: 4k of 4k + 1, which some VAEs need; None: all.

    Args:
        frames: that a model generates.
        longest: more than `longest` + 1 frames are all scored; None: no limit.
    """
    # VAEs that shorten videos to a quarter take 4k + 1 frames: the first one is encoded alone.
    one_more = frames % 4 == 1 and frames > 1
    return frames - 1 if one_more and (longest is None or frames <= longest + 1) else None
