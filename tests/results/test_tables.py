"""Tables of the toy experiment: means by hand, formats, sanity baselines, motion at equal leakage."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from motionexp.results.comparisons import Comparison
from motionexp.results.formats import NONE, Block, Cell, Grid, Line, Table, to_csv, to_markdown
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.latex import to_latex
from motionexp.results.layout import Column, standard_columns
from motionexp.results.tables import build, write_tables
from tests.support.made_rows import TOY_METRICS, toy_rows


def cells(table, block, line):
    lines = next(entry for entry in table.blocks if entry.title == block).lines
    return {cell.column: cell.interval for cell in lines[line].cells if cell}


def toy_tables(layout, rows):
    return build(Comparison(layout, rows), layout.tables[0])


def test_means_are_those_computed_by_hand_with_base_and_chance_subtracted(toy):
    table, _ = toy_tables(toy, toy_rows())
    base, window, every = (cells(table, "motion-dominant", line) for line in range(3))
    assert base["text"].mean == pytest.approx(27 + 0.1 + 0.005)
    assert base["leak"].mean == 0
    assert window["leak"].mean == pytest.approx(0.2)
    assert every["leak"].mean == pytest.approx(0.4)
    assert window["nuisance"].mean == pytest.approx(0.3)
    assert (window["text"].n, window["text"].clusters) == (12, 3)
    means = [np.mean([0.7 + reference / 10, 0.71 + reference / 10]) for reference in range(3)]
    by_hand = mean_interval(means, "abc")
    assert window["motion"].mean == pytest.approx(by_hand.mean)
    assert (window["motion"].low, window["motion"].high) == pytest.approx((by_hand.low, by_hand.high))
    lines = next(block for block in table.blocks if block.title == "motion-dominant").lines
    assert [line.adapter_steps for line in lines] == ["0", "15", "50", ""]
    difference = cells(table, "motion-dominant", 3)
    assert difference["leak"].mean == pytest.approx(-0.2)
    assert difference["motion"].high - difference["motion"].low < 1e-9, "it is paired"
    appearance = cells(table, "appearance-dominant", 0)["text"]
    assert (appearance.n, appearance.clusters) == (4, 1)
    assert math.isnan(appearance.low), "one reference has no interval"
    assert cells(table, "motion-dominant, style edits", 0)["text"].n == 6


def test_a_table_without_a_measured_row_is_not_written_and_its_old_files_are_removed(toy, tmp_path):
    assert toy.tables[0].reported
    toy.tables[0].equal_leakage = None
    rows = toy_rows()
    written = write_tables(tmp_path, toy, rows)
    assert [file.suffix for file in written] == [".md", ".tex", ".csv"]
    # No setting has these rows, so that what papers report would stand alone.
    assert write_tables(tmp_path, toy, [replace(row, tau=300.0) for row in rows]) == []
    assert not any(file.exists() for file in written)


def test_motion_at_equal_leakage_interpolates_on_the_curve_of_scales(toy):
    _, equal = toy_tables(toy, toy_rows())
    lines = next(block for block in equal.blocks if block.title.startswith("motion-dominant;")).lines
    # Leakage 0.1 is reached at scale 0.5 within the window and at 0.25 without one.
    assert lines[0].cells[0].interval.mean == pytest.approx(0.305 + 0.25)
    assert lines[1].cells[0].interval.mean == pytest.approx(0.305 + 0.125)
    assert lines[0].cells[1].interval.mean == pytest.approx(0.125)
    assert lines[1].cells[1] is None
    assert (lines[0].cells[0].interval.n, lines[0].cells[0].interval.clusters) == (12, 3)


def test_the_order_of_scales_in_a_layout_does_not_matter(toy):
    rows = [
        replace(
            row, value=row.value - 0.2 * (row.adapter_scale == 0.5 and row.metric == "velocity_similarity")
        )
        for row in toy_rows()
    ]
    _, before = toy_tables(toy, rows)
    toy.tables[0].equal_leakage.scales = [1, 0.5]
    _, after = toy_tables(toy, rows)
    assert to_csv([after]) == to_csv([before])


def test_markdown_latex_and_csv_hold_the_same_numbers_and_mark_reported_ones(toy):
    table, _ = toy_tables(toy, toy_rows())
    assert table.blocks[-1].title == "Reported: B, Table 1"
    assert "| Latte | 700 | 31.96 | – | – | – |  |  |" in to_markdown(table)
    assert 'Reported: B, Table 1","Latte, 700",text,reported,31.96,,,0,0,0' in to_csv([table])
    markdown, latex = to_markdown(table), to_latex([table], "toy")
    shown = "27.11 [27.00, 27.20]"
    assert f"| tiny_latte | 1000 | {shown} |" in markdown
    assert rf"tiny\_latte & 1000 & {shown} &" in latex
    assert r"Toy: 100\% of $\tau$ \& co\_." in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{")
    for text in ("27.11 [27.00, 27.20]", "31.96"):
        assert latex.count(text) == to_markdown(table).count(text)


def test_missing_values_are_counted_beside_the_mean(toy):
    rows = toy_rows()
    rows[0] = replace(rows[0], value=math.nan, reason="no frame")
    table, _ = toy_tables(toy, rows)
    assert "(1 missing)" in to_markdown(table)


def baseline_rows(rows):
    """Rows of a sanity baseline: half of each metric's base, without a seed."""
    changes = {"seed": None, "method": "sanity_baseline", "sample_id": "baseline"}
    return [
        replace(row, value=row.value / 2, strata={**row.strata, "sanity_baseline": "frozen"}, **changes)
        for row in rows
        if row.tau == 1000 and row.seed == 0
    ]


