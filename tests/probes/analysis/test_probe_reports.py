"""From published rows to tables and figures, by the commands."""

import json
import re
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from motionexp.files import ROOT
from motionexp.probes.analysis import figures as all_figures
from motionexp.probes.analysis.boundary import NONE
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.analysis.published import EXPERIMENTS, SWEEP, read_analysis
from motionexp.probes.analysis.tables import tables
from motionexp.results.figures.style import SETTINGS, WIDTH
from motionexp.results.formats import to_csv, to_markdown
from motionexp.results.rows import read_rows
from motionexp.results.tables import with_dirty_note
from motionexp.scripts import probe_figures, probe_tables
from motionexp.scripts.probe_tables import why_missing
from tests.support.made_probes import PEAK, SET_AT, World, log_snr_of, made_probes, probe_rows, sweep_rows
from tests.support.published_lines import to_published

STRAIGHT = np.append(10 - 0.02 * np.arange(1000), -np.inf)
"""The log-SNR of a schedule at t = 0, 1, ... 1000."""


def publish(root, name, text):
    """Write an experiment's layout and its published rows."""
    layout = {"question": "Where is motion set?", "cost": "none", "rows": f"results/shapes/{name}.jsonl"}
    layout |= {"sweep": [], "tables": [], "select": {}, "settings": {}, "columns": {}}
    (root / "experiments" / f"{name}.yaml").write_text(json.dumps(layout))
    (root / layout["rows"]).write_text(text)


@pytest.fixture(scope="module")
def rows():
    probed = probe_rows(World(between=5, within=10, mistakes=0), 3)
    return [replace(row, dirty=row.method == "motion_tampering") for row in probed]


@pytest.fixture(scope="module")
def published(rows):
    """{experiment: its published rows}: what changes the motion's words, and the rest."""
    motion = [row for row in rows if row.method in ("motion_tampering", "schedule")]
    rest = [row for row in rows if row.method != "motion_tampering"]
    return {"probe-motion": to_published(motion), "probe-rest": to_published(rest)}


