"""A finished table and its written forms: Markdown, CSV and the terminal; `latex` has one more."""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.text import Text

from motionexp.results.intervals import Interval
from motionexp.results.significance import LEVEL

Write = Callable[[str], str]

MISSING_NOTE = (
    "(k missing): k samples have no value there, mostly because no object or no motion could be followed; the"
    " mean leaves them out."
)
NONE = "none"
"""In place of n where a setting has no rows."""
NONE_NOTE = "n none: the setting was not run there, or the model has no such part."
BOLD = "\x01"
"""Marks both ends of a bold text for the terminal."""
# Categories of Unicode: control, format (such as right to left), half of a character, breaks of lines.
COMMANDING = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"
"""Of letters and of emoji: characters of the category format that belong to a text."""
# An underscore within a word, brackets that no link follows and a sign alone mean nothing.
MARKUP = re.compile(r"[\\|`*<$]|&(?=#?\w+;)|~~|\](?=\()|(?<!\w)_|_(?!\w)")
"""What Markdown reads as markup within a line."""
FEWEST = 5
"""The least number of references at which a difference may be bold."""
FEW_NOTE = (
    "The interval of five or fewer references is their range. It contains the true mean of normal values in"
    " 94% of cases with five references, in 88% with four and in 75% with three. Of fewer than five nothing"
    " is bold."
)
ROUNDED_NOTE = "An end of a bold interval that reads as zero excludes zero before it is rounded."
UNDEFINED_NOTE = (
    "(k% undefined): in k% of the bootstrap replicates there is no such motion, because even the base model"
    " leaks more than the level. The interval leaves these replicates out; above 5% there is no interval."
)
CSV_COLUMNS = (
    *("table", "block", "setting", "column", "source"),
    *("mean", "low", "high", "n", "references", "missing", "undefined"),
)


@dataclass(frozen=True)
class Grid:
    """Lines of text under a header, for Markdown and for the terminal.

    `sides` aligns the columns, one letter (`l` or `r`) each; its last letter is that of all further columns.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    sides: str = "lr"

    def markdown(self) -> str:
        """A pipe table, without a line break at its end."""
        sides = {"l": "---", "r": "---:"}
        rule = "|".join(sides[side] for side in self._all_sides())
        header, *lines = [f"| {' | '.join(cells)} |" for cells in (self.header, *self.lines)]
        return "\n".join([header, f"|{rule}|", *lines])

    def terminal(self) -> rich_table.Table:
        """A table for a rich console; cells hold plain text, no markup."""
        table = rich_table.Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
        for heading, side in zip(self.header, self._all_sides(), strict=True):
            justify: Literal["left", "right"] = "right" if side == "r" else "left"
            table.add_column(Text(heading), justify=justify, overflow="fold")
        for cells in self.lines:
            table.add_row(*map(_bold_parts, cells))
        return table

    def _all_sides(self) -> str:
        return self.sides.ljust(len(self.header), self.sides[-1])[: len(self.header)]


def _bold_parts(text: str) -> Text:
    """Text whose parts between two `BOLD` marks are bold; brackets and colons in it are no markup."""
    return Text.assemble(
        *((part, "bold" if place % 2 else "") for place, part in enumerate(text.split(BOLD)))
    )


def printable(text: str) -> str:
    """A text out of data on one line, without characters that command a terminal or turn the reading around.

    They are shown as Python writes them, a line break as `\\n`.
    """
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in COMMANDING and letter not in JOINERS else letter
        for letter in text
    )


def duration(seconds: float) -> str:
    """Seconds in words, with a unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def amount(number: int, noun: str) -> str:
    """A number with its noun, which takes an s in the plural."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def markdown_text(text: str) -> str:
    """A text out of data in Markdown, shown letter by letter and within a cell of a table."""
    return MARKUP.sub(r"\\\g<0>", printable(text))


@dataclass(frozen=True)
class Cell:
    """A measured interval, or a reported number (`interval` has then NaN bounds and n = 0).

    `p` is that of a difference which is one of a family, after the correction for their number.
    """

    column: str
    interval: Interval
    digits: int
    is_difference: bool = False
    p: float | None = None


@dataclass(frozen=True)
class Line:
    """One line of a finished table; `source` is `measured` or `reported`.

    Of differences those whose interval excludes zero are bold, and nothing else is.
    `is_difference` says that all its cells are differences.
    """

    labels: list[str]
    cells: list[Cell | None]
    n: str
    adapter_steps: str
    source: str = "measured"
    is_difference: bool = False

    def is_bold(self, cell: Cell | None) -> bool:
        """Whether the cell is a difference whose sign is certain."""
        if cell is None or not (self.is_difference or cell.is_difference) or cell.interval.clusters < FEWEST:
            return False
        return excludes_zero(cell.interval) and (cell.p is None or cell.p <= LEVEL)


@dataclass(frozen=True)
class Block:
    """The lines under one title."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Table:
    """A finished table, the same content for every format.

    `about` says what brackets and n are, where they are no bootstrap intervals of means.
    """

    title: str
    labels: list[str]
    columns: list[str]
    blocks: list[Block]
    notes: list[str]
    unit: str
    about: str = ""

    @property
    def lines(self) -> Iterator[Line]:
        """The lines of all blocks."""
        return (line for block in self.blocks for line in block.lines)

    @property
    def header(self) -> list[str]:
        """The headings of all columns; that of the adapter's steps only where a line had an adapter."""
        has_adapter = any(line.adapter_steps not in ("", "0") for line in self.lines)
        return [*self.labels, *self.columns, f"n ({self.unit})", *["adapter steps"] * has_adapter]

    def texts(self, line: Line, write: Write = str, bold: Write = str) -> list[str]:
        """A line's text under each heading; `write` escapes text for the format."""
        shown = [(bold if line.is_bold(cell) else str)(write(_shown(cell))) for cell in line.cells]
        texts = [*map(write, line.labels), *shown, write(line.n), write(line.adapter_steps)]
        return texts[: len(self.header)]

    def _reads_as_zero(self, line: Line, cell: Cell | None) -> bool:
        """Whether a cell is bold although an end of its interval is printed as zero."""
        return (
            line.is_bold(cell)
            and cell is not None
            and 0 in (_rounded(cell.interval.low, cell.digits), _rounded(cell.interval.high, cell.digits))
        )

    def all_notes(self) -> list[str]:
        """What the numbers mean, then the layout's notes."""
        about = self.about or (
            f"Mean [95% bootstrap interval over {self.unit}]; n: samples (of how many {self.unit})."
        )
        cells = [cell for line in self.lines for cell in line.cells if cell is not None]
        intervals = [cell.interval for cell in cells]
        if any(line.is_difference for line in self.lines) or any(cell.is_difference for cell in cells):
            about += " Differences are paired; bold: the interval excludes zero."
        # The note's coverage was computed for references; other units have other numbers of values.
        few = any(1 < interval.clusters < FEWEST for interval in intervals)
        notes = {
            FEW_NOTE: few and self.unit == "references",
            ROUNDED_NOTE: any(self._reads_as_zero(line, cell) for line in self.lines for cell in line.cells),
            NONE_NOTE: any(line.n == NONE for line in self.lines),
            MISSING_NOTE: any(interval.missing for interval in intervals),
            UNDEFINED_NOTE: any(interval.undefined for interval in intervals),
        }
        return [about, *(note for note, applies in notes.items() if applies), *self.notes]


