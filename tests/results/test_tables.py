import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionexp.config.ids import score_id
from motionexp.errors import InputError
from motionexp.results.formats import to_csv, to_latex, to_markdown
from motionexp.results.intervals import mean_interval
from motionexp.results.layout import Column, standard_columns
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row
from motionexp.results.tables import build, write_tables

ROOT = Path(__file__).parents[2]

LAYOUT = """
question: Does the window leak less?
cost: a minute
sweep: ["tau=0,700,1000"]
rows: results/shapes/toy.jsonl
select: {suite: shapes, precision: fp32}
settings:
  base: {labels: [tiny_latte, "1000"], select: {tau: "1000"}, base: true}
  window: {labels: [tiny_latte, "700"], select: {tau: "700", adapter_scale: "1"}}
  every: {labels: [tiny_latte, "0"], select: {tau: "0", adapter_scale: "1"}}
columns:
  text: {label: Text align. ↑, metric: text_alignment}
  motion: {label: motion, metric: velocity_similarity, digits: 3}
  leak: {label: leakage (replaced), metric: replaced_attributes, minus: base, digits: 3}
  nuisance: {label: leakage (nuisance), metric: nuisance_similarity, minus: nuisance_chance, digits: 3}
tables:
  - file: results/shapes/toy
    title: "Toy: 100% of τ & co_."
    labels: [Backbone, τ]
    settings: [base, window, every]
    columns: [text, motion, leak, nuisance]
    groups:
      - {title: motion-dominant, select: {contrast: motion-dominant}}
      - {title: appearance-dominant, select: {contrast: appearance-dominant}}
      - {title: "motion-dominant, style edits", select: {contrast: motion-dominant, edit_kind: style|object}}
    differences:
      - {labels: ["700 - 0", ""], ours: window, theirs: every}
    reported:
      - {source: "B, Table 1", labels: [Latte, "700"], values: {text: 31.96}}
    decision:
      motion: motion
      leakage: [leak]
      levels: [0.1]
      scales: [0.5, 1]
      curves: [window, every]
      against: [every]
    notes: [A toy.]
"""
METRICS = (
    "text_alignment",
    "velocity_similarity",
    "replaced_attributes",
    "nuisance_similarity",
    "nuisance_chance",
)


def value(metric: str, tau: int, scale: float, reference: int, seed: int) -> float:
    """Motion and leakage grow with the scale, leakage twice as fast without a window."""
    on = scale * (tau < 1000)
    own = reference / 10 + seed / 100
    return {
        "text_alignment": 27 + own,
        "velocity_similarity": 0.2 + own + 0.5 * on,
        "replaced_attributes": 0.125 + on * (0.4 if tau == 0 else 0.2),
        "nuisance_similarity": own + 0.3 * on,
        "nuisance_chance": own,
    }[metric]


