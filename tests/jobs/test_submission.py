"""Finished samples become TGVE's submission layout, and come back from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motionexp.config.schema import ScoreConfig
from motionexp.data.base import Edit
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.videos import read_frames
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.evaluation import Sample
from motionexp.jobs.external import score_external
from motionexp.jobs.submission import file_names, submission, write_submission, write_videos
from motionexp.results.rows import Row
from tests.support import made_output
from tests.support.made_output import FRAMES, REFERENCES, write_output
from tests.support.made_suites import KINDS, made_lines, make_tgve
from tests.support.made_sweeps import planned, write_plan
from tests.support.made_videos import moving, psnr

SOURCE = "DAVIS_480p"


def finished(
    folder: Path, name: str, kinds=KINDS, *, tau: float = 700.0, seed: int = 0, count: int = 16, **changes
) -> dict:
    """A cell with a sample of each of some of TGVE's edits; returns their frames."""
    cell, frames = Cell(folder / f"{name}-{tau:g}-{changes.get('rank', 4)}"), {}
    for number, kind in enumerate(kinds):
        edit, sample_id = Edit(kind, f"{name} by {kind}"), f"{name}{number}{seed}{tau:g}"
        frames[kind] = np.roll(moving(count), 5 * number, axis=1)
        sample = Sample(edit, seed, frames[kind], 3, 1.0, 1)
        cell.save_sample(SampleRequest(edit, seed, sample_id), sample, 8)
        row = Row(
            metric="brightness", metric_version=1, value=float(frames[kind].mean()), score_id=sample_id,
            suite="tgve", reference=name, strata={"source": SOURCE}, edit_kind=kind,
            edit_caption=edit.caption, seed=seed, sample_id=sample_id, model="latte", method="lora", tau=tau,
            steps=50, settings={"rank": 4, "learning_rate": 3e-4} | changes,
        )  # fmt: skip
        cell.add_rows([row])
    return frames


def test_samples_are_written_as_the_organisers_ask(tmp_path):
    frames = finished(tmp_path / "outputs", "dav-0")
    finished(tmp_path / "outputs", "dav-1", ["object"], count=17)
    finished(tmp_path / "outputs", "dav-0", ["style"], tau=650.0)
    assert write_submission(tmp_path / "outputs", tmp_path / "new", {"tau": "700"}) == (5, 304)
    written = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*.*")}
    assert written == {
        f"{SOURCE}/{name}/{kind}/{index:05d}.jpg"
        for name, kinds in (("dav-0", KINDS), ("dav-1", ["object"]))
        for kind in kinds
        for index in range(16)
    }
    for kind in KINDS:
        assert psnr(read_frames(tmp_path / "new" / SOURCE / "dav-0" / kind, frames=16), frames[kind]) > 35


@pytest.mark.parametrize(
    ("name", "value", "values"), [("tau", 650.0, "650, 700"), ("seed", 1, "0, 1"), ("rank", 16, "16, 4")]
)
def test_two_samples_of_one_edit_are_an_error_that_says_what_to_choose_by(tmp_path, name, value, values):
    for changes in ({}, {name: value}):
        finished(tmp_path / "outputs", "dav-0", ["style"], **changes)
    with pytest.raises(InputError, match=rf"dav-0, style.* {name} \({values}\).* {name}="):
        write_submission(tmp_path / "outputs", tmp_path / "new", {})
    assert write_submission(tmp_path / "outputs", tmp_path / "new", {name: f"{value:g}"})[0] == 1


def test_what_cannot_be_written_is_said(tmp_path):
    finished(tmp_path / "outputs", "dav-0", ["style"])
    for samples, folder, select, problem in (
        ("outputs", "new", {"tau": "1"}, "tau=1: .* 700"),
        ("outputs", "new", {"tau": "700,1"}, "tau=700,1: .* 1;"),
        ("outputs", "new", {"sead": "1"}, "sead="),
        ("outputs", "outputs", {}, "folder=.*outputs"),
        ("nothing", "new", {}, "samples=.*nothing"),
    ):
        with pytest.raises(InputError, match=problem):
            write_submission(tmp_path / samples, tmp_path / folder, select)


