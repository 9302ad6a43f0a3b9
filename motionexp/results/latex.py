"""Tables as LaTeX, in parts that fit a page of a paper with one column or with two.

Each part is a `table*`, which is as wide as the page in both; a longtable is refused in two columns. Every
part repeats the labels; the numbers of samples are in the last columns. Widths and heights are estimated for
letters of 8 points (Computer Modern) and the smallest usual page, that of `article` at 10 points.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from motionexp.results.formats import Block, Line, Table, printable

PAGE_WIDTH, PAGE_HEIGHT = 345.0, 550.0
"""Points of text on a page."""
LABELS_WIDTH = 100.0
"""Points that all labels of a line have; longer ones are broken."""
SMALL, ROW, RULE, GAP = 8, 9.6, 8.0, 5.0
"""Points: the letters, a line of text, a rule with its space, and the space between two columns."""
HELD = 16
"""Floats in a row; LaTeX refuses more than 18 in old versions and 52 in new ones."""
CAPTION = 90.0
"""Points of a caption of at most three lines with its space."""
REMARK = re.compile(r" (?=\(\d+%? (?:missing|undefined)\))")
"""Where a cell is broken into lines."""
BOLD = 1.17
"""How much wider bold letters are."""
# Points of cmr8's letters: of the narrow ones, of the wide ones, and of all others, digits too.
NARROW, WIDE, POINTS = " .,:;'|![]()ijlt", "mwMW%\N{MINUS SIGN}\N{EN DASH}↑↓→", (2.6, 6.8, 4.35)
# Characters that LaTeX reads as commands, and those that its fonts lack or show as others.
TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>|"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{NO-BREAK SPACE}": "~",
}


@dataclass(frozen=True)
class Part:
    """One float: some columns, by their places in the header, and some blocks of a table.

    `widths` are the points of all columns of the table.
    """

    table: Table
    widths: Sequence[float]
    columns: Sequence[int]
    blocks: Sequence[Block]


def to_latex(tables: Sequence[Table], name: str) -> str:
    """The tables of one file, for a document with `\\usepackage{array, booktabs}`.

    Args:
        tables: finished tables.
        name: of the file; the first part has the label `tab:NAME`, the next ones `tab:NAME-2`, ...
    """
    floats: list[str] = []
    for table in tables:
        widths = _widths(table)
        places = product(_columns(table, widths), _blocks(table, widths))
        parts = [Part(table, widths, columns, blocks) for columns, blocks in places]
        for number, part in enumerate(parts, start=1):
            title = table.title + (f", part {number} of {len(parts)}" if len(parts) > 1 else "")
            label = f"{name}-{len(floats) + 1}" if floats else name
            floats.append(_float(part, title, label, table.all_notes() if number == 1 else []))
    # LaTeX holds few floats at once: it sets what it has before the next ones.
    groups = ["\n".join(floats[start : start + HELD]) for start in range(0, len(floats), HELD)]
    return "\n\\clearpage\n".join(groups)


def _float(part: Part, title: str, label: str, notes: Sequence[str]) -> str:
    table, widths = part.table, part.widths
    sides = [
        rf">{{\raggedright\arraybackslash}}p{{{widths[place]:.0f}pt}}" if place < len(table.labels) else "r"
        for place in part.columns
    ]
    headings = [
        _tex(table.header[place]) if place < len(table.labels) else _stacked(table.header[place])
        for place in part.columns
    ]
    lines = [
        r"\begin{table*}[tp]",
        r"\centering",
        rf"\caption{{{_tex(title)}.}}",
        rf"\label{{tab:{label}}}",
        rf"\fontsize{{{SMALL}pt}}{{{ROW}pt}}\selectfont",
        rf"\setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}",
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
    ]
    for block in part.blocks:
        title_width = min(PAGE_WIDTH, sum(widths[place] + GAP for place in part.columns)) - GAP
        about = rf"\parbox[t]{{{title_width:.0f}pt}}{{\raggedright\emph{{{_tex(block.title)}}}\strut}}"
        lines += [r"\midrule", rf"\multicolumn{{{len(part.columns)}}}{{l}}{{{about}}} \\"]
        for line in block.lines:
            texts = table.texts(line, _cell, r"\textbf{{{}}}".format)
            row = " & ".join(texts[place] for place in part.columns)
            # After a line's end LaTeX reads "[" and "*" as its options.
            lines.append(("{}" if row.startswith(("[", "*")) else "") + row + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\medskip\parbox{{{PAGE_WIDTH:.0f}pt}}{{{' '.join(map(_tex, notes))}}}"] if notes else []
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _columns(table: Table, widths: Sequence[float]) -> Iterator[list[int]]:
    """Places in the header, in groups that fit the page's width beside the labels."""
    first = len(table.labels)
    room = PAGE_WIDTH - sum(width + GAP for width in widths[:first])
    group: list[int] = []
    for place in range(first, len(table.header)):
        if group and sum(widths[of_group] + GAP for of_group in (*group, place)) > room:
            yield [*range(first), *group]
            group = []
        group.append(place)
    yield [*range(first), *group]