def excludes_zero(interval: Interval) -> bool:
    """Whether both ends of an interval are on one side of zero, before they are rounded for print."""
    # Sums differ between machines in the last bit, which must not decide.
    return round(interval.low, 12) > 0 or round(interval.high, 12) < 0


def _rounded(value: float, digits: int) -> float:
    # Twelve digits first: sums differ between machines in the last bit; that must not decide how .5 rounds.
    # Adding 0.0 turns -0.0 into 0.0.
    return round(round(value, 12), digits) + 0.0


def decimal(value: float, digits: int = 2) -> str:
    """A number with its minus sign as all texts and tables print it; a dash for NaN."""
    if math.isnan(value):
        return "\N{EN DASH}"
    return f"{_rounded(value, digits):.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval_text(interval: Interval, digits: int) -> str:
    """A mean, and where it has one its interval in brackets."""
    text = decimal(interval.mean, digits)
    if math.isnan(interval.low):
        return text
    return f"{text} {ends_text(interval.low, interval.high, digits)}"


def ends_text(low: float, high: float, digits: int) -> str:
    """Both ends of an interval in brackets."""
    return f"[{decimal(low, digits)}, {decimal(high, digits)}]"


def _shown(cell: Cell | None) -> str:
    if cell is None or math.isnan(cell.interval.mean):
        return "\N{EN DASH}"
    interval = cell.interval
    text = interval_text(interval, cell.digits)
    text += f" ({interval.missing} missing)" if interval.missing else ""
    return text + (f" ({math.ceil(100 * interval.undefined)}% undefined)" if interval.undefined else "")


def to_markdown(table: Table) -> str:
    """A heading, one pipe table for each block, and the notes."""
    header, sides = [*map(markdown_text, table.header)], "l" * len(table.labels) + "r"
    parts = [f"## {markdown_text(table.title)}"]
    for block in table.blocks:
        lines = [table.texts(line, markdown_text, "**{}**".format) for line in block.lines]
        parts.append(f"### {markdown_text(block.title)}\n\n{Grid(header, lines, sides).markdown()}")
    parts.append("\n".join(f"- {_note(note)}" for note in table.all_notes()))
    return "\n\n".join(parts) + "\n"


def _note(text: str) -> str:
    # A layout's notes are Markdown; what they quote of data must neither be HTML nor end the line.
    return printable(text).replace("<", "\\<")


def to_csv(tables: Sequence[Table]) -> str:
    """One line for each number, to eight digits, for a reader's own program."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    lines = ((table, block, line) for table in tables for block in table.blocks for line in block.lines)
    for table, block, line in lines:
        for cell in filter(None, line.cells):
            place = (table.title, block.title, ", ".join(line.labels), cell.column, line.source)
            mean, low, high, *counts, undefined = astuple(cell.interval)
            numbers = ["" if math.isnan(end) else f"{_rounded(end, 8):.8g}" for end in (mean, low, high)]
            writer.writerow([*place, *numbers, *counts, f"{undefined:.4g}"])
    return file.getvalue()