def test_a_submission_is_scored_as_its_samples_were(tmp_path):
    """The whole way: finished samples, the organisers' layout, and rows again, against TGVE's own videos."""
    captions = [f"dav-0 by {kind}" for kind in KINDS]
    lines = made_lines()
    lines[SOURCE][0] = ["dav-0", "it moves", *captions]
    make_tgve(tmp_path / "tgve", lines)
    samples = finished(tmp_path / "outputs", "dav-0")
    write_submission(tmp_path / "outputs", tmp_path / "new", {})
    cfg = ScoreConfig(
        data={"_target_": "motionexp.data.tgve.TGVE", "path": str(tmp_path / "tgve")},
        folder=str(tmp_path / "new"),
        frames=16,
        references=["dav-0"],
        metrics=["brightness", "flow_similarity"],
        device="cpu",
        output=str(tmp_path / "out"),
    )
    rows = {(row.edit_kind, row.metric): row for row in score_external(cfg)}
    for kind in KINDS:
        row = rows[kind, "brightness"]
        assert row.value == pytest.approx(samples[kind].mean(), abs=0.3)
        assert (row.suite, row.reference, row.model) == ("tgve", "dav-0", "new")
        assert row.strata == {"source": SOURCE}
        assert (kind, "flow_similarity") in rows
    whole = ScoreConfig(**{name: getattr(cfg, name) for name in ("data", "folder", "references", "metrics")})
    with pytest.raises(InputError, match=r"style: .* 16 .*dav-0 .* 32"):
        score_external(whole)
    Image.open(tmp_path / "new" / SOURCE / "dav-0" / "style" / "00000.jpg").verify()


def test_other_scorers_get_videos_with_their_captions_and_references(tmp_path):
    outputs, folder = tmp_path / "outputs", tmp_path / "new"
    write_output(outputs)
    with pytest.raises(InputError, match="they differ in tau"):
        write_videos(outputs, folder, {"method": "lora"})
    assert write_videos(outputs, folder, {"tau": "700"}) == 4
    names = [f"{reference}-{kind}-0.mp4" for reference in REFERENCES for kind in made_output.KINDS]
    assert sorted(path.name for path in (folder / "videos").iterdir()) == sorted(names)
    prompts = json.loads((folder / "prompts.json").read_text())
    assert prompts == {name: f"a {name.split('-')[-2]} is moving" for name in names}
    for reference in REFERENCES:
        video = read_frames(folder / "references" / f"{reference}-style-0.mp4", frames=FRAMES)
        assert psnr(video, ShapesReferences().read(reference).frames) > 35
    video = read_frames(folder / "videos" / f"{REFERENCES[0]}-style-0.mp4", frames=FRAMES)
    # That of the third cell; its texture is noise, whose colours an mp4 blurs.
    assert psnr(video, made_output.moving_square(2)) > psnr(video, made_output.moving_square(1)) + 3


def test_samples_of_one_name_get_a_number():
    keys = [("clip", "a", "caption", caption, 0) for caption in ("a cat", "a dog")]
    assert list(file_names(keys).values()) == ["a-caption-0.mp4", "a-caption-0-2.mp4"]


def test_a_layout_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="layout=vbench"):
        submission(["folder=a", "samples=b", "layout=vbench"])


def test_a_sweep_s_folder_gives_its_samples_and_the_base_model_s_beside_them(tmp_path):
    outputs = tmp_path / "outputs"
    write_output(outputs, references=REFERENCES[:1])
    cells = sorted((outputs / "shapes" / "tiny_latte").iterdir())
    (cell,) = (cell for cell in cells if "tau: 700.0" in (cell / "config.yaml").read_text())
    about = planned(0, 0) | {"cell": f"shapes/tiny_latte/{cell.name}", "reference": REFERENCES[0]}
    sweep = write_plan(outputs, [about]).parent
    assert write_videos(sweep, tmp_path / "tuned", {"tau": "700"}) == len(made_output.KINDS)
    assert write_videos(sweep, tmp_path / "base", {"tau": "1000"}) == len(made_output.KINDS)
    with pytest.raises(InputError, match=r"tau=500: .* 700, 1000"):
        write_videos(sweep, tmp_path / "new", {"tau": "500"})
