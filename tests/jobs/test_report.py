"""The report of an output folder: what its pages hold, without a browser."""

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from motionexp.cli import main
from motionexp.config.compose import load
from motionexp.data.videos import frame_count, read_frames
from motionexp.jobs.pages.report import command, plots
from motionexp.jobs.pages.report.overlays import UNITS, overlays
from motionexp.jobs.pages.report.plots import plot_groups
from motionexp.jobs.pages.report.samples import samples_of, scores_of
from motionexp.jobs.sweep_folder import VARIABLE
from tests.support.made_output import (
    FRAMES,
    KINDS,
    REFERENCES,
    TAUS,
    moving_square,
    write_failed,
    write_output,
    write_probe,
)
from tests.support.made_sweeps import write_plan
from tests.support.stub_jobs import run

HOSTILE = "<script>alert(\"x\")</script> & '{kind}' {{{{ 7 * 7 }}}}"


class Page(HTMLParser):
    """The elements of a page: (name, attributes), and its text."""

    def __init__(self, path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data

    def of(self, name, **attributes) -> list[dict]:
        """The attributes of elements of a name that have these attributes."""
        return [have for tag, have in self.elements if tag == name and attributes.items() <= have.items()]


def details(folder, key) -> dict:
    text = (folder / "samples" / f"{key}.js").read_text()
    return json.loads(re.fullmatch(r"motionexp\.details\((.*)\);\n", text)[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    rows = write_output(output, HOSTILE)
    write_probe(output)
    write_failed(output)
    assert main(["report", f"output={output}"]) == 0
    return output, rows


def test_every_sample_has_a_card_a_video_and_its_scores(made):
    output, rows = made
    page = Page(output / "report" / "samples.html")
    cards = page.of("article", **{"class": "card sample"})
    assert {card["data-key"] for card in cards} == {row.sample_id for row in rows}
    assert len(page.of("video")) == len(cards) + len(REFERENCES)
    by_key = {card["data-key"]: json.loads(card["data-scores"]) for card in cards}
    values = {(row.sample_id, row.metric): row.value for row in rows}
    for key, scores in by_key.items():
        leakage = values[key, "nuisance_similarity"] - values[key, "nuisance_chance"]
        assert scores["nuisance_similarity"] == pytest.approx(leakage)
        assert scores["velocity_similarity"] == pytest.approx(values[key, "velocity_similarity"])
        video = output / "report" / "media" / f"{key}.mp4"
        assert frame_count(video) == FRAMES
        assert read_frames(video, frames=FRAMES).shape == (FRAMES, 128, 128, 3)


def test_a_reference_has_a_page_with_its_samples_alone(made):
    output, rows = made
    for name in REFERENCES:
        page = Page(output / "report" / "references" / f"shapes-{name}.html")
        keys = {card["data-key"] for card in page.of("article", **{"class": "card sample"})}
        assert keys == {row.sample_id for row in rows if row.reference == name}
        sources = [video["src"] for video in page.of("video")]
        folder = output / "report" / "references"
        assert len(sources) == len(keys) + 1
        assert all((folder / source).exists() for source in sources)


def test_texts_out_of_data_are_no_code(made):
    output, _ = made
    for path in (output / "report").rglob("*.html"):
        page = Page(path)
        assert "<script>alert" not in path.read_text()
        assert all("src" in script for script in page.of("script"))
        assert "49" not in re.findall(r"\{\{ (\d+) \}\}", page.text)
    page = Page(output / "report" / "samples.html")
    captions = {card["data-caption"] for card in page.of("article", **{"class": "card sample"})}
    assert captions == {HOSTILE.format(kind=kind) for kind in KINDS}


def test_nothing_is_loaded_from_elsewhere(made):
    output, _ = made
    for path in (output / "report").rglob("*.html"):
        for _, attributes in Page(path).elements:
            for name in ("src", "href", "poster"):
                link = attributes.get(name) or "#"
                assert not re.match(r"(?!data:)\w+:|//", link), link
                file = (path.parent / link.split("#")[0]).resolve()
                assert link.startswith(("#", "data:,")) or file.exists(), link


def test_details_have_command_files_row_and_values_by_frame(made):
    output, rows = made
    row = next(row for row in rows if row.tau == 700)
    about = details(output / "report", row.sample_id)
    words = shlex.split(about["command"])
    assert words[:2] == ["python", "run.py"]
    assert {"model=tiny_latte", f"references=[{row.reference}]", "tau=700", "precision=fp32"} <= {*words}
    assert f"edit_kinds=[{row.edit_kind}]" in words
    assert about["row"]["sample_id"] == row.sample_id
    assert about["cell"] == str((output / row.sample_file).parents[1])
    assert len(about["series"]["text_alignment"]) == FRAMES
    assert {name: value for name, value, _ in about["scores"]} == {
        one.metric: one.value for one in rows if one.sample_id == row.sample_id
    }


def test_plots_have_a_point_for_each_setting(made):
    output, rows = made
    plots = [
        json.loads(box["data-plot"])
        for box in Page(output / "report" / "index.html").of("div")
        if "data-plot" in box
    ]
    plane = next(plot for plot in plots if plot["kind"] == "plane")
    points = {point["words"]: point for line in plane["lines"] for point in line["points"]}
    assert points.keys() == {"base model", "tau=500", "tau=700"}
    values = [row.value for row in rows if row.metric == "velocity_similarity" and row.tau == 500]
    assert points["tau=500"]["y_mean"] == pytest.approx(np.mean(values))
    assert points["tau=500"]["count"] == len(REFERENCES) * len(KINDS)
    curves = next(plot for plot in plots if plot["kind"] == "curves" and plot["y"].startswith("motion"))
    assert sorted(point["x_mean"] for line in curves["lines"] for point in line["points"]) == sorted(TAUS)


def test_many_lines_have_plots_by_backbone(made, monkeypatch):
    output, rows = made
    samples = samples_of(rows, output)
    samples += [
        replace(sample, rows=[replace(row, model="tiny_unet3d", method="smm") for row in sample.rows])
        for sample in samples
    ]
    (together,) = plot_groups(samples, scores_of(samples))
    assert {*together["names"]} == {"tiny_latte base model", "tiny_latte lora", "tiny_unet3d smm"}
    monkeypatch.setattr(plots, "MOST_LINES", 2)
    groups = plot_groups(samples, scores_of(samples))
    assert [group["title"] for group in groups] == ["shapes, tiny_latte", "shapes, tiny_unet3d"]
    for group in groups:
        for plot in group["plots"]:
            assert [line["name"] for line in plot["lines"]] == group["names"]


def test_overlays_follow_what_moves():
    drawn = overlays(moving_square(4))
    steps = np.array([numbers for frame in drawn["flow"] for numbers in zip(*[iter(frame)] * 4, strict=True)])
    # Two of 64 pixels to the right in each frame.
    assert np.median(steps[:, 2]) == pytest.approx(2 / 64 * UNITS, abs=3)
    assert np.median(np.abs(steps[:, 3])) <= 3
    track = max(drawn["tracks"], key=len)
    assert len(track) == 2 * FRAMES
    assert track[-2] - track[0] == pytest.approx(30 / 64 * UNITS, abs=15)
    assert overlays(np.zeros((1, 64, 64, 3), np.uint8)) == {}


def test_a_folder_with_other_files_is_refused(made, tmp_path, capsys):
    output, _ = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main(["report", f"output={output}", f"folder={tmp_path / 'mine'}"]) == 2
    assert f"folder={tmp_path / 'mine'}" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"notes.txt"}


def test_a_sample_without_its_video_and_a_reference_that_cannot_be_read_say_so(tmp_path):
    rows = write_output(tmp_path / "out", references=REFERENCES[:1], taus=(700.0,))
    for path in (tmp_path / "out").rglob(f"*{rows[0].sample_id}*"):
        path.unlink()
    # A file names a class: code of elsewhere is not run.
    for path in (tmp_path / "out").rglob("config.yaml"):
        path.write_text(
            path.read_text().replace("motionexp.data.shapes.splits.ShapesReferences", "os.system")
        )
    assert main(["report", f"output={tmp_path / 'out'}", f"folder={tmp_path / 'new'}"]) == 0
    page = Page(tmp_path / "new" / "samples.html")
    assert len(page.of("video")) == len(KINDS) - 1
    assert page.text.count("No video") == 2
    assert "os.system" in page.text


def test_names_out_of_rows_lead_nowhere_else(tmp_path):
    write_output(tmp_path / "out", references=REFERENCES[:1], taus=(700.0,))
    (path,) = (tmp_path / "out").rglob("rows.jsonl")
    for old, new in (("000000000000", "../../evil"), ("shapes/tiny_latte/cell00000000", "../outside")):
        path.write_text(
            path.read_text()
            .replace(f'"sample_id":"{old}', f'"sample_id":"{new}')
            .replace(f'file":"{old}', f'file":"{new}')
        )
    before = {path for path in tmp_path.rglob("*")}
    assert main(["report", f"output={tmp_path / 'out'}", f"folder={tmp_path / 'new'}"]) == 0
    assert all(tmp_path / "new" in (path, *path.parents) for path in {*tmp_path.rglob("*")} - before)
    assert Page(tmp_path / "new" / "samples.html").text.count("its row names no file") == len(KINDS)


def test_cells_of_a_heat_map_have_their_videos(made):
    output, _ = made
    page = Page(output / "report" / "probes.html")
    buttons = [button for button in page.of("button") if "data-values" in button]
    assert {
        button["aria-label"]: json.loads(button["data-values"])["text_alignment"] for button in buttons
    } == {
        "from 1000 until 0": 31.0,
        "from 900 until 800": 32.0,
    }
    for button in buttons:
        assert frame_count(output / "report" / "media" / f"{button['data-key']}.mp4") == FRAMES
    assert (output / "report" / "media" / "probe-unit00000000.webp").exists()
    assert "undetermined" in page.text


def test_failures_have_their_logs(made):
    output, _ = made
    page = Page(output / "report" / "failures.html")
    for text in ("a<b>", "no memory <img src=x>", "</pre><script>alert(1)</script>"):
        assert text in page.text
    assert page.of("img") == []


def test_two_folders_are_compared_side_by_side(made, tmp_path, capsys):
    output, rows = made
    words = [f"compare={output},{output}", f"folder={tmp_path / 'new'}", "tau=700"]
    assert main(["report", *words]) == 0
    cards = Page(tmp_path / "new" / "samples.html").of("article", **{"class": "card sample"})
    tuned = {row.sample_id for row in rows if row.tau == 700}
    assert {card["data-key"] for card in cards if card["data-source"] == "A"} == {f"A{key}" for key in tuned}
    assert {card["data-key"] for card in cards if card["data-source"] == "B"} == {f"B{key}" for key in tuned}
    assert "A: Means by tau" in Page(tmp_path / "new" / "index.html").text
    for wrong in (["compare=a"], ["compare=a,b,c"], ["compare=a,b", "output=c"], ["compare=a,"]):
        capsys.readouterr()
        assert main(["report", *wrong]) == 2
        assert wrong[-1].partition("=")[0] in capsys.readouterr().err


def test_a_sweep_has_its_own_cells_alone_and_the_base_model(made):
    output, rows = made
    cell = next(row for row in rows if row.tau == 500).sample_file.split("/")[2]
    planned = {"cell": f"shapes/tiny_latte/{cell}", "model": "tiny_latte", "reference": REFERENCES[0]}
    planned |= {"training_seed": 0, "settings": {}, "task": 0, "seconds": None}
    sweep = write_plan(output, [planned]).parent
    assert main(["report", f"output={sweep}"]) == 0
    cards = Page(sweep / "report" / "samples.html").of("article", **{"class": "card sample"})
    assert {(card["data-tau"], card["data-reference"]) for card in cards} == {
        ("500", f"shapes/{REFERENCES[0]}"),
        ("1000", f"shapes/{REFERENCES[0]}"),
    }


@pytest.mark.parametrize(("words", "folder"), [([], "out"), (["-m", "tau=0"], "out/sweeps/*")])
def test_a_job_and_a_sweep_end_with_their_report_on_demand(
    words, folder, base, jobs, quiet, monkeypatch, tmp_path
):
    written = []
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(command, "write_report", lambda paths, place, _: written.append((paths, place)))
    assert run([*words, *base, "dry_run=true", "report=true"]) == 0
    assert written == []
    assert run([*words, *base, "report=true"]) == 0
    ((paths, place),) = written
    assert [path.resolve() for path in paths] == [path.resolve() for path in tmp_path.glob(folder)]
    assert place == paths[0] / "report"
    # A process that does a task of a sweep leaves the report to the sweep.
    monkeypatch.setenv(VARIABLE, str(tmp_path / "sweep"))
    command.report_jobs([load([*base, "report=true"])])
    assert len(written) == 1


def test_a_report_that_is_not_possible_is_no_failure_of_the_jobs(base, jobs, quiet, capsys):
    assert run([*base, "report=true"]) == 0
    assert "no report: " in capsys.readouterr().err
