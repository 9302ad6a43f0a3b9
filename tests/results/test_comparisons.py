"""Lines of tables: differences to a default row, what is bold, the rows of a line, and what is refused."""

import math
from dataclasses import replace

import pytest
from scipy.stats import ttest_1samp

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import ROUNDED_NOTE, Cell, Line, to_markdown
from motionexp.results.intervals import Interval
from motionexp.results.latex import to_latex
from motionexp.results.layout import Difference
from motionexp.results.rows import Row
from motionexp.results.selection import changed_settings, has_defaults
from motionexp.results.tables import build
from tests.support.made_rows import rank_row, rank_rows


def rank_table(ranks, rows: list[Row]):
    (table,) = build(Comparison(ranks, rows), ranks.tables[0])
    return table


def shown(ranks, rows: list[Row]) -> str:
    return to_markdown(rank_table(ranks, rows))


def test_differences_to_the_default_row_are_below_its_block(ranks):
    means, differences = rank_table(ranks, rank_rows()).blocks
    assert differences.title == "motion-dominant: difference to 4, paired"
    assert [line.labels for line in differences.lines] == [["base"], ["1"], ["16"]]
    column = [cell.column for cell in means.lines[0].cells].index("motion")
    motion = [line.cells[column].interval for line in differences.lines]
    assert [interval.mean for interval in motion] == pytest.approx([0.0, -0.1, 0.0])
    assert (motion[1].low, motion[1].high) == pytest.approx((-0.1, -0.1))
    assert motion[2].low < 0 < motion[2].high
    assert [cell.column for cell in means.lines[0].cells] == [
        *("text", "consistency", "pick", "motion", "flow", "replaced", "nuisances")
    ]


def test_bold_is_a_difference_whose_interval_excludes_zero_and_nothing_else(ranks):
    table = rank_table(ranks, rank_rows())
    markdown, latex = to_markdown(table), to_latex([table], "ranks")
    assert markdown.count("**") == 2
    assert "**−0.10 [−0.10, −0.10]**" in markdown
    assert latex.count(r"\textbf") == 1
    assert r"\textbf{$-$0.10 [$-$0.10, $-$0.10]}" in latex
    assert "bold" in table.all_notes()[0]


def test_nothing_is_bold_of_too_few_references(ranks):
    of_four = shown(ranks, rank_rows(4))
    assert "**" not in of_four
    assert "their range" in of_four


def test_a_corrected_difference_is_bold_by_its_p_value_times_the_number_of_its_family(ranks):
    """Three differences to the default: rank 1's p-value is below 0.05 alone, and above it times three."""
    lower, table = (0.1, 0.02, 0.08, -0.01, 0.09, 0.03), ranks.tables[0]
    uncertain = [
        replace(row, value=0.5 + number / 10 - lower[number])
        if row.metric == "velocity_similarity" and row.settings["rank"] == 1
        else row
        for row in rank_rows()
        for number in [int(row.reference[1:])]
    ]
    p = float(ttest_1samp(lower, 0).pvalue)
    assert p < 0.05 < 3 * p
    assert "**" in shown(ranks, uncertain)
    table.corrected = ["motion"]
    corrected = shown(ranks, uncertain)
    assert "**" not in corrected
    assert "Holm" in corrected
    assert "3 differences" in corrected
    _, differences = rank_table(ranks, uncertain).blocks
    adjusted = [cell.p for line in differences.lines for cell in line.cells if cell.column == "motion"]
    assert adjusted == pytest.approx([1.0, 3 * p, 1.0])
    table.corrected = ["text"]  # motion is no member of that family
    assert "**" in shown(ranks, uncertain)


def test_the_ends_decide_what_is_bold_before_they_are_rounded(ranks):
    small = [
        replace(row, value=row.value * 0.03) if row.metric == "velocity_similarity" else row
        for row in rank_rows()
    ]
    text = shown(ranks, small)
    # Rank 1 is 0.003 lower on every reference; of rank 16 nothing is certain.
    assert text.count("**") == 2
    assert "**0.00 [0.00, 0.00]**" in text
    assert "−0.00" not in text
    assert ROUNDED_NOTE in text
    assert ROUNDED_NOTE not in shown(ranks, rank_rows())


@pytest.mark.parametrize(("end", "bold"), [(1e-17, False), (0.0, False), (0.001, True), (math.nan, False)])
def test_the_last_bit_of_a_sum_is_no_difference(end, bold):
    for low, high in ((end, 0.1), (-0.1, -end)):
        cell = Cell("motion", Interval((low + high) / 2, low, high, 6, 6), 2)
        assert Line(["a"], [cell], "6 (6)", "", is_difference=True).is_bold(cell) == bold


