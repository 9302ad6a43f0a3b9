"""A finished table and how it is written: Markdown, LaTeX and CSV, with the same content in each."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from motionexp.results.intervals import Interval

Write = Callable[[str], str]

MISSING_NOTE = (
    "(k missing): so many samples have no value there, mostly for want of an object or of motion to follow;"
    " they are left out of the mean."
)
NONE = "none"
"""In place of n where a setting has no rows."""
NONE_NOTE = "n none: the setting was not run there, or the model has no such thing."
FEWEST = 5
"""References of which a difference is bold."""
FEW_NOTE = (
    "The interval of five references or fewer is their range. Of five it holds the true mean in 94% of cases,"
    " of four in 88%, of three in 75%: of fewer than five nothing is bold."
)
UNDEFINED_NOTE = (
    "(k% undefined): in so many draws of references there is no such motion, for even the base model leaks"
    " more than the level; the interval leaves these draws out, and of more than 5% there is no interval."
)


@dataclass(frozen=True)
class Cell:
    """A measured interval, or a reported number (`interval` has then NaN bounds and n = 0)."""

    column: str
    interval: Interval
    digits: int
    is_difference: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a finished table; `source` is `measured` or `reported`.

    Of differences those whose interval, as it is printed, excludes zero are bold, and nothing else is.
    `is_difference` says that all its cells are differences.
    """

    labels: list[str]
    cells: list[Cell | None]
    n: str
    adapter_steps: str
    source: str = "measured"
    is_difference: bool = False

    def is_bold(self, cell: Cell | None) -> bool:
        """Whether the cell is a difference of known sign."""
        if cell is None or not (self.is_difference or cell.is_difference) or cell.interval.clusters < FEWEST:
            return False
        low, high = (_rounded(each, cell.digits) for each in (cell.interval.low, cell.interval.high))
        return low > 0 or high < 0


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
    def _intervals(self) -> list[Interval]:
        cells = [cell for block in self.blocks for line in block.lines for cell in line.cells]
        return [cell.interval for cell in cells if cell is not None]

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
        lines = [line for block in self.blocks for line in block.lines]
        cells = [cell for line in lines for cell in line.cells if cell is not None]
        if any(line.is_difference for line in lines) or any(cell.is_difference for cell in cells):
            drawn += " Differences are paired; bold: the interval excludes zero."
        few = any(1 < each.clusters < FEWEST for each in self._intervals)
        said = {
            FEW_NOTE: few and self.unit == "references",
            NONE_NOTE: any(line.n == NONE for line in lines),
            MISSING_NOTE: any(each.missing for each in self._intervals),
            UNDEFINED_NOTE: any(each.undefined for each in self._intervals),
        }
        return [drawn, *(note for note, holds in said.items() if holds), *self.notes]


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
    text += f" ({interval.missing} missing)" if interval.missing else ""
    return text + (f" ({math.ceil(100 * interval.undefined)}% undefined)" if interval.undefined else "")


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
        "undefined",
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
    return [*texts, interval.n, interval.clusters, interval.missing, f"{interval.undefined:.4g}"]