def test_sanity_baselines_are_below_every_block_and_in_no_setting(toy):
    rows = [
        replace(row, value=0.625)
        if (row.metric, row.tau, row.seed) == ("replaced_attributes", 1000, 1)
        else row
        for row in toy_rows()
    ]
    plain, _ = toy_tables(toy, rows)
    table, _ = toy_tables(toy, rows + baseline_rows(rows))
    # The last block is that of reported numbers.
    for before, after in zip(plain.blocks[:-1], table.blocks[:-1], strict=True):
        assert after.lines[:-1] == before.lines
        assert after.lines[-1].labels[0] == "its first frame, held"
        assert after.lines[-1].source == "sanity_baseline"
    shown = cells(table, "motion-dominant", -1)
    # Half of seed 0 of references 0 to 2; from leakage the mean of both seeds of the base is subtracted.
    means = {"text": (27 + 0.1) / 2, "motion": (0.2 + 0.1) / 2, "leak": 0.125 / 2 - 0.375, "nuisance": 0}
    assert {key: interval.mean for key, interval in shown.items()} == pytest.approx(means)


def test_a_value_with_nothing_to_subtract_is_missing(toy):
    rows = toy_rows()
    subtracted = ("replaced_attributes", "nuisance_chance")
    lacking = [row for row in rows if row.reference != "r0" or row.metric not in subtracted]
    toy.tables[0].equal_leakage = None
    (table,) = toy_tables(toy, lacking + baseline_rows(rows))
    window, baseline = (cells(table, "motion-dominant", line) for line in (1, -1))
    assert (window["nuisance"].mean, window["nuisance"].missing) == (pytest.approx(0.3), 4)
    assert (baseline["leak"].mean, baseline["leak"].missing) == (pytest.approx(0.125 / 2 - 0.125), 2)


def test_a_difference_to_a_setting_that_was_not_run_has_no_line(toy):
    table, _ = toy_tables(toy, [row for row in toy_rows() if row.tau != 0])
    assert [line.n for line in table.blocks[0].lines] == ["12 (3)", "12 (3)", NONE]


def test_fidelity_stands_beside_its_chance_where_it_was_measured(toy):
    toy.columns = standard_columns()
    layout = toy.tables[0]
    layout.columns, layout.reported, layout.equal_leakage = list(toy.columns), [], None
    rows = toy_rows()
    (plain,) = toy_tables(toy, rows)
    assert len(plain.columns) == 7
    tracked = [replace(row, metric="motion_fidelity") for row in rows if row.metric == TOY_METRICS[1]]
    tracked += [replace(row, metric="motion_fidelity_chance", value=0.25) for row in tracked]
    (table,) = toy_tables(toy, rows + tracked)
    assert len(table.columns) == 9
    shown = cells(table, "motion-dominant", 1)
    assert shown["fidelity"].mean == pytest.approx(shown["motion"].mean)
    assert shown["fidelity_chance"].mean == 0.25


def test_a_score_of_a_set_of_samples_is_no_sample_more(toy):
    rows = toy_rows()
    first = [row for row in rows if row.seed == 0 and row.metric == TOY_METRICS[0]]
    sets = [replace(row, seed=None, metric="motion_diversity") for row in first]
    toy.columns["diversity"] = Column("diversity", "motion_diversity")
    toy.tables[0].columns.append("diversity")
    before, _ = toy_tables(toy, rows)
    after, _ = toy_tables(toy, rows + sets)
    assert [line.n for line in after.blocks[0].lines] == [line.n for line in before.blocks[0].lines]


def test_differences_at_equal_leakage_are_bold_where_their_sign_is_known_and_the_note_says_so(toy):
    rows = [
        replace(row, reference=f"{row.reference}-{copy}", score_id=f"{row.score_id}-{copy}")
        for row in toy_rows()
        for copy in range(2)
    ]
    _, equal = toy_tables(toy, rows)
    block = next(block for block in equal.blocks if block.title.startswith("motion-dominant;"))
    window, every = block.lines
    assert [window.is_bold(cell) for cell in window.cells] == [False, True]
    assert not any(map(every.is_bold, every.cells))
    assert "bold" in equal.all_notes()[0]


def test_a_cell_says_what_is_undefined_and_a_bar_is_no_column():
    interval = Interval(0.5, math.nan, math.nan, 4, 4, undefined=0.001)
    line = Line(["a|b"], [Cell("motion", interval, 2)], "4 (4)", "")
    table = Table("t", ["setting"], ["motion"], [Block("b", [line])], [], "references")
    assert r"| a\|b | 0.50 (1% undefined) | 4 (4) |" in to_markdown(table)


def test_a_grid_is_a_pipe_table_and_a_table_of_the_terminal():
    grid = Grid(["[metric]", "mean", "n"], [["motion", "0.50", "4"], ["text|align", "27", "12"]], "lr")
    assert grid.markdown().splitlines()[:3] == [
        "| [metric] | mean | n |", "|---|---:|---:|", "| motion | 0.50 | 4 |"
    ]  # fmt: skip
    console = Console(file=io.StringIO(), width=60)
    console.print(grid.terminal())
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert any("[metric]" in line for line in lines), "text is no markup"
    ends = [len(line) for line in lines if line.strip().startswith(("motion", "text|align"))]
    assert len(ends) == 2 == 1 + len(set(ends)), "numbers are aligned at the right"
