"""Captions and names that hold markup: shown letter by letter, in tables that stay whole."""

import csv
import io
import json
import re
from dataclasses import replace
from html import unescape

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from motionexp.results.formats import Table, markdown_text, printable, to_csv, to_markdown
from motionexp.results.latex import to_latex
from motionexp.results.runs import print_runs, runs_in, write_index
from motionexp.results.settings_table import settings_tables
from motionexp.results.terminal import print_table
from tests.support.made_rows import rank_row

LITERAL = (
    *("[red]a", "[/]", "<script>x</script>", "a | b", "end\\", "a \\| b", "$x$ ${y}", ":dog: runs", "²high"),
    *("٣ three", "*b* _i_ `c`", "[a](http://x)", "&amp; &#65;", "~~a~~", "snake_case", "-1"),
)
COMMANDING = {"two\nlines": "two\\nlines", "\x1b[31mred": "\\x1b[31mred", "\x01bold": "\\x01bold"}
COMMANDING |= {"\u202egnp": "\\u202egnp", "half \ud800": "half \\ud800", "cr\rx": "cr\\rx"}
SHOWN = dict(zip(LITERAL, LITERAL, strict=True)) | COMMANDING


@pytest.fixture(scope="module")
def table() -> Table:
    rows = [
        replace(rank_row("velocity_similarity", 0, 700.0, 4), sample_id=caption, edit_caption=caption)
        for caption in SHOWN
    ]
    return settings_tables(rows, ["edit_caption"], "by [red] | \\")[0]


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def test_markdown_shows_each_letter_in_a_whole_table(table):
    html = rendered(to_markdown(table))
    assert html.count("<tr>") == len(SHOWN) + 1
    assert html.count("<td>") == 2 * len(SHOWN), "tau and the caption; numbers have a style"
    cells = {unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", html)}
    assert set(SHOWN.values()) <= cells
    assert not {"script", "a", "em", "strong", "code", "s"} & set(re.findall(r"<(\w+)", html))


def test_the_terminal_shows_each_letter_on_one_line(table):
    console = Console(width=100, file=io.StringIO())
    print_table(console, table)
    lines = [line.split(maxsplit=1) for line in console.file.getvalue().splitlines()]
    captions = {line[1].rsplit(maxsplit=3)[0] for line in lines if line[:1] == ["700"]}
    assert captions == set(SHOWN.values())


def test_csv_and_latex_are_whole(table):
    lines = list(csv.reader(io.StringIO(to_csv([table]))))
    assert {len(line) for line in lines} == {12}
    assert {line[2].partition(", ")[2] for line in lines[1:]} == set(SHOWN)
    latex = to_latex([table], "x")
    assert r"\$x\$ \$\{y\}" in latex
    assert not set(COMMANDING) & set(latex.split(" & "))


def test_many_lines_that_lack_samples_have_one_note(table):
    (note,) = (note for note in table.all_notes() if "lack" in note)
    assert note.startswith(f"{len(SHOWN)} of {len(SHOWN)} lines lack samples")


def test_text_that_means_nothing_stays():
    for text in ("0.32 [0.10, 0.52] (3 missing)", "τ = 700, [0, 1000]", "edit_kind", "a ~ b", "R & D"):
        assert markdown_text(text) == printable(text) == text
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"
    assert printable(family) == family


DONE = {"state": "done", "reference": "r0", "tau": 700.0}


@pytest.mark.parametrize(
    ("status", "change", "config"),
    [
        ([], {}, ""),
        (3, {}, ""),
        (DONE | {"tau": "x"}, None, "method: {_target_: a.b.c}\nmodel: {}\n"),
        (DONE, None, "- a\n"),
        (DONE, None, "model: {}\n"),
        *((DONE, change, "") for change in ({"value": "x"}, {"tau": None}, {"strata": None}, {"metric": {}})),
        *((DONE, change, "") for change in ({"settings": None}, {"sample_id": [1]}, {"strata": []})),
    ],
)
def test_a_run_whose_files_are_of_another_form_is_damaged_alone(status, change, config, tmp_path):
    folder = tmp_path / "shapes" / "tiny_latte"
    row = {"metric": "velocity_similarity", "value": 0.5, "sample_id": "a", "method": "lora", "tau": 700.0}
    row |= {"strata": {}, "settings": {"model": {}, "method": {}}, "seed": 0}
    for name, of_run, more in (("fine", DONE, {}), ("odd", status, change)):
        (folder / name).mkdir(parents=True)
        (folder / name / "status.json").write_text(json.dumps(of_run))
        if more is not None:
            (folder / name / "rows.jsonl").write_text(json.dumps(row | more) + "\n")
    if config:
        (folder / "odd" / "config.yaml").write_text(config)
    assert {run.folder.name: run.state for run in runs_in(folder)} == {"fine": "done", "odd": "damaged"}


def test_the_index_shows_names_letter_by_letter(tmp_path):
    folder = tmp_path / "shapes" / "tiny_latte"
    names = [
        name for name in SHOWN if name.isascii() or name.isprintable()
    ]  # no file of JSON holds half of one
    for number, name in enumerate(names):
        (folder / f"a (b) [{number}]").mkdir(parents=True)
        status = json.dumps({**DONE, "reference": name})
        (folder / f"a (b) [{number}]" / "status.json").write_text(status)
    write_index(folder)
    html = rendered((folder / "index.md").read_text())
    cells = {unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", html)}
    assert {SHOWN[name] for name in names} <= cells
    assert '<a href="a%20%28b%29%20%5B0%5D/">a (b) [0]</a>' in html
    console = Console(width=100, file=io.StringIO())
    print_runs(console, tmp_path)
    assert not set("\x1b\r") & set(console.file.getvalue())
