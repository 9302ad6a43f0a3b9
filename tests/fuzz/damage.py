"""Damage: seeded changes of values, tables, texts and bytes, towards what breaks readers."""

import copy
import csv
import io
import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

MODULE = "fuzz_canary"
"""A module whose import is forbidden: no file may name code that runs."""
NUMBERS = (
    *(None, True, False, 0, -1, 1, 3, 10**6, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.5, 1e308, 1e-320, 3.0, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "\0", "a\0b", "\n", "a\nb", "a\r\nb", "\t", "..", ".", "../..", "../canary", "/", "a/b", "/a"),
    *("~", "~root", "~nobody/x", "$HOME", "/dev/zero", "/proc/self/mem", "con", "-", "--help", "=", ",", ";"),
    *("${tau}", "${", "${}", "${oc.env:HOME}", "${oc.decode:1}", "${now:%Y}", "${a.b.c}", "???", "\\${tau}"),
    *("null", "nan", "inf", "-inf", "1e999", "1_000", "0x10", "٣", "²"),
    *("½", "1,5", "9" * 5000, "true", "[1]"),
    *("\u202etxt", "\ufeff", "\ud800", "e\u0301" * 40, "🐈", "\x1b[31m"),
    *("\u2028", "ſ", "İ", "a" * 300, "x" * 99999),
    *(f"{MODULE}.run", "os.system", "builtins.eval"),
    *("motionexp.files.write_whole", "motionexp.cli", "%s%n{}"),
    *("!!python/name:os.system", "*a", "&a", "<<", "{a: 1}", "- a", "# a"),
    *("'", '"', "'a", "(", "a|b", "[", "{"),
)  # fmt: skip
TREES = (
    *({}, [], [[]], [None], [{}], {"": ""}, {"a": {"b": []}}, [1, "a", None], {"_target_": f"{MODULE}.run"}),
    *({"_target_": "os.system", "command": "touch canary"}, [1] * 5000, {str(n): n for n in range(3000)}),
)
RAW = (
    *("1e999", "9" * 5000, "NaN", "-Infinity", "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000),
    *('"\\ud800"', "-0", '{"a": 1, "a": 2}'),
    *("!!python/object/apply:os.system [touch canary]", "01", "1.", ".5"),
    *("&a [*a]", "*a", "!!binary eA==", "2020-01-01", "{<<: {a: 1}}"),
    *("{? [a]: b}", "{? {a: b}: c}", "!!set {a}"),
    *("&a [x, x]", f"!!python/module:{MODULE}", "{1: 2}", "{null: 1}"),
    *("{[1]: 2}", "!x y", "@", "`", "%", "\x07"),
)  # fmt: skip
"""Text in the place of a value of JSON or YAML, which need not be valid."""
TOKENS = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b",", b'"', b"\r", b"{"),
    *(b"[" * 2000, b"\xed\xa0\x80", b"../canary"),
    *(b"!!python/object/apply:os.system [a]", b"${oc.env:HOME}", b"\x1a\x45\xdf\xa3", b"PK\x03\x04", b"NaN"),
)  # fmt: skip
_PLACE = "raw-text-{}-here"


