"""Tables on a terminal: as many columns beside each other as fit, the rest below with the labels repeated."""

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from motionexp.results.formats import BOLD, Grid, Table, printable

LEGEND = "Mean [95% interval over {unit}]; n samples ({unit}); ↑ higher is better"
ALONE = "Mean over n samples of one reference (no interval); ↑ higher, ↓ lower is better"


def print_table(console: Console, table: Table) -> None:
    """Print a finished table: its blocks, a legend of one line, and its notes."""
    console.print(Text(printable(table.title), style="bold"))
    labels = len(table.labels)
    for block in table.blocks:
        texts = [table.texts(line, printable, _bold) for line in block.lines]
        header, texts = _with_n_first(table, texts)
        console.print()
        print_grid(console, header, texts, labels=labels, title=printable(block.title))
    most = max((cell.interval.clusters for line in table.lines for cell in line.cells if cell), default=0)
    console.print(Text(table.about or (ALONE if most == 1 else LEGEND.format(unit=table.unit))))
    # The first note says what the legend says.
    for note in table.all_notes()[1:]:
        console.print(Text(printable(note)))


def print_grid(
    console: Console,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    labels: int = 1,
    title: str = "",
    sides: str = "",
) -> None:
    """Print lines of text under a header, in as many tables as the width of the console needs.

    Args:
        console: prints.
        header: words are put below each other.
        lines: texts, which may contain line breaks; text between `BOLD` marks is bold.
        labels: the number of first columns, which every table repeats.
        title: of the first table.
        sides: as of a `Grid`; by default labels are on the left and numbers on the right.
    """
    if title:
        console.print(Text(title, style="italic"))
    heads = [_words_below(text) if place >= labels else text for place, text in enumerate(header)]
    for columns in _packed(heads, lines, labels, console.width):
        texts = [[line[place] for place in columns] for line in lines]
        chosen = sides or "l" * labels + "r"
        chosen = "".join(chosen[min(place, len(chosen) - 1)] for place in columns)
        console.print(Grid([heads[place] for place in columns], texts, chosen).terminal())


def _with_n_first(table: Table, lines: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines with n beside the labels; what is in brackets is below the means."""
    labels, columns = len(table.labels), len(table.columns)
    n = labels + columns

    def ordered(texts: Sequence[str]) -> list[str]:
        return [*texts[:labels], texts[n], *map(_in_lines, texts[labels:n]), *texts[n + 1 :]]

    return [*table.labels, "n", *table.columns, *table.header[n + 1 :]], [ordered(line) for line in lines]


def _packed(
    heads: Sequence[str], lines: Sequence[Sequence[str]], labels: int, width: int
) -> Iterator[list[int]]:
    """The places of the columns of each table, none of which is wider than `width` if one column can be."""
    widths = [
        max(
            cell_len(part)
            for text in (head, *(line[place] for line in lines))
            for part in _plain(text).split("\n")
        )
        for place, head in enumerate(heads)
    ]
    first = [*range(labels)]
    columns = list(first)
    for place in range(labels, len(heads)):
        # A space beside each column and at both ends.
        if len(columns) > labels and sum(widths[column] + 1 for column in [*columns, place]) + 1 > width:
            yield columns
            columns = list(first)
        columns.append(place)
    yield columns


def _words_below(heading: str) -> str:
    """A word a line; a long word is divided at its hyphen."""
    return "\n".join(re.sub(r"(\w{4,}-)(?=\w{4})", r"\1 ", heading).split())


def _in_lines(text: str) -> str:
    return re.sub(r" (?=\[|\()", "\n", text)


def _bold(text: str) -> str:
    return f"{BOLD}{text}{BOLD}"


def _plain(text: str) -> str:
    return text.replace(BOLD, "")