@pytest.fixture
def root(published, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "results" / "shapes").mkdir(parents=True)
    for name, text in published.items():
        publish(tmp_path, name, text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def _labels_at_their_points(monkeypatch):
    """To move labels apart takes most of the time of a figure."""
    monkeypatch.setattr("motionexp.results.figures.labels.adjust_text", lambda *texts, **settings: None)


@pytest.fixture
def compared():
    """Three models, of which the last has no boundary, in two contrasts."""
    rng, by_method, predicted = np.random.default_rng(0), defaultdict(dict), {}
    for key in product("abc", ("motion-dominant", "appearance-dominant")):
        world = World({**SET_AT, "motion": 350.0 if key[0] == "c" else 800.0}, 5, 10, 0)
        for method, values in made_probes(world, 6, rng).items():
            by_method[method][key] = values
        predicted |= {(*key, name): 10 - 0.02 * at for name, at in SET_AT.items()}
    return Analysis(by_method, dict.fromkeys("abc", STRAIGHT), predicted)


def test_the_command_writes_every_table_in_three_formats(root, capsys):
    assert probe_tables.main([]) == 0
    written = capsys.readouterr().out.split()
    names = map("".join, product(("probe_analysis", "boundary", "pairs"), (".md", ".tex", ".csv")))
    assert {Path(path).name for path in written} == {*names, "verdicts.parquet"}
    assert all((root / path).is_file() for path in written)
    title = "The boundary between motion and appearance: boundary, t"
    rows = read_rows(root / "results" / "shapes" / "verdicts.parquet")
    (boundary,) = (row for row in rows if row.metric == title)
    place = boundary.model, boundary.stratum("contrast"), boundary.method
    assert place == ("tiny_latte", "motion-dominant", "verdict")
    assert float(boundary.stratum("low")) < boundary.value < float(boundary.stratum("high"))
    reasons = [why_missing({"verdict": verdict}) for verdict in (NONE, "undetermined: few")]
    assert reasons == ["no boundary", "undetermined"]
    text = (root / "results" / "shapes" / "boundary.md").read_text()
    assert "| tiny_latte | motion-dominant | " in text
    assert "rows are of a working tree with uncommitted changes" in text


def test_the_command_writes_the_same_figures_each_time(root):
    runs = []
    for _ in range(2):
        assert probe_figures.main(["experiments/probe-motion.yaml"]) == 0
        folder = root / "results" / "shapes" / "figures"
        runs.append({path.name: path.read_bytes() for path in folder.iterdir()})
    names = ("motion-tampering-pairs", "motion-tampering-trade-off", "onsets")
    drawn = {f"tiny_latte-{name}{suffix}" for name in names for suffix in (".svg", ".pdf", ".png")}
    assert set(runs[0]) == {"README.md", *drawn}
    assert runs[0] == runs[1]


def test_rows_and_schedules_are_read_together(root, rows):
    folder, analysis = read_analysis([])
    assert folder == root / "results" / "shapes"
    assert set(analysis.probes) == {"tampering", "motion_tampering", "partial_guidance"}
    assert analysis.log_snr["tiny_latte"][888] == pytest.approx(log_snr_of(888))
    assert analysis.log_snr["tiny_latte"][1000] == -np.inf
    assert analysis.predicted == pytest.approx(Analysis.of_rows(rows).predicted, rel=1e-5)


SKIPPED = re.compile(r"experiments/(\S+)\.yaml: .*results/shapes/\1\.jsonl")


def test_what_is_not_published_yet_is_said_and_left_out(root, capsys):
    (root / "results" / "shapes" / "probe-rest.jsonl").unlink()
    assert probe_tables.main([]) == 0
    printed = capsys.readouterr()
    assert SKIPPED.findall(printed.err) == ["probe-rest"]
    assert "results/shapes/probe_analysis.md" in printed.out.split()
    (root / "results" / "shapes" / "probe-motion.jsonl").unlink()
    assert probe_tables.main([]) == probe_figures.main([]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert SKIPPED.findall(printed.err) == 2 * ["probe-motion", "probe-rest"]


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch, capsys, root):
    (root / "results" / "shapes" / "probe-motion.jsonl").unlink()
    named = ["experiments/probe-motion.yaml"]
    assert probe_figures.main(named) == probe_tables.main(named) == 2
    assert "probe-motion.jsonl" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert probe_figures.main([]) == 2
    assert EXPERIMENTS in capsys.readouterr().err


def test_rows_of_other_weights_are_refused(root, rows, capsys):
    changed = [replace(row, weights_hash="other") for row in rows if row.method == "motion_tampering"]
    (root / "results" / "shapes" / "probe-motion.jsonl").write_text(to_published(changed))
    assert probe_tables.main([]) == 2
    assert "weights_hash of tiny_latte: other, tiny_latte" in capsys.readouterr().err


def test_tables_say_what_was_found(compared):
    files = tables(compared)
    onsets, order, agreement = files["probe_analysis"]
    boundaries, control, transfer = files["boundary"]
    verdicts = {tuple(line.labels[:2]): line.labels[2] for line in boundaries.blocks[0].lines}
    assert {verdicts[key] for key in verdicts if key[0] in "ab"} == {"found"}
    assert {verdicts[key] for key in verdicts if key[0] == "c"} == {"none"}
    assert ["c", "none"] in [line.labels for line in control.blocks[0].lines]
    assert [line.labels for line in transfer.blocks[0].lines] == [["a", "b"], ["b", "a"], ["mean", ""]]
    factors = {**dict.fromkeys("abc", "10"), "all": "30"}
    factors |= {"all, motion-dominant": "15", "all, appearance-dominant": "15"}
    assert dict(line.labels for line in agreement.blocks[0].lines) == factors
    result = compared.agreement([("a", "motion-dominant")])
    assert result.error[0] < 1.5
    assert result.correlation[0] > 0.8
    assert all(tuning is None for *_, tuning in compared.transfer_losses("motion-dominant"))
    first = onsets.blocks[0].lines[0]
    assert (first.labels, first.n) == (["motion"], "12 (6)")
    assert "the earliest appearance attribute" in to_markdown(order)
    assert "best: " in to_csv(files["pairs"])


def test_a_sweep_of_tau_is_compared_with_the_boundary(root, capsys):
    publish(root, SWEEP.stem, to_published(sweep_rows()))
    assert probe_tables.main([]) == 0
    text = (root / "results" / "shapes" / "boundary.md").read_text()
    best = text.split("## Tuning at the boundary")[1].split("| tiny_latte | motion-dominant | ")[1].split()[0]
    assert float(best) == pytest.approx(PEAK, abs=15)
    (root / "results" / "shapes" / "tau_selection.jsonl").unlink()
    assert probe_tables.main([]) == 0
    assert "experiments/tau_selection.yaml" in capsys.readouterr().err
    assert "Tuning" not in (root / "results" / "shapes" / "boundary.md").read_text()


def test_a_pair_that_cannot_be_told_says_why(compared):
    still = compared.probes["motion_tampering"]["a", "motion-dominant"]
    values = {**still.values, "new_motion": np.zeros((6, 11, 11))}
    compared.probes["motion_tampering"]["a", "motion-dominant"] = replace(still, values=values)
    text = to_markdown(tables(compared)["pairs"][0])
    assert "| undetermined: no detectable change of the motion | – |" in text


@pytest.mark.usefixtures("_labels_at_their_points")
def test_figures_are_readable_in_print_and_their_captions_say_n(compared):
    with matplotlib.rc_context(SETTINGS):
        drawn = {name: (figure, caption) for name, figure, caption in all_figures.figures(compared)}
    kinds = ("tampering", "motion-tampering", "partial-guidance")
    of_model = [f"{kind}-{what}" for kind in kinds for what in ("pairs", "trade-off")] + ["onsets"]
    names = {f"{model}-{name}" for model in "abc" for name in of_model}
    assert set(drawn) == names | {"shares", "gaps", "prediction"}
    for name, (figure, caption) in drawn.items():
        texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
        assert min(text.get_fontsize() for text in texts) >= 8, name
        assert figure.get_figwidth() == WIDTH <= 7
        assert re.search(r"\b6\b", caption), name
    shown = " ".join(text.get_text() for text in drawn["shares"][0].findobj(Text))
    assert "no boundary" in shown


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.usefixtures("_labels_at_their_points")
def test_too_few_references_are_drawn_and_the_captions_say_so(references):
    values = made_probes(World(), references, np.random.default_rng(0))
    probes = {method: {("a", "motion-dominant"): probe} for method, probe in values.items()}
    analysis = Analysis(probes, {"a": STRAIGHT}, {("a", "motion-dominant", "motion"): -6.0})
    with matplotlib.rc_context(SETTINGS):
        captions = {name: caption for name, _, caption in all_figures.figures(analysis)}
    assert {"a-tampering-trade-off", "a-onsets", "shares", "gaps", "prediction"} <= set(captions)
    for name, caption in captions.items():
        assert name.endswith("pairs") or "Of fewer than 3 references such an interval says nothing" in caption
        assert f"{references} reference{'s' * (references > 1)}." in caption or "motion-dominant, " in caption


@pytest.mark.usefixtures("_labels_at_their_points")
def test_without_a_classifier_clip_and_flow_are_drawn(compared):
    metrics, probes = ("text_alignment", "flow_similarity"), {}
    for method, by_key in compared.probes.items():
        probe = by_key["a", "motion-dominant"]
        values, counts = ({name: array[name] for name in metrics} for array in (probe.values, probe.counts))
        probes[method] = {("a", ""): replace(probe, values=values, counts=counts)}
    with matplotlib.rc_context(SETTINGS):
        names = {name for name, *_ in all_figures.figures(Analysis(probes, {"a": STRAIGHT}, {}))}
    assert names == {
        "a-tampering-pairs", "a-tampering-trade-off", "a-motion-tampering-pairs", "a-partial-guidance-pairs",
        "a-partial-guidance-trade-off", "shares", "gaps",
    }  # fmt: skip


def test_the_published_tables_are_those_of_the_published_rows(monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    folder, analysis = read_analysis([])
    for name, made in tables(analysis).items():
        tables_of_file = with_dirty_note(made, analysis.rows)
        markdown = "\n".join(map(to_markdown, tables_of_file))
        assert (folder / f"{name}.md").read_text(encoding="utf-8") == markdown
        assert (folder / f"{name}.csv").read_text(encoding="utf-8") == to_csv(tables_of_file)
