"""experiments/README.md is the generated page; each interval of a verdict is in a table of its experiment."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from motionexp.errors import InputError
from motionexp.files import ROOT
from motionexp.results import findings_page
from motionexp.results.experiments_page import PAGE, last_run, linked, main, page
from motionexp.results.layout_file import read_layout

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
MINUS = "\N{MINUS SIGN}"
NUMBER = f"{MINUS}?\\d+(?:\\.\\d+)?"
INTERVAL = re.compile(rf"({NUMBER})\s+\[({NUMBER}),\s+({NUMBER})\]")
LINKED_TABLE = re.compile(r"\((results/[\w./-]+\.md)\)")


def missing(text: str, tables: Iterable[str]) -> list[tuple[str, str, str]]:
    """The intervals of a text that no table has, in this direction of subtraction or in the other."""
    intervals = "".join((ROOT / table).read_text(encoding="utf-8") for table in tables).replace("**", "")
    return [
        (mean, low, high)
        for mean, low, high in INTERVAL.findall(text)
        if f" {mean} [{low}, {high}]" not in intervals
        and f" {negative(mean)} [{negative(high)}, {negative(low)}]" not in intervals
    ]


def negative(number: str) -> str:
    if float(number.replace(MINUS, "-")) == 0:
        return number
    return number.removeprefix(MINUS) if number.startswith(MINUS) else MINUS + number


def test_the_committed_page_is_the_generated_one(tmp_path, capsys):
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == page(ROOT)
    # A page of one experiment keeps its introduction.
    (tmp_path / "experiments").mkdir()
    (tmp_path / PAGE).write_text("# Mine\n\nRead this.\n\n## old\n\nGone.\n", encoding="utf-8")
    shutil.copy(ROOT / "experiments" / "tau.yaml", tmp_path / "experiments")
    assert main([str(tmp_path)]) == 0
    written = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert written.startswith("# Mine\n\nRead this.\n\n## Answers\n\n| answer | question")
    assert written.count("[tau](#tau) |") == written.count("\n## tau\n\n**Does") == 1
    assert "Gone." not in written
    assert str(PAGE) in capsys.readouterr().out


def test_a_section_begins_with_the_answer_and_shows_the_figures_that_there_are():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    sections = dict(re.findall(r"\n## (\S+)\n(.*?)(?=\n## |\Z)", text, re.DOTALL))
    for path in EXPERIMENTS:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        question, answer, *_ = (" ".join(text.split()) for text in sections[path.stem].strip().split("\n\n"))
        assert question.startswith("**")
        assert answer.startswith(" ".join(content.get("answer", "").split()))
        shown = re.findall(r"\(\.\./(results/\S+\.png)\)", sections[path.stem])
        files = [f"{figure['file']}.png" for figure in content.get("figures", ())]
        assert {file for file in files if (ROOT / file).exists()} <= {*shown}
        assert all((ROOT / figure).exists() for figure in shown)
    assert "figures/shares.png" in sections["probe-tampering"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_each_interval_of_a_verdict_stands_in_a_table_of_its_experiment(path):
    layout = read_layout(path)
    assert layout.verdict
    tables = [link for link in linked(layout) if (ROOT / link).exists()]
    # The models of an experiment may finish one after the other. Its verdict says so.
    is_whole = tables == linked(layout)
    assert is_whole or "not finished" in layout.verdict or layout.verdict.startswith("Not run yet: ")
    assert missing(layout.verdict, tables) == []


def test_each_interval_of_the_readme_stands_in_a_table_that_it_links():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(INTERVAL.findall(text)) >= 3
    assert missing(text, set(LINKED_TABLE.findall(text))) == []


def test_all_timesteps_dominate_the_window_nowhere_as_readme_says():
    table = (ROOT / "results/shapes/dominance.md").read_text(encoding="utf-8")
    assert "At no [measured pair of adapter scales]" in (ROOT / "README.md").read_text(encoding="utf-8")
    titles = [line for line in table.splitlines() if line.startswith("### ")]
    assert len(titles) == 6
    assert all(" is dominated at 0 of 16 pairs" in title for title in titles)


def test_a_wrong_interval_would_be_found():
    table = "results/shapes/tau.md"
    assert missing(f"by 0.18 [0.13, 0.22], or {MINUS}0.18 [{MINUS}0.22, {MINUS}0.13]", [table]) == []
    assert missing("by 0.98 [0.13,\n0.23]", [table]) == [("0.98", "0.13", "0.23")]


def test_a_head_without_its_last_run_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("# mine\n")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        last_run(tmp_path / "mine.yaml")


def test_the_committed_findings_are_the_generated_ones():
    text = (ROOT / findings_page.PAGE).read_text(encoding="utf-8")
    assert text == findings_page.page(ROOT)
    # Each experiment's question is above its answer, and no bold line is there twice.
    flat = " ".join(text.split())
    for name in (name for entry in findings_page.SECTIONS for name in entry.experiments):
        layout = read_layout(ROOT / "experiments" / f"{name}.yaml")
        question, answer = (" ".join(part.split()) for part in (layout.question, layout.answer))
        assert f"*{question}* ([{name}](../experiments/README.md#{name})) **{answer}** " in flat
        assert flat.count(answer) == 1
    images = re.findall(r"!\[.+?\]\(\.\./(.+?)\)", text)
    assert all((ROOT / image).is_file() for image in images)
    assert {Path(image).stem for image in images} >= {
        "gate-tiny_cogvideox",
        "tau-settings",
        "prediction",
        "projections",
    }
