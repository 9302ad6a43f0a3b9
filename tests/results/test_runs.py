"""`list runs` and index.md: what there is, also where files are missing or damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from motionexp.errors import InputError
from motionexp.files import locked
from motionexp.results.rows import append_rows
from motionexp.results.runs import print_runs, runs_in, write_index
from tests.support.made_rows import rank_row


def run_at(folder: Path, rows=(), **status) -> None:
    folder.mkdir(parents=True)
    status = {"state": "done", "reference": "r0", "tau": 700.0} | status
    (folder / "status.json").write_text(json.dumps(status))
    if rows:
        append_rows(folder / "rows.jsonl", rows)


@pytest.fixture
def output(tmp_path) -> Path:
    folder = tmp_path / "shapes" / "tiny_latte"
    metrics = ("velocity_similarity", "nuisance_similarity", "nuisance_chance", "flow_similarity")
    for name, rank, tau in (("aa", 4, 700.0), ("bb", 16, 700.0), ("cc", 4, 1000.0)):
        rows = [replace(rank_row(metric, 0, tau, rank), sample_id=name) for metric in metrics]
        run_at(folder / name, rows)
    run_at(folder / "dd", state="failed", error="FloatingPointError: the loss is nan")
    run_at(folder / "ee", state="running")
    run_at(folder / "ff")
    (folder / "ff" / "rows.jsonl").write_text("no row\n")
    (folder / "aa" / "media").mkdir()
    (folder / "aa" / "media" / "style-0-123.mp4").write_bytes(b"")
    return tmp_path


def test_runs_have_the_settings_that_differ_a_state_and_scores(output):
    runs = {run.folder.name: run for run in runs_in(output / "shapes" / "tiny_latte")}
    sampled = {name: run.sampled[0] for name, run in runs.items()}
    assert sampled["aa"].settings == ("tau=700",)
    assert sampled["bb"].settings == ("tau=700", "rank=16")
    assert sampled["cc"].settings == ("base model",)
    assert sampled["aa"].scores["motion similarity"] == pytest.approx(0.5)
    assert sampled["aa"].scores["background leakage"] == 0
    assert (sampled["aa"].samples, runs["aa"].state) == (1, "done")
    states = [runs[name].state for name in ("dd", "ee", "ff")]
    assert states == ["failed", "interrupted", "damaged"]


def test_a_run_that_a_process_works_on_is_running(output):
    folder = output / "shapes" / "tiny_latte"
    with locked(folder / "ee" / ".lock"):
        assert {run.folder.name: run.state for run in runs_in(folder)}["ee"] == "running"


def test_the_list_fits_a_terminal_and_shows_errors(output, capsys):
    print_runs(Console(width=80), output)
    shown = capsys.readouterr().out
    assert "the loss is nan" in shown
    assert "index.md" not in shown, "no job has written it"
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    (line,) = (line.split() for line in shown.splitlines() if line.startswith(" bb"))
    assert line == ["bb", "tau=700", "done", "1", *["0.60", "0.00"]]


def test_words_select_runs_by_settings_fields_and_state(output, capsys):
    folder = output / "shapes" / "tiny_latte"

    def names(**select: str) -> set[str]:
        return {run.folder.name for run in runs_in(folder, select)} - {"ff"}  # which is damaged

    assert names(tau="700") == {"aa", "bb"}
    assert names(rank="16") == {"bb", "cc"}, "the base model has no rank"
    assert names(model="tiny_latte", method="base,lora") == {"aa", "bb", "cc"}
    assert names(state="failed,interrupted") == {"dd", "ee"}
    assert names(reference="r1") == set()
    shutil.rmtree(folder / "ff")
    print_runs(Console(width=80), output, {"rank": "16", "tau": "700"})
    assert "aa" not in capsys.readouterr().out
    for select, named in (({"tau": "3"}, r"^tau=3:"), ({"tua": "3"}, r"^tua=3: .*tau")):
        with pytest.raises(InputError, match=named):
            print_runs(Console(), output, select)


def test_samples_with_other_settings_are_lines_below_that_of_the_run(output, capsys):
    folder = output / "shapes" / "tiny_latte"
    row = rank_row("velocity_similarity", 0, 1000.0, 4)
    other = replace(row, sample_id="c2", score_id="c2", settings={**row.settings, "eta": 0.5})
    append_rows(folder / "cc" / "rows.jsonl", [other])
    (run,) = (run for run in runs_in(folder) if run.folder.name == "cc")
    assert [sampled.settings for sampled in run.sampled] == [("base model",), ("base model", "eta=0.5")]
    write_index(folder)
    print_runs(Console(width=80), output)
    for shown in (capsys.readouterr().out, (folder / "index.md").read_text()):
        assert sum("base model" in line for line in shown.splitlines()) == 2
        assert sum(line.startswith((" cc ", "| [cc](cc/) |")) for line in shown.splitlines()) == 1


def test_the_index_links_every_run(output, capsys):
    folder = output / "shapes" / "tiny_latte"
    write_index(folder)
    text = (folder / "index.md").read_text()
    print_runs(Console(), output)
    assert str(folder / "index.md") in capsys.readouterr().out
    assert "[bb](bb/) | r0 | tau=700 rank=16 | done | 1 | 0.60 | 0.00 |" in text
    assert "[style-0](aa/media/style-0-123.mp4)" in text


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="output="):
        print_runs(Console(), tmp_path)