def _blocks(table: Table, widths: Sequence[float]) -> Iterator[list[Block]]:
    """The blocks, in groups that fit the page's height; a block that is too long is continued."""
    notes = _height(" ".join(table.all_notes()), PAGE_WIDTH)
    headings = max(len(_headed(text)) for text in table.header) * ROW
    # All groups leave room for the notes, so that every group of columns has equal parts.
    room = PAGE_HEIGHT - CAPTION - notes - headings - 2 * RULE
    group: list[Block] = []
    left = room
    for block in table.blocks:
        title, lines = block.title, list[Line]()
        head = RULE + _height(title, PAGE_WIDTH / 2)
        for number, line in enumerate(block.lines):
            remarks = max(len(REMARK.split(text)) for text in table.texts(line)) * ROW
            labels = [_height(text, width) for text, width in zip(line.labels, widths, strict=False)]
            height = max([remarks, *labels])
            # A title stands with one line at least.
            needed = height if lines else height + head
            if needed > left and (group or lines):
                if lines:
                    group.append(Block(title, lines))
                    title, lines = f"{block.title} (continued)" if number else title, []
                yield group
                group, left, needed = [], room, height + head
            lines.append(line)
            left -= needed
        group.append(Block(title, lines))
    yield group


def _widths(table: Table) -> list[float]:
    """Points of each column; labels that are too long together are broken."""
    rows = [(line, table.texts(line)) for line in table.lines]
    widths: list[float] = []
    for place, heading in enumerate(table.header):
        cell = place - len(table.labels)
        is_cell = 0 <= cell < len(table.columns)
        width = max(map(_width, _headed(heading)))
        for line, texts in rows:
            bold = BOLD if is_cell and line.is_bold(line.cells[cell]) else 1
            width = max(width, bold * max(map(_width, REMARK.split(texts[place]))))
        widths.append(width)
    labels = range(len(table.labels))
    # The widest label gives way first, down to its longest word.
    while sum(widths[place] for place in labels) > LABELS_WIDTH:
        place = max(labels, key=lambda place: widths[place])
        words = [word for _, texts in rows for word in texts[place].split()] + table.header[place].split()
        if widths[place] <= (least := max(map(_width, words))):
            break
        widths[place] = max(widths[place] - 5, least)
    return widths


def _headed(heading: str) -> list[str]:
    """A heading in lines about as long as a number with its interval."""
    return textwrap.wrap(heading, 12, break_long_words=False, break_on_hyphens=False) or [""]


def _stacked(heading: str) -> str:
    lines = r" \\ ".join(map(_tex, _headed(heading)))
    return rf"\shortstack[r]{{{lines}}}"


def _cell(text: str) -> str:
    first, *remarks = map(_tex, REMARK.split(text))
    if not remarks:
        return first
    lines = r" \\ ".join([first, *remarks])
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{lines}\end{{tabular}}"


def _width(text: str) -> float:
    return sum(POINTS[0 if letter in NARROW else 1 if letter in WIDE else 2] for letter in text)


def _height(text: str, width: float) -> float:
    """Points of a text that is broken into lines of a width, between words."""
    lines, used = 1, 0.0
    for word in text.split():
        if used and used + _width(word) > width:
            lines, used = lines + 1, 0.0
        used += _width(f"{word} ")
    return ROW * lines


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in printable(text))
