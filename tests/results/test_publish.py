"""Rows into results/ and out of it: whole or not at all, and the tables that follow."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from motionexp.errors import InputError
from motionexp.files import ROOT
from motionexp.results.designs import check_unchanged
from motionexp.results.layout_file import read_layout
from motionexp.results.publish import main as publish_main
from motionexp.results.publish import publish
from motionexp.results.published import read_published
from motionexp.results.rows import append_rows
from motionexp.results.tables import main, write_tables
from tests.support.made_rows import TOY_LAYOUT, toy_rows
from tests.support.published_lines import to_published


def test_published_rows_give_back_every_field(tmp_path):
    rows = toy_rows()
    text = to_published(rows)
    assert to_published(rows[::-1]) == text
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    back = {row.score_id: row for row in read_published(path)}
    assert len(back) == len(rows)
    for row in rows:
        assert back[row.score_id].value == pytest.approx(row.value, rel=1e-6)
        assert replace(back[row.score_id], value=0.0) == replace(row, value=0.0)
    assert len(text) < 60 * len(rows)


COLUMNAR = TOY_LAYOUT.replace("rows: results/shapes/toy.jsonl", "rows: results/shapes/toy.parquet")
LINES = [json.loads(line) for line in to_published(toy_rows()).splitlines()]
KINDS = [next(iter(line)) for line in LINES]
METRIC, RUN, EDIT, SAMPLE = (KINDS.index(kind) for kind in ("metric", "run", "edit", "sample"))


@pytest.mark.parametrize(
    ("number", "change", "named"),
    [
        (SAMPLE, {"run": -1}, "run -1 is none of the 5"),
        (SAMPLE, {"edit": True}, "edit True is none"),
        (SAMPLE, {"edit": 0.0}, "edit 0.0 is none"),
        (SAMPLE, {"values": {"-1": 1.0}}, "metric None is none of the 5"),
        (SAMPLE, {"values": {"\u0661": 1.0}}, "metric None is none"),
        (SAMPLE, {"values": {"0": 1.0, "00": 2.0}}, "stands twice"),
        (SAMPLE, {"values": {}}, "without values"),
        (SAMPLE, {"values": {"0": True}}, "field value is True"),
        (SAMPLE, {"values": {"0": [1.0, "a", 2]}}, "too many values"),
        (SAMPLE, {"values": {"0": "1.0"}}, "field value is '1.0'"),
        (SAMPLE, {"sample": LINES[SAMPLE]["sample"] | {"tau": 3.0}}, "a sample has no tau"),
        (SAMPLE, {"run": 0, "new": 1}, "neither a metric"),
        (METRIC, {"run": {}}, "neither a metric"),
        (METRIC, {"metric": LINES[METRIC]["metric"] | {"seed": 1}}, "a metric has no seed"),
        (EDIT, {"edit": LINES[EDIT]["edit"] | {"reference": None}}, "field reference is None"),
        (SAMPLE + 1, LINES[SAMPLE], "stands twice"),
    ],
)
def test_a_line_that_is_shifted_doubled_or_changed_is_named(tmp_path, number, change, named):
    lines = [line | change if index == number else line for index, line in enumerate(LINES)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path}, line {number + 1}: ")


def test_publish_then_tables_is_byte_for_byte_and_knows_no_torch(root):
    layout_path, folder = root / "experiments" / "toy.yaml", root / "results" / "shapes"
    layout_path.write_text(COLUMNAR, encoding="utf-8")
    of_another_suite = replace(toy_rows()[0], suite="tgve", score_id="another")
    append_rows(root / "outputs" / "cell" / "rows.jsonl", [*toy_rows(), of_another_suite])
    assert publish(layout_path, root / "outputs") == (folder / "toy.parquet", len(toy_rows()))
    check_unchanged(layout_path, read_layout(layout_path))
    assert main([str(layout_path)]) == 0
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert set(first) == {"toy.parquet", "toy.md", "toy.tex", "toy.csv"}
    program = (
        f"import sys, motionexp.results.tables as t; assert t.main([{str(layout_path)!r}]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_rows_of_which_no_table_can_be_built_replace_nothing(root):
    layout_path, outputs = root / "experiments" / "toy.yaml", root / "outputs"
    layout_path.write_text(COLUMNAR, encoding="utf-8")
    append_rows(outputs / "tgve" / "rows.jsonl", [replace(toy_rows()[0], suite="tgve", score_id="a")])
    with pytest.raises(InputError, match=str(outputs)):
        publish(layout_path, outputs)
    rows = [replace(row, reference_hash=row.reference) for row in toy_rows()]
    append_rows(outputs / "rows.jsonl", rows)
    path, _ = publish(layout_path, outputs)
    before, designs = path.read_bytes(), root / "results" / "designs.json"
    recorded = designs.read_bytes()
    designs.write_text("[]")
    with pytest.raises(InputError, match=r"designs\.json"):
        publish(layout_path, outputs)
    designs.write_bytes(recorded)
    (outputs / "rows.jsonl").unlink()
    append_rows(outputs / "rows.jsonl", [row for row in rows if (row.tau, row.reference) != (0, "r1")])
    with pytest.raises(InputError, match=r" every .* 4 .* 12 "):
        publish(layout_path, outputs)
    references = 'references: {tiny_latte: "r0, r1, r9"}\nsweep: ["model=tiny_latte ",'
    layout_path.write_text(COLUMNAR.replace("sweep: [", references), encoding="utf-8")
    with pytest.raises(InputError, match=r"tiny_latte .* 1 .*\(r9\)"):
        publish(layout_path, outputs)
    for name, problem in (
        ("''", "`rows`"),
        ("results/shapes/toy.jsonl", r"toy\.jsonl must end in \.parquet"),
    ):
        layout_path.write_text(COLUMNAR.replace("results/shapes/toy.parquet", name), encoding="utf-8")
        with pytest.raises(InputError, match=problem):
            publish(layout_path, outputs)
    assert path.read_bytes() == before


def test_rows_of_a_dirty_tree_are_refused_unless_told_and_the_table_says_so(root, capsys):
    layout_path, outputs = root / "experiments" / "toy.yaml", root / "outputs"
    layout_path.write_text(COLUMNAR, encoding="utf-8")
    rows = [replace(row, commit="abcdef012345", dirty=row.reference == "r1") for row in toy_rows()]
    append_rows(outputs / "rows.jsonl", rows)
    assert publish_main([str(layout_path), str(outputs)]) == 2
    problem = capsys.readouterr().err
    assert f"{len(rows) // 4} of {len(rows)} rows" in problem
    assert "abcdef0" in problem
    assert not (root / "results").exists()
    assert publish_main([str(layout_path), str(outputs), "--dirty"]) == 0
    assert main([str(layout_path)]) == 0
    for suffix in (".md", ".tex"):
        text = (root / "results" / "shapes" / f"toy{suffix}").read_text(encoding="utf-8")
        assert "uncommitted changes after abcdef0" in text
    (outputs / "rows.jsonl").unlink()
    append_rows(outputs / "rows.jsonl", [replace(row, dirty=False) for row in rows])
    assert publish_main([str(layout_path), str(outputs)]) == 0
    assert publish_main(["--dirty"]) == 2


def test_models_without_runs_keep_their_published_rows_if_asked(root):
    layout_path, outputs = root / "experiments" / "toy.yaml", root / "outputs"
    layout_path.write_text(COLUMNAR.replace("{contrast:", "{model: tiny_latte, contrast:"), encoding="utf-8")
    of_other = [replace(row, model="tiny_unet3d", score_id=f"other-{row.score_id}") for row in toy_rows()]
    append_rows(outputs / "rows.jsonl", of_other)
    path, _ = publish(layout_path, outputs)
    (outputs / "rows.jsonl").unlink()
    append_rows(outputs / "rows.jsonl", toy_rows())
    assert publish_main([str(layout_path), str(outputs), "--keep"]) == 0
    counts = Counter(row.model for row in read_published(path))
    assert counts == {"tiny_latte": len(toy_rows()), "tiny_unet3d": len(toy_rows())}
    # Again: a model that has runs has its new rows alone.
    publish(layout_path, outputs, keep=True)
    assert Counter(row.model for row in read_published(path)) == counts
    publish(layout_path, outputs)
    assert {row.model for row in read_published(path)} == {"tiny_latte"}


def test_rows_of_two_versions_are_not_published(root):
    layout_path, outputs = root / "experiments" / "toy.yaml", root / "outputs"
    layout_path.write_text(COLUMNAR, encoding="utf-8")
    rows = [replace(row, versions={"sampling": 1 + (row.tau == 0)}, adapter_id="a") for row in toy_rows()]
    append_rows(outputs / "rows.jsonl", rows)
    with pytest.raises(InputError, match="sampling_version: 1, 2"):
        publish(layout_path, outputs)
    assert not (root / "results").exists()


def test_a_table_whose_rows_are_gone_is_removed(toy, root):
    written = write_tables(root, toy, toy_rows())
    assert all(path.exists() for path in written)
    of_no_group = [replace(row, strata={"contrast": "none"}) for row in toy_rows()]
    assert write_tables(root, toy, of_no_group) == []
    assert not any(path.exists() for path in written)


SKIPPED = re.compile(r"experiments/(\S+)\.yaml: .*results/shapes/\1\.jsonl")


def test_without_names_what_is_not_published_yet_is_said_and_left_out(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    later = TOY_LAYOUT.replace("results/shapes/toy", "results/shapes/later")
    Path("experiments/later.yaml").write_text(later, encoding="utf-8")
    assert main([]) == 0
    printed = capsys.readouterr()
    assert (printed.out, SKIPPED.findall(printed.err)) == ("", ["later", "toy"])
    published = Path("results/shapes/toy.jsonl")
    published.parent.mkdir(parents=True)
    published.write_text(to_published(toy_rows()))
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [f"results/shapes/toy{suffix}" for suffix in (".md", ".tex", ".csv")]
    assert SKIPPED.findall(printed.err) == ["later"]
    assert main(["experiments/later.yaml"]) == 2
    assert "results/shapes/later.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (to_published(toy_rows())[:-20], "line 98"),
        ('{"sample":{},"run":99,"edit":0,"values":{"0":1}}\n', "line 1"),
        ("", "results/shapes/toy.jsonl"),
        (to_published([*toy_rows(), replace(toy_rows()[0], precision="bf16")]), "precision: bf16, fp32"),
        (
            to_published([replace(row, tau=1.0) for row in toy_rows()]),
            "experiments/toy.yaml",
        ),
    ],
    ids=["cut short", "unknown run", "empty", "mixed", "of no setting"],
)
def test_published_rows_that_are_damaged_or_mixed_are_never_left_out(root, text, named, capsys, monkeypatch):
    monkeypatch.chdir(root)
    published = Path("results/shapes/toy.jsonl")
    published.parent.mkdir(parents=True)
    published.write_text(text)
    assert main([]) == 2
    assert named in capsys.readouterr().err
