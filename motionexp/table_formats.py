"""A finished table and how it is written: Markdown, LaTeX and CSV, with the same content in each."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from motionexp.intervals import Interval

Write = Callable[[str], str]

MISSING_NOTE = (
    "(k missing): so many samples have no value there, mostly for want of an object or of motion to follow;"
    " they are left out of the mean."
)


@dataclass(frozen=True)
class Cell:
    """A measured interval, or a reported number (`interval` has then NaN bounds and n = 0)."""

    column: str
    interval: Interval
    digits: int


@dataclass(frozen=True)
class Line:
    """One line of a finished table; `source` is `measured` or `reported`.

    Of differences those whose interval excludes zero are bold, and nothing else is.
    """

    labels: list[str]
    cells: list[Cell | None]
    n: str
    adapter_steps: str
    source: str = "measured"
    is_difference: bool = False

    def is_bold(self, cell: Cell | None) -> bool:
        """Whether the cell is a difference of known sign."""
        known = cell is not None and not math.isnan(cell.interval.low)
        if not (self.is_difference and known and cell is not None):
            return False
        return cell.interval.low > 0 or cell.interval.high < 0


@dataclass(frozen=True)
class Block:
    """The lines under one title."""

    title: str
    lines: list[Line]


@dataclass(frozen=True)
class Table:
    """A finished table, the same content for every format."""

    title: str
    labels: list[str]
    columns: list[str]
    blocks: list[Block]
    notes: list[str]
    unit: str

    @property
    def is_measured(self) -> bool:
        """Whether anything in it is not a paper's."""
        return any(line.source != "reported" for block in self.blocks for line in block.lines)

    @property
    def header(self) -> list[str]:
        """The heads of all columns; how many steps had the adapter on is left out where none had."""
        return [*self.labels, *self.columns, f"n ({self.unit})"] + ["adapter steps"] * self._has_adapter

    @property
    def _has_adapter(self) -> bool:
        return any(line.adapter_steps not in ("", "0") for block in self.blocks for line in block.lines)

    @property
    def _has_missing(self) -> bool:
        cells = [cell for block in self.blocks for line in block.lines for cell in line.cells]
        return any(cell is not None and cell.interval.missing for cell in cells)

    def texts(self, line: Line, write: Write = str, bold: Write = str) -> list[str]:
        """What stands under `header` in a line, `write` makes of text what the format wants."""
        numbers = [
            bold(write(_shown(cell))) if line.is_bold(cell) else write(_shown(cell)) for cell in line.cells
        ]
        rest = [line.n] + [line.adapter_steps] * self._has_adapter
        return [*map(write, line.labels), *numbers, *map(write, rest)]

    def all_notes(self) -> list[str]:
        """What the numbers are, then the layout's own notes."""
        drawn = f"Mean [95% bootstrap interval over {self.unit}]; n samples (of so many {self.unit})."
        if any(line.is_difference for block in self.blocks for line in block.lines):
            drawn += " Differences are paired; bold: the interval excludes zero."
        return [drawn, *([MISSING_NOTE] if self._has_missing else []), *self.notes]


def _rounded(value: float, digits: int) -> float:
    # Twelve digits first: sums differ between machines in the last bit; that must not decide how .5 rounds.
    return round(round(value, 12), digits) + 0.0


def _number(value: float, digits: int) -> str:
    return f"{_rounded(value, digits):.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _shown(cell: Cell | None) -> str:
    if cell is None or math.isnan(cell.interval.mean):
        return "\N{EN DASH}"
    interval, digits = cell.interval, cell.digits
    text = _number(interval.mean, digits)
    if not math.isnan(interval.low):
        text += f" [{_number(interval.low, digits)}, {_number(interval.high, digits)}]"
    return text + (f" ({interval.missing} missing)" if interval.missing else "")


def to_markdown(table: Table) -> str:
    """A heading, one pipe table a block, and the notes."""
    header = table.header
    parts = [f"## {table.title}"]
    for block in table.blocks:
        texts = [table.texts(line, _markdown, "**{}**".format) for line in block.lines]
        lines = [[_markdown(cell) for cell in header], ["---"] * len(header), *texts]
        rows = ["| " + " | ".join(line) + " |" for line in lines]
        parts.append(f"### {block.title}\n\n" + "\n".join(rows))
    parts.append("\n".join(f"- {note}" for note in table.all_notes()))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    return text.replace("|", "\\|")


TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "τ": r"$\tau$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""
    header = table.header
    width = len(header)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(table.title)}. {' '.join(_tex(note) for note in table.all_notes())}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * (width - len(table.labels))}}}",
        r"\toprule",
        " & ".join(map(_tex, header)) + r" \\",
    ]
    for block in table.blocks:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(block.title)}}}}} \\"]
        texts = [table.texts(line, _tex, r"\textbf{{{}}}".format) for line in block.lines]
        lines += [" & ".join(each) + r" \\" for each in texts]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """One line a number, unrounded to eight digits: what a reader's own program takes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = (
        "table",
        "block",
        "setting",
        "column",
        "source",
        "mean",
        "low",
        "high",
        "n",
        "references",
        "missing",
    )
    writer.writerow(names)
    for table in tables:
        for block in table.blocks:
            for line in block.lines:
                for cell in line.cells:
                    if cell is not None:
                        place = (table.title, block.title, ", ".join(line.labels), cell.column, line.source)
                        writer.writerow([*place, *_csv_numbers(cell.interval)])
    return file.getvalue()


def _csv_numbers(interval: Interval) -> list[str | int]:
    numbers = (interval.mean, interval.low, interval.high)
    texts = ["" if math.isnan(number) else f"{_rounded(number, 8):.8g}" for number in numbers]
    return [*texts, interval.n, interval.clusters, interval.missing]
