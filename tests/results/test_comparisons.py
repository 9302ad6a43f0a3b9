"""Tables: differences to a default row, what is bold, which rows a line takes, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from motionexp.errors import InputError
from motionexp.results.formats import to_latex, to_markdown
from motionexp.results.layout import Decision, Difference, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows, check_comparable
from motionexp.results.tables import build

ROOT = Path(__file__).parents[2]
LAYOUT = """
question: Which rank?
cost: a minute
sweep: ["model=tiny_latte tau=700 rank=1,4"]
rows: results/shapes/mine.jsonl
select: {suite: shapes}
settings:
  base: {labels: [base], select: {tau: "1000"}, base: true}
  four: {labels: ["4"], select: {tau: "700"}}
  one: {labels: ["1"], select: {tau: "700", rank: "1"}}
  sixteen: {labels: ["16"], select: {tau: "700", rank: "16"}}
tables:
  - file: results/shapes/mine
    title: Rank
    labels: [rank]
    settings: [base, four, one, sixteen]
    default: four
    groups: [{title: motion-dominant, select: {contrast: motion-dominant}}]
"""
DECIDED = "decision: {motion: motion, leakage: [nuisances], levels: [0.1], scales: [1],"
FIGURE = "{file: f, title: t, x: rank, panels: mine, columns: [motion], lines: {a: [one]}}"
METRICS = (
    *("text_alignment", "frame_consistency_consecutive", "pick_score", "velocity_similarity"),
    *("flow_similarity", "replaced_attributes", "nuisance_similarity", "nuisance_chance"),
)


def row(metric: str, reference: int, tau: float = 700.0, rank: int = 4, **changes) -> Row:
    model = {"steps": 25, "train_steps": 100, "learning_rate": 0.01, "full_rank_learning_rate": 0.001}
    settings = {"rank": rank, "steps": 25, "learning_rate": 0.01, "projections": ["v", "o"], "frames": 16}
    # Rank 1 is a tenth less on every reference, rank 16 more on some and less on others.
    effect = {1: -0.1, 4: 0.0, 16: 0.1 * (-1) ** reference}[rank] if metric == "velocity_similarity" else 0.0
    own = Row(
        metric=metric,
        metric_version=1,
        value=0.5 + reference / 10 + effect,
        score_id=f"{metric} {reference} {tau} {rank} {changes}",
        suite="shapes",
        reference=f"r{reference}",
        reference_hash=f"hash {reference}",
        strata={"contrast": "motion-dominant"},
        edit_kind="style",
        seed=0,
        model="tiny_latte",
        method="base" if tau == 1000 else "lora",
        tau=tau,
        steps=25,
        train_steps=100,
        settings={**settings, "model": {**model, "frames": 16, "height": 64, "width": 64}},
        precision="fp32",
        weights_hash="w",
    )
    return replace(own, **changes)


def rows(references: int = 6) -> list[Row]:
    made = [(1000.0, 4), (700.0, 4), (700.0, 1), (700.0, 16)]
    return [
        row(metric, number, tau, rank)
        for metric in METRICS
        for number in range(references)
        for tau, rank in made
    ]


@pytest.fixture
def layout(tmp_path):
    path = tmp_path / "experiments" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(LAYOUT, encoding="utf-8")
    return read_layout(path)


def shown(layout, own: list[Row]) -> str:
    (table,) = build(layout, layout.tables[0], own)
    return to_markdown(table)


def test_every_row_is_shown_less_the_default_too(layout):
    (table,) = build(layout, layout.tables[0], rows())
    measured, less = table.blocks
    assert less.title == "motion-dominant: difference to 4, paired"
    assert [line.labels for line in less.lines] == [["base"], ["1"], ["16"]]
    motion = [next(cell for cell in line.cells if cell.column == "motion").interval for line in less.lines]
    assert [each.mean for each in motion] == pytest.approx([0.0, -0.1, 0.0])
    assert (motion[1].low, motion[1].high) == pytest.approx((-0.1, -0.1))
    assert motion[2].low < 0 < motion[2].high
    assert [cell.column for cell in measured.lines[0].cells] == [
        *("text", "consistency", "pick", "motion", "flow", "replaced", "nuisances")
    ]


def test_bold_is_a_difference_whose_interval_excludes_zero_and_nothing_else(layout):
    (table,) = build(layout, layout.tables[0], rows())
    markdown, latex = to_markdown(table), to_latex(table)
    assert markdown.count("**") == 2
    assert "**−0.10 [−0.10, −0.10]**" in markdown
    assert latex.count(r"\textbf") == 1
    assert r"\textbf{$-$0.10 [$-$0.10, $-$0.10]}" in latex
    assert "bold: the interval excludes zero" in markdown


def test_nothing_is_bold_of_too_few_references_or_where_a_printed_end_is_zero(layout):
    of_four = shown(layout, rows(4))
    assert "bold" in of_four
    assert "**" not in of_four
    assert "their range" in of_four
    small = [
        replace(each, value=each.value * 0.03) if each.metric == "velocity_similarity" else each
        for each in rows()
    ]
    assert "0.00 [0.00, 0.00]" in shown(layout, small)
    assert "**" not in shown(layout, small)


def test_a_setting_without_rows_is_said_and_one_that_is_subtracted_is_an_error(layout):
    own = [each for each in rows() if each.settings["rank"] != 16]
    lines = shown(layout, own).splitlines()
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("| 16 ")] == ["none"]
    assert any("n none:" in line for line in lines)
    with pytest.raises(InputError, match=r"subtracts the base model, of which there are no rows"):
        shown(layout, [each for each in rows() if each.tau != 1000])


def test_a_line_takes_rows_whose_other_settings_are_the_defaults(layout):
    own = rows()
    other = [
        row("text_alignment", 0, settings={**own[0].settings, "soft_window": [[700.0, 0.5]]}),
        row("text_alignment", 0, settings={**own[0].settings, "attention": "spatial"}),
        row("text_alignment", 0, settings={**own[0].settings, "learning_rate": 0.1}),
        row("text_alignment", 0, settings={**own[0].settings, "frames": 32}),
        row("text_alignment", 0, settings={**own[0].settings, "adapter": "an.safetensors"}),
        row("text_alignment", 0, settings={**own[0].settings, "text_precision": "4bit"}),
        row("text_alignment", 0, strata={"contrast": "motion-dominant", "appearances": "2"}),
        row("text_alignment", 0, 1000.0, settings={**own[0].settings, "steps": 50}),
        row("text_alignment", 0, 1000.0, strata={"contrast": "motion-dominant", "captions": "captioned"}),
    ]
    assert shown(layout, [*own, *other]) == shown(layout, own)
    # The base model's row does not depend on what its job would have trained.
    plain = [each for each in own if each.tau != 1000]
    base = [
        replace(each, settings={**each.settings, "rank": 16, "soft_window": [[0.0, 1.0]]})
        for each in own
        if each.tau == 1000
    ]
    assert shown(layout, [*plain, *base]) == shown(layout, own)
    alike = {"settings": {**own[0].settings, "learning_rate": 0.001}, "method": "full_rank", "value": 9.0}
    with pytest.raises(InputError, match="two rows of text_alignment"):
        shown(layout, [*own, row("text_alignment", 0, **alike)])
    layout.settings["four"].select["method"] = "lora"
    assert shown(layout, [*own, row("text_alignment", 0, **alike)]) == shown(layout, own)


def test_what_a_layout_selects_by_need_not_be_the_default(layout):
    own = [replace(each, settings={**each.settings, "steps": 50}, steps=50) for each in rows()]
    assert "motion-dominant: difference" not in shown(layout, own)
    layout.select["steps"] = "50"
    assert "motion-dominant: difference to 4" in shown(layout, own)


def test_lines_of_other_references_are_refused(layout):
    own = [each for each in rows() if (each.reference, each.settings["rank"]) != ("r3", 16)]
    with pytest.raises(
        InputError, match=r"setting sixteen lacks 1 of the 6 samples of .*, for instance of r3"
    ):
        shown(layout, own)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda row: row.metric == "velocity_similarity", "velocity_similarity of setting sixteen lacks 6"),
        (
            lambda row: row.metric == "nuisance_chance" and row.reference < "r2",
            "nuisance_chance of .* lacks 2",
        ),
    ],
)
def test_a_line_lacks_no_metric_and_nothing_that_is_subtracted(layout, lost, said):
    own = [each for each in rows() if not (each.settings["rank"] == 16 and lost(each))]
    with pytest.raises(InputError, match=said):
        shown(layout, own)


def test_what_a_line_is_less_has_the_same_samples_though_it_has_no_line(layout):
    own = [each for each in rows() if each.settings["rank"] != 16 or each.reference < "r3"]
    table = layout.tables[0]
    table.settings.remove("sixteen")
    assert "motion-dominant" in shown(layout, own)
    table.differences = [Difference(["one less sixteen"], "one", "sixteen")]
    with pytest.raises(InputError, match="setting sixteen lacks 3 of the 6 samples"):
        shown(layout, own)


def test_selecting_by_what_no_row_has_is_refused(layout, tmp_path):
    layout.settings["one"].select = {"tau": "700", "rnak": "1"}
    with pytest.raises(InputError, match=r"no row has rnak; .* \(contrast\)"):
        shown(layout, rows())
    append_rows(tmp_path / "rows.jsonl", rows())
    with pytest.raises(InputError, match="no row has rnak"):
        selected_rows(layout, tmp_path)


def test_other_videos_of_one_name_are_refused():
    own = rows()
    check_comparable(own)
    other = replace(own[0], reference_hash="another video", score_id="x")
    with pytest.raises(InputError, match=r"reference_hash of shapes r0 16 64 64: another video, hash 0"):
        check_comparable([*own, other])
    check_comparable([*own, other], ["reference_hash"])
    splits = [
        replace(row, strata={"split": split}) for row, split in ((own[0], "tuning"), (other, "benchmark"))
    ]
    check_comparable(splits)
    longer = replace(other, settings={**other.settings, "frames": 32})
    check_comparable([*own, longer])


def test_a_layout_may_name_the_references_of_each_model(layout, tmp_path):
    append_rows(Path(tmp_path) / "rows.jsonl", rows())
    layout.references = {"tiny_latte": "r0, r2", "tiny_unet3d": "r1"}
    assert {each.reference for each in selected_rows(layout, tmp_path)} == {"r0", "r2"}
    layout.references = {"tiny_unet3d": "r1"}
    assert {each.reference for each in selected_rows(layout, tmp_path)} == {f"r{each}" for each in range(6)}
    layout.references = "r3"
    assert {each.reference for each in selected_rows(layout, tmp_path)} == {"r3"}


def test_rows_of_no_line_are_not_published(layout, tmp_path):
    own = rows()
    half = {"settings": {**own[0].settings, "adapter_scale": 0.5}, "adapter_scale": 0.5, "score_id": "half"}
    others = [row("pick_score", 0, rank=4, tau=300.0), row("pick_score", 0, **half)]
    others[0] = replace(others[0], score_id="other tau")
    anchor = row(
        "pick_score",
        0,
        strata={"contrast": "motion-dominant", "sanity_baseline": "frozen"},
        tau=0.0,
        score_id="sanity_baseline",
    )
    append_rows(tmp_path / "rows.jsonl", [*own, *others, anchor])
    kept = {each.score_id for each in selected_rows(layout, tmp_path)}
    assert kept == {*(each.score_id for each in own), "sanity_baseline"}
    layout.tables[0].decision = Decision("motion", ["nuisances"], [0.1], [0.5, 1], ["four"], ["one"])
    assert {each.score_id for each in selected_rows(layout, tmp_path)} == kept | {"half"}


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("x: rank, panels: mine, columns: [motion], lines: {a: [two]}", "names setting two"),
        ("x: rank, panels: yours, columns: [motion], lines: {}", "panels=yours; tables are mine"),
        ("x: rank, panels: mine, columns: [speed], lines: {}", "names column speed"),
        (
            "x: rank, panels: mine, columns: [motion], lines: {a: [four]}",
            "does not select a number by x=rank",
        ),
        ("x: text, panels: mine, columns: [motion, flow], lines: {a: [one]}", "there is one column"),
        ("x: tau, panels: mine, groups: [other], columns: [motion], lines: {}", "names group other"),
        ("x: rank, panels: mine, columns: [], lines: {a: [one]}", "has no columns, or no setting"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(figure, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(LAYOUT + f"figures: [{{file: f, title: t, {figure}}}]\n", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_layout(path)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('labels: ["1"]', 'labels: ["1", "v"]', r"setting one has the labels \['1', 'v'\], and the table"),
        ("default: four", "default: for", "names setting for, which is not defined"),
        ("default: four", "reported: [{source: B, labels: [], values: {}}]", "what B reports has the labels"),
        ('rank: "16"', 'rank: "16.0"', "16.0 is written 16 in rows"),
        ('rank: "16"}', 'rank: "16"}, base: true', "settings base, sixteen are all marked `base`"),
        (
            "{title: motion-dominant,",
            "{title: motion-dominant}, {title: motion-dominant,",
            "two groups of the title motion-dominant",
        ),
        (
            "select: {suite: shapes}",
            "select: {suite: shapes}\nreferences: [r0, r1]",
            "'r0', 'r1'.* is no text",
        ),
        (
            "select: {suite: shapes}",
            "select: {suite: shapes}\nreferences: {tiny_lattte: r0}",
            "references are named of model tiny_lattte, which is not defined",
        ),
        ("default: four", "notes: [a: b]", "notes 1: is {'a': 'b'} and no text"),
        ("default: four", f"{DECIDED} curves: [], against: []}}", "decision has an empty `curves`"),
        (
            "default: four",
            f"{DECIDED} curves: [four], against: [one]}}",
            "compares against setting one, which is not defined",
        ),
        ("tables:", f"figures: [{FIGURE}, {FIGURE}]\ntables:", "two figures have the file f"),
        (
            "tables:",
            "tables:\n  - {file: mine, title: a, labels: [], settings: [], groups: []}",
            "two tables",
        ),
    ],
)
def test_what_would_give_a_wrong_table_is_refused(before, after, said, tmp_path):
    path = tmp_path / "mine.yaml"
    assert LAYOUT.count(before) == 1
    path.write_text(LAYOUT.replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_layout(path)