def toy_rows() -> list[Row]:
    rows = []
    for tau, scale in ((1000, 1.0), (700, 0.5), (700, 1.0), (0, 0.5), (0, 1.0)):
        for reference in range(4):
            for edit_kind in ("style", "background"):
                for seed in range(2):
                    sample = f"{tau}-{scale}-{reference}-{edit_kind}-{seed}"
                    rows += [
                        Row(
                            metric=metric,
                            metric_version=1,
                            value=value(metric, tau, scale, reference, seed),
                            score_id=score_id(sample, metric=metric, version=1),
                            suite="shapes",
                            reference=f"r{reference}",
                            strata={
                                "contrast": "appearance-dominant" if reference == 3 else "motion-dominant"
                            },
                            edit_kind=edit_kind,
                            seed=seed,
                            sample_id=sample,
                            sample_file=f"media/{sample}.mp4",
                            adapter_steps=50 if tau == 0 else 15 * (tau < 1000),
                            model="tiny_latte",
                            method="lora",
                            tau=float(tau),
                            steps=50,
                            adapter_scale=scale,
                            settings={"tau": tau, "rank": 4},
                            precision="fp32",
                            weights_hash="w",
                        )
                        for metric in METRICS
                    ]
    return rows


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "toy.yaml").write_text(LAYOUT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def layout(root):
    return read_layout(root / "experiments" / "toy.yaml")


def cells(table, block, line):
    found = next(each for each in table.blocks if each.title == block)
    return {cell.column: cell.interval for cell in found.lines[line].cells if cell}


def test_means_are_those_computed_by_hand_with_base_and_chance_subtracted(layout):
    table, _ = build(layout, layout.tables[0], toy_rows())
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
    lines = next(each for each in table.blocks if each.title == "motion-dominant").lines
    assert [line.adapter_steps for line in lines] == ["0", "15", "50", ""]


def test_strata_stand_apart_and_a_group_of_one_reference_has_no_interval(layout):
    table, _ = build(layout, layout.tables[0], toy_rows())
    poster = cells(table, "appearance-dominant", 0)["text"]
    assert (poster.n, poster.clusters) == (4, 1)
    assert math.isnan(poster.low)
    assert cells(table, "motion-dominant, style edits", 0)["text"].n == 6


def test_differences_are_paired(layout):
    table, _ = build(layout, layout.tables[0], toy_rows())
    difference = cells(table, "motion-dominant", 3)
    assert difference["leak"].mean == pytest.approx(-0.2)
    assert difference["motion"].high - difference["motion"].low < 1e-9


def test_the_decision_interpolates_on_the_curve_of_scales(layout):
    _, decision = build(layout, layout.tables[0], toy_rows())
    lines = next(each for each in decision.blocks if each.title.startswith("motion-dominant;")).lines
    # Leakage 0.1 is reached at scale 0.5 within the window and at 0.25 without one.
    assert lines[0].cells[0].interval.mean == pytest.approx(0.305 + 0.25)
    assert lines[1].cells[0].interval.mean == pytest.approx(0.305 + 0.125)
    assert lines[0].cells[1].interval.mean == pytest.approx(0.125)
    assert lines[1].cells[1] is None


def test_reported_numbers_are_marked_and_never_averaged(layout):
    table, _ = build(layout, layout.tables[0], toy_rows())
    reported = table.blocks[-1]
    assert reported.title == "Reported: B, Table 1"
    assert reported.lines[0].source == "reported"
    assert "| Latte | 700 | 31.96 | – | – | – |  |  |" in to_markdown(table)
    assert 'Reported: B, Table 1","Latte, 700",text,reported,31.96,,,0,0,0' in to_csv([table])


def test_markdown_latex_and_csv_hold_the_same_numbers(layout):
    table, _ = build(layout, layout.tables[0], toy_rows())
    markdown, latex = to_markdown(table), to_latex(table)
    shown = "27.11 [27.00, 27.20]"
    assert f"| tiny_latte | 1000 | {shown} |" in markdown
    assert rf"tiny\_latte & 1000 & {shown} &" in latex
    assert r"Toy: 100\% of $\tau$ \& co\_." in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
    width = latex.split(r"\begin{tabular}{")[1].split("}")[0]
    body = [line for line in latex.splitlines() if " & " in line and r"\caption" not in line]
    assert {line.replace(r"\&", "").count("&") + 1 for line in body} == {len(width)} == {8}


def test_a_setting_may_take_what_another_selection_has(layout):
    wanted = layout.settings["base"]
    alone = replace(layout.tables[0], settings=["base"], differences=[], decision=None)
    wanted.select["edit_kind"] = "style"
    wanted.or_select.update({"tau": "1000", "edit_kind": "background"})
    (table,) = build(layout, alone, toy_rows())
    assert cells(table, "motion-dominant", 0)["text"].n == 12
    wanted.or_select.clear()
    (table,) = build(layout, alone, toy_rows())
    assert cells(table, "motion-dominant", 0)["text"].n == 6


def test_missing_values_are_counted_beside_the_mean(layout):
    rows = toy_rows()
    first = next(index for index, row in enumerate(rows) if row.metric == "text_alignment")
    rows[first] = Row(**{**vars(rows[first]), "value": math.nan, "reason": "no frame"})
    table, _ = build(layout, layout.tables[0], rows)
    assert "(1 missing)" in to_markdown(table)


def test_precisions_are_not_mixed(layout, root):
    rows = [*toy_rows(), Row(**{**vars(toy_rows()[0]), "precision": "bf16"})]
    with pytest.raises(InputError, match="precision: bf16, fp32"):
        write_tables(root, layout, rows)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("question:", "qestion:", "qestion"),
        ("settings: [base, window, every]", "settings: [bose]", "setting bose"),
        ("columns: [text,", "columns: [txt,", "column txt"),
        ("digits: 3", "digits: three", "digits"),
        ("tables:", "tables: [", "not a table layout"),
    ],
)
def test_a_wrong_layout_is_named(root, before, after, said):
    path = root / "experiments" / "toy.yaml"
    path.write_text(LAYOUT.replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_layout(path)


def anchored(rows):
    """One anchor's rows beside the toy's: half of each metric's base, without a seed."""
    base = [row for row in rows if row.tau == 1000 and row.seed == 0]
    return [
        replace(
            row, value=row.value / 2, seed=None, method="sanity_baseline",
            strata={**row.strata, "sanity_baseline": "frozen"},
            sample_id=f"anchor {row.sample_id}", score_id=f"anchor {row.score_id}",
        )
        for row in base
    ]  # fmt: skip


def test_anchors_stand_below_every_block_and_enter_no_setting(layout):
    rows = toy_rows()
    plain, _ = build(layout, layout.tables[0], rows)
    table, _ = build(layout, layout.tables[0], rows + anchored(rows))
    for before, after in zip(plain.blocks, table.blocks, strict=True):
        if before.title.startswith("Reported"):
            continue
        assert after.lines[:-1] == before.lines
        assert after.lines[-1].labels[0] == "its first frame, held"
        assert after.lines[-1].source == "sanity_baseline"
    found = cells(table, "motion-dominant", -1)
    picked = [row for row in anchored(rows) if row.stratum("contrast") == "motion-dominant"]
    for key, column in layout.columns.items():
        if key not in found:
            continue
        own = {row.subject: row.value for row in picked if row.metric == column.metric}
        if column.minus == "base":
            minus = {
                each: np.mean([value(column.metric, 1000, 1.0, int(each[0][1:]), seed) for seed in (0, 1)])
                for each in own
            }
        elif column.minus:
            minus = {row.subject: row.value for row in picked if row.metric == column.minus}
        else:
            minus = dict.fromkeys(own, 0.0)
        assert found[key].mean == pytest.approx(np.mean([own[each] - minus[each] for each in own])), key


def test_fidelity_stands_beside_its_chance_where_it_was_measured(layout):
    layout.columns = standard_columns()
    layout.tables[0].columns, layout.tables[0].reported = list(layout.columns), []
    layout.tables[0].decision = None
    rows = toy_rows()
    (plain,) = build(layout, layout.tables[0], rows)
    assert len(plain.columns) == 7
    tracked = [replace(row, metric="motion_fidelity") for row in rows if row.metric == METRICS[1]]
    tracked += [replace(row, metric="motion_fidelity_chance", value=0.25) for row in tracked]
    (table,) = build(layout, layout.tables[0], rows + tracked)
    assert table.columns == [*plain.columns, "motion fidelity ↑", "the same by chance"]
    found = cells(table, "motion-dominant", 1)
    assert found["fidelity"].mean == pytest.approx(found["motion"].mean)
    assert found["fidelity_chance"].mean == 0.25


def test_a_score_of_a_set_of_samples_is_no_sample_more(layout):
    rows = toy_rows()
    first = [row for row in rows if row.seed == 0 and row.metric == METRICS[0]]
    sets = [replace(row, seed=None, metric="motion_diversity") for row in first]
    layout.columns["diversity"] = Column("diversity", "motion_diversity")
    layout.tables[0].columns.append("diversity")
    before, _ = build(layout, layout.tables[0], rows)
    after, _ = build(layout, layout.tables[0], rows + sets)
    assert [line.n for line in after.blocks[0].lines] == [line.n for line in before.blocks[0].lines]


def test_differences_at_equal_leakage_are_bold_where_their_sign_is_known_and_the_note_says_so(layout):
    rows = [
        replace(each, reference=f"{each.reference}-{copy}", score_id=f"{each.score_id}-{copy}")
        for each in toy_rows()
        for copy in range(2)
    ]
    _, decision = build(layout, layout.tables[0], rows)
    block = next(each for each in decision.blocks if each.title.startswith("motion-dominant;"))
    own, other = block.lines
    assert [own.is_bold(cell) for cell in own.cells] == [False, True]
    assert not any(map(other.is_bold, other.cells))
    assert "bold: the interval excludes zero" in to_markdown(decision)
