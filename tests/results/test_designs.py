"""An experiment that changed after its rows were published is noticed; its words may change."""

import pytest

from motionexp.errors import InputError
from motionexp.results.designs import DESIGNS, check_unchanged, record_design
from motionexp.results.layout_file import read_layout
from tests.support.made_rows import RANK_LAYOUT


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experiments" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(RANK_LAYOUT)
    record_design(path, read_layout(path))
    return path


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("rank=1,4", "rank=1,8", "sweep"),
        ("select: {suite: shapes}", "select: {suite: shapes}\nmargin: 0.1", "margin"),
        ("select: {suite: shapes}", "select: {suite: shapes}\nn: 24", "n"),
        ("select: {suite: shapes}", "select: {suite: shapes}\ndecision: The most motion.", "decision"),
        ("select: {suite: shapes}", "select: {suite: shapes}\nreferences: r1, r2", "references"),
        ('rank: "16"', 'rank: "8"', "settings"),
        ("select: {suite: shapes}", "select: {suite: tgve}", "select"),
    ],
)
def test_what_changed_after_the_rows_is_named(path, tmp_path, before, after, named):
    assert RANK_LAYOUT.count(before) == 1
    path.write_text(RANK_LAYOUT.replace(before, after))
    with pytest.raises(
        InputError, match=rf"mine\.yaml: its {named} changed after results/shapes/mine\.jsonl"
    ):
        check_unchanged(path, read_layout(path))


def test_titles_labels_and_the_verdict_may_change(path, tmp_path):
    text = RANK_LAYOUT.replace("title: Rank", "title: Ranks").replace('labels: ["4"]', 'labels: ["four"]')
    path.write_text(f"{text}verdict: None.\n")
    check_unchanged(path, read_layout(path))


def test_rows_without_a_record_are_refused(path, tmp_path):
    (tmp_path / DESIGNS).unlink()
    with pytest.raises(InputError, match=r"designs\.json has no record"):
        check_unchanged(path, read_layout(path))
    (tmp_path / DESIGNS).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"designs\.json"):
        check_unchanged(path, read_layout(path))
