"""Layouts that are refused: each error names what is wrong in the file."""

from pathlib import Path

import pytest

from motionexp.errors import InputError
from motionexp.results.layout_file import read_layout
from tests.support.made_rows import RANK_LAYOUT

EQUAL_LEAKAGE = "equal_leakage: {motion: motion, leakage: [nuisances], levels: [0.1], scales: [1],"
SELECT = "select: {suite: shapes}"
DOMINANCE = "dominance: {motion: motion, leakage: nuisances, ours: [four], theirs: [one], scales: [1]}"
CLAIM = (
    "claims: [{statement: It moves, differences: [{table: mine, group: motion-dominant, ours: four,"
    " theirs: one, expected: {motion: more}}]}]"
)
TABLE = "{file: mine, title: a, labels: [], settings: [], groups: []}"
FIGURE = "{file: f, title: t, x: rank, panels: mine, columns: [motion], lines: {a: [one]}}"


def check_refused(text: str, folder: Path, named: str) -> None:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=named):
        read_layout(path)


@pytest.mark.parametrize(
    ("figure", "named"),
    [
        ("x: rank, panels: mine, columns: [motion], lines: {a: [two]}", "setting two"),
        ("x: rank, panels: yours, columns: [motion], lines: {}", "panels=yours.* mine"),
        ("x: rank, panels: mine, columns: [speed], lines: {}", "column speed"),
        (
            "x: rank, panels: mine, columns: [motion], lines: {a: [four]}",
            "setting four .*x=rank",
        ),
        ("x: text, panels: mine, columns: [motion, flow], lines: {a: [one]}", "column"),
        ("x: tau, panels: mine, groups: [other], columns: [motion], lines: {}", "group other"),
        ("x: rank, panels: mine, columns: [], lines: {a: [one]}", "columns"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(figure, named, tmp_path):
    check_refused(f"{RANK_LAYOUT}figures: [{{file: f, title: t, {figure}}}]\n", tmp_path, named)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("settings: [base, four, one, sixteen]", "settings: [bose]", "setting bose"),
        ("default: four", "columns: [txt]", "column txt"),
        ("labels: [rank]", "labels: rank", "labels"),
        ("tables:", "tables: [", "mine.yaml"),
        ('labels: ["1"]', 'labels: ["1", "v"]', r"setting one .*\['1', 'v'\]"),
        ("default: four", "default: for", "setting for"),
        ("default: four", "reported: [{source: B, labels: [], values: {}}]", " B .*labels"),
        ('rank: "16"', 'rank: "16.0"', r"16\.0 .* 16 "),
        ('rank: "16"}', 'rank: "16"}, base: true', "base, sixteen"),
        ("{title: motion-dominant,", "{title: b}, {title: b}, {title: c,", "title b"),
        (SELECT, f"{SELECT}\nreferences: [r0, r1]", "'r0', 'r1'"),
        (SELECT, f"{SELECT}\nreferences: {{latte: r0}}", "references .*latte"),
        (SELECT, f"{SELECT}\nchosen: {{lora: 5}}", "chosen lora: is 5 "),
        ('rank: "16"', 'rank: "${chosen.lora.rank}"', r"chosen\.lora\.rank\}: `chosen` has no"),
        ('rank: "16"', 'rank: "${references.lora}"', r"references\.lora\}: `references` has no"),
        ("default: four", "notes: [a: b]", "notes 1: .*{'a': 'b'}"),
        ("default: four", f"{EQUAL_LEAKAGE} curves: [], against: []}}", "`curves`"),
        ("default: four", f"{EQUAL_LEAKAGE} curves: [four], against: [one]}}", "setting one"),
        ("default: four", DOMINANCE.replace("[one]", "[two]"), "setting two"),
        ("default: four", DOMINANCE.replace("nuisances", "leak"), "column leak"),
        ("default: four", DOMINANCE.replace("[1]", "[]"), "dominance has an empty `scales`"),
        (SELECT, f"{SELECT}\nmargin: -0.1", r"margin is -0\.1"),
        (SELECT, f"{SELECT}\nn: -1", "n is -1"),
        ("default: four", f"{EQUAL_LEAKAGE} curves: [four, four], against: []}}", "`curves` four"),
        ("default: four", "columns: [text, motion, text]", "twice the column text"),
        ("settings: [base, four, one, sixteen]", "settings: [base, four, four]", "twice the setting four"),
        ("tables:", f"figures: [{FIGURE}, {FIGURE}]\ntables:", "file f"),
        ("tables:\n", f"tables:\n  - {TABLE}\n", "file mine"),
    ],
)
def test_what_would_give_a_wrong_table_is_refused(before, after, named, tmp_path):
    assert RANK_LAYOUT.count(before) == 1
    check_refused(RANK_LAYOUT.replace(before, after), tmp_path, named)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("more", "equal", "'It moves' .*margin"),
        ("more", "higher", "'It moves' expects higher; .*more, less, equal, untested"),
        ("more", "untested", "'It moves': nothing of it is tested"),
        ("table: mine", "table: yours", "table yours; .*mine"),
        ("motion-dominant", "others", "group 'others'; .*motion-dominant"),
        ("ours: four", "ours: two", "setting two"),
        ("{motion:", "{speed:", "column speed"),
        ("ours: four", "ours: four, scales: [1]", "1 scales"),
        ("It moves", "''", "`statement`"),
        ("}}]}]", "}}], boundaries: [tiny_latte]}]", "either"),
        ("differences:", "difference:", "there is no such key"),
    ],
)
def test_a_claim_that_cannot_be_computed_is_refused(before, after, named, tmp_path):
    assert CLAIM.count(before) == 1
    check_refused(f"{RANK_LAYOUT}{CLAIM.replace(before, after)}\n", tmp_path, named)


def test_an_experiment_states_its_decision_its_margin_its_n_and_its_claims(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"{RANK_LAYOUT}decision: Dominance.\nmargin: 0.05\nn: 24\n{CLAIM.replace('more', 'equal')}\n"
    )
    layout = read_layout(path)
    assert (layout.decision, layout.margin, layout.n) == ("Dominance.", 0.05, 24)
    (difference,) = layout.claims[0].differences
    assert (difference.ours, difference.expected) == ("four", {"motion": "equal"})


def test_a_chosen_value_stands_in_one_place(tmp_path):
    text = RANK_LAYOUT.replace('rank: "16"', 'rank: "${chosen.lora.rank}"')
    text = text.replace("rank=1,4", "rank=1,${chosen.lora.rank}")
    path = tmp_path / "mine.yaml"
    path.write_text(f'{text}chosen: {{lora: {{rank: "2"}}}}\n', encoding="utf-8")
    layout = read_layout(path)
    assert any("rank=1,2" in line for line in layout.sweep)
    assert layout.settings["sixteen"].select["rank"] == "2"
    assert "${" not in str(layout)