class Damage:
    """Changes of one case, which its seed alone decides. Seed 0 changes nothing."""

    def __init__(self, kind: str, seed: int) -> None:
        self.random = Random(f"{kind} {seed}")
        self.is_off = seed == 0
        self._raw: list[str] = []

    def maybe(self, share: float) -> bool:
        """Whether to do something that `share` of the damaged cases do."""
        return not self.is_off and self.random.random() < share

    def value(self) -> Any:
        """One value out of the lists above; of JSON and YAML also text in its place (`dumped` writes it)."""
        kinds: list[Sequence[Any]] = [NUMBERS, TEXTS, TEXTS, TREES, RAW]
        values = self.random.choice(kinds)
        if values is RAW:
            self._raw.append(self.random.choice(RAW))
            return _PLACE.format(len(self._raw) - 1)
        value = self.random.choice(values)
        return copy.deepcopy(value)

    def text(self, text: str = "") -> str:
        """Another text: one of the list, or this one with a part of it changed."""
        if self.is_off:
            return text
        if not text or self.random.random() < 0.6:
            return self.random.choice(TEXTS)
        place = self.random.randrange(len(text) + 1)
        return text[:place] + self.random.choice(TEXTS) + text[place + self.random.randrange(3) :]

    def tree(self, content: Any) -> Any:
        """Dicts and lists with one to three changes."""
        content = {"root": copy.deepcopy(content)}
        for _ in range(0 if self.is_off else self.random.choice((1, 1, 1, 2, 3))):
            self._change(content)
        return content["root"]

    def _change(self, content: Any) -> None:
        places = list(_places(content))
        holder, key = self.random.choice(places)
        value = holder[key]
        changes: list[Callable[[], Any]] = [self.value] * 5 + [
            lambda: [value],
            lambda: {"a": value},
            lambda: str(value),
            lambda: self.text(str(value)),
            lambda: copy.deepcopy(self._any_of(places)),
        ]
        if isinstance(value, list) and value:
            changes += [lambda: value * 3, lambda: value[:-1], lambda: [*value, self.value()]]
        if isinstance(value, int | float) and not isinstance(value, bool):
            changes += [lambda: -value, lambda: value * 1000, lambda: float(value % 2**40), lambda: value + 1]
        if isinstance(holder, dict) and key != "root" and self.random.random() < 0.3:
            del holder[key]
            if self.random.random() < 0.5:
                holder[self.random.choice((self.text(str(key)), *map(str, holder)))] = value
            elif self.random.random() < 0.2:
                holder[self.random.choice((None, 1, 1.5, True))] = value
            return
        holder[key] = self.random.choice(changes)()

    def _any_of(self, places: Sequence[tuple[Any, Any]]) -> Any:
        holder, key = self.random.choice(places)
        return holder[key]

    def dumped(self, content: Any) -> str:
        """A damaged tree as JSON, which is YAML too."""
        whole = json.dumps(_with_text_keys(content), indent=self.random.choice((None, 1)))
        for number, raw in enumerate(self._raw):
            whole = whole.replace(f'"{_PLACE.format(number)}"', raw)
        return whole

    def table(self, rows: Sequence[Sequence[str]]) -> bytes:
        """A CSV with changed cells, rows and columns."""
        lines = [list(row) for row in rows]
        for _ in range(0 if self.is_off else self.random.choice((1, 1, 2, 4))):
            row = self.random.choice(lines)
            place = self.random.randrange(len(row)) if row else 0
            match self.random.randrange(9):
                case 0 | 1 | 2 | 3 if row:
                    row[place] = self.text(row[place])
                case 4:
                    row.insert(place, self.text())
                case 5 if row:
                    del row[place]
                case 6:
                    lines.append(list(self.random.choice(lines)))
                case 7:
                    lines.insert(self.random.randrange(len(lines)), [])
                case 8 if len(lines) > 1:
                    lines.remove(row)
        file = io.StringIO(newline="")
        # A text with a lone carriage return needs quotes, which csv writes by itself.
        csv.writer(file, lineterminator=self.random.choice(("\n", "\r\n"))).writerows(lines)
        return self.encoded(file.getvalue())

    def encoded(self, text: str) -> bytes:
        """Text as bytes: UTF-8, at times with a mark in front or in another encoding, and damaged."""
        content = text.encode(errors="surrogatepass")
        if self.maybe(0.05):
            content = text.encode(self.random.choice(("utf-16", "latin-1", "utf-8-sig")), errors="replace")
        return self.bytes(content) if self.maybe(0.15) else content

    def bytes(self, content: bytes, other: bytes = b"") -> bytes:
        """Bytes that are flipped, cut, repeated, moved, overwritten or inserted."""
        data = bytearray(content)
        for _ in range(0 if self.is_off else self.random.choice((1, 1, 1, 2, 5, 20))):
            size = len(data)
            # Headers lie at the begin, and often at the end.
            spread = self.random.choice((size, min(size, 64), min(size, 512)))
            start = self.random.randrange(spread + 1)
            start = size - start if self.random.random() < 0.2 else start
            end = min(size, start + self.random.choice((1, 2, 4, 8, 64, size)))
            match self.random.randrange(9):
                case 0 | 1 if start < size:
                    data[start] ^= 1 << self.random.randrange(8)
                case 2:
                    del data[start:]
                case 3:
                    data[start:start] = data[start:end] * self.random.choice((1, 3))
                case 4:
                    del data[start:end]
                case 5:
                    data[start:start] = self.random.choice(TOKENS)
                case 6:
                    data[start:end] = self.random.choice((b"\0", b"\xff", b"\x7f")) * (end - start)
                case 7:
                    number = self.random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65535, size))
                    data[start : start + 4] = struct.pack(self.random.choice(("<I", ">I")), number)
                case 8:
                    source = other or content
                    place = self.random.randrange(len(source) + 1)
                    data[start:end] = source[place : place + 64]
        return bytes(data[: 4 * len(content) + 100_000])


def _places(content: Any) -> Any:
    """(holder, key) of every value in a tree."""
    stack = [content]
    while stack:
        holder = stack.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            yield holder, key
            if isinstance(value, dict | list):
                stack.append(value)


def _with_text_keys(content: Any) -> Any:
    """Without sharing: json refuses the same object within itself, and keys that are no text."""
    if isinstance(content, dict):
        return {
            key if isinstance(key, str | int | float | None) else str(key): _with_text_keys(value)
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [_with_text_keys(value) for value in content]
    return content if not isinstance(content, int) or abs(content) < 10**4000 else str(content)
