"""Tables as LaTeX: everything once, in parts of a page; tried with a real LaTeX where there is one."""

import re
import shutil
import subprocess

import pytest

from motionexp.results.formats import Block, Cell, Line, Table, to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.latex import PAGE_WIDTH, TEX, to_latex

COLUMNS = [
    "text alignment ↑",
    "consistency ↑",
    "motion ↑",
    "edited-attribute leakage ↓",
    "leakage, 95% & more",
]


def made_table(lines: int = 45) -> Table:
    """A table that is wider and longer than a page; its first labels begin as an option of LaTeX does."""
    blocks = [
        Block(
            f"block {letter}, τ = 700 <or> less: difference to the window, paired",
            [
                Line(
                    [f"[{row}, 1000]", "LoRA, all timesteps, window-matched steps"],
                    [
                        Cell("c", Interval(row + place / 10, -1.25, row + 1.5, 72, 18, row % 3), 2, True)
                        for place in range(len(COLUMNS))
                    ],
                    "72 (18)",
                    "25",
                )
                for row in range(lines)
            ],
        )
        for letter in "ab"
    ]
    return Table("Wide_and long", ["window", "tuned"], COLUMNS, blocks, ["A note of 5% → 6%."], "references")


def test_every_number_is_in_one_part_and_every_part_has_a_caption_and_a_label():
    table = made_table()
    latex = to_latex([table, made_table(2)], "wide")
    numbers = re.compile(r"\d+\.\d\d(?= \[)")
    both = to_markdown(table) + to_markdown(made_table(2))
    assert sorted(numbers.findall(latex)) == sorted(numbers.findall(both))
    parts = latex.count(r"\begin{table*}")
    assert parts > 4
    assert latex.count(r"\caption{") == parts
    labels = re.findall(r"\\label\{(.+?)\}", latex)
    assert labels == ["tab:wide", *(f"tab:wide-{number}" for number in range(2, parts + 1))]
    assert latex.count(r"A note of 5\% $\rightarrow$ 6\%.") == 2, "notes stand once for each table"
    assert "(continued)" in latex


def test_a_line_that_begins_with_a_bracket_is_no_option_of_the_line_before():
    assert re.search(r"\\\\\n\{\}\[0, 1000\]", to_latex([made_table(2)], "t"))
    assert not re.search(r"\\\\\n[\[*]", to_latex([made_table(2)], "t"))


def test_all_letters_of_the_published_tables_can_be_set(root_tables):
    letters = {letter for text in root_tables for letter in text if not letter.isascii()}
    assert letters <= TEX.keys()


@pytest.fixture(scope="module")
def root_tables():
    from pathlib import Path

    files = [*Path(__file__).parents[2].glob("results/*/*.csv")]
    assert files
    return [file.read_text(encoding="utf-8") for file in files]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
@pytest.mark.parametrize("options", ["10pt", "10pt,twocolumn"])
def test_a_real_latex_sets_the_parts_within_the_page(options, tmp_path):
    document = rf"\documentclass[{options}]{{article}}\usepackage{{array,booktabs}}\begin{{document}}"
    text = to_latex([made_table()], "wide")
    (tmp_path / "try.tex").write_text(f"{document}\n{text}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "try.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    log = (tmp_path / "try.log").read_text(encoding="latin-1")
    assert "Overfull \\hbox" not in log
    assert "Float too large" not in log
    assert PAGE_WIDTH == 345