def test_a_setting_without_rows_has_no_n_and_a_missing_base_is_an_error(ranks):
    rows = [row for row in rank_rows() if row.settings["rank"] != 16]
    lines = shown(ranks, rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("| 16 ")] == ["none"]
    assert any("n none:" in line for line in lines)
    with pytest.raises(InputError, match=r"column .*1000"):
        shown(ranks, [row for row in rank_rows() if row.tau != 1000])


@pytest.mark.parametrize(
    "changes",
    [
        {"soft_window": [[700.0, 0.5]]},
        {"learning_rate": 0.1},
        {"adapter": "an.safetensors"},
        {"text_precision": "4bit"},
        {"network_precision": "fp8"},
        {"tau": 1000.0, "steps": 50},
        {"strata": {"contrast": "motion-dominant", "appearances": "2"}},
        {"tau": 1000.0, "strata": {"contrast": "motion-dominant", "captions": "captioned"}},
    ],
    ids=str,
)
def test_a_line_takes_no_row_with_another_setting_than_the_default(ranks, changes):
    rows = rank_rows()
    fields = {key: changes[key] for key in ("tau", "strata") if key in changes}
    settings = rows[0].settings | {key: value for key, value in changes.items() if key not in fields}
    row = rank_row("text_alignment", 0, **fields, settings=settings)
    assert shown(ranks, [*rows, row]) == shown(ranks, rows)


def test_the_rows_of_the_base_model_do_not_depend_on_settings_of_training(ranks):
    rows = rank_rows()
    settings = {**rows[0].settings, "rank": 16, "soft_window": [[0.0, 1.0]]}
    rows = [replace(row, settings=settings) if row.tau == 1000 else row for row in rows]
    assert shown(ranks, rows) == shown(ranks, rank_rows())


def test_the_default_learning_rate_is_that_of_the_method(ranks):
    rows = rank_rows()
    settings = {**rows[0].settings, "learning_rate": 0.001}
    full_rank = rank_row("text_alignment", 0, settings=settings, method="full_rank", value=9.0)
    with pytest.raises(InputError, match=r"text_alignment for r0, .* seed .* tau 700"):
        shown(ranks, [*rows, full_rank])
    ranks.settings["four"].select["method"] = "lora"
    assert shown(ranks, [*rows, full_rank]) == shown(ranks, rows)


def test_the_default_of_a_setting_is_that_of_the_methods_file():
    published = {"projections": ["q", "k", "v", "o"], "inverted_noise": 0.5}
    for changes, is_default in ((published, True), ({**published, "inverted_noise": 0.0}, False)):
        row = rank_row("text_alignment", 0, method="motion_director")
        row = replace(row, settings={**row.settings, **changes})
        assert has_defaults(row, ()) is is_default
        names = set(changed_settings(row.settings, row.method))
        assert names == ({"method"} if is_default else {"method", "inverted_noise"})
        assert not has_defaults(replace(row, method="lora"), ())


def test_what_a_layout_selects_by_need_not_be_the_default(ranks):
    rows = [replace(row, settings={**row.settings, "steps": 50}, steps=50) for row in rank_rows()]
    assert not rank_table(ranks, rows).blocks
    ranks.select["steps"] = "50"
    assert len(rank_table(ranks, rows).blocks) == 2


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (lambda row: row.reference == "r3", "sixteen .* 1 .* 6 .* r3"),
        (lambda row: row.metric == "velocity_similarity", "velocity_similarity .* sixteen .* 6 "),
        (
            lambda row: row.metric == "nuisance_chance" and row.reference < "r2",
            "nuisance_chance .* sixteen .* 2 ",
        ),
    ],
)
def test_lines_of_other_samples_are_refused(ranks, lost, named):
    rows = [row for row in rank_rows() if not (row.settings["rank"] == 16 and lost(row))]
    with pytest.raises(InputError, match=named):
        shown(ranks, rows)


def test_a_subtracted_setting_has_the_same_samples_though_it_has_no_line(ranks):
    rows = [row for row in rank_rows() if row.settings["rank"] != 16 or row.reference < "r3"]
    ranks.tables[0].settings.remove("sixteen")
    assert rank_table(ranks, rows).blocks
    ranks.tables[0].differences = [Difference(["1 minus 16"], "one", "sixteen")]
    with pytest.raises(InputError, match=r" sixteen .* 3 .* 6 "):
        shown(ranks, rows)


def test_a_subtracted_base_has_the_same_samples_though_it_has_no_line(ranks):
    ranks.tables[0].settings.remove("base")
    assert rank_table(ranks, rank_rows()).blocks
    with pytest.raises(InputError, match=r" base .* 3 .* 6 "):
        shown(ranks, [row for row in rank_rows() if row.tau != 1000 or row.reference < "r3"])
