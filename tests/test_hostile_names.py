"""Every reader and every writer with names that would lead out of a folder, are no names, or are too long."""

import csv
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionexp.data.base import Edit, Reference
from motionexp.data.clip import Clip
from motionexp.data.davis import DAVIS
from motionexp.data.external_videos import find_videos
from motionexp.data.folder import VideoFolder
from motionexp.data.tgve import TGVE
from motionexp.data.videos import write_png
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.evaluation import Sample
from motionexp.jobs.plan import CellPlan
from motionexp.jobs.submission import write_submission
from motionexp.results.rows import append_rows
from tests.support.hostile_names import HOSTILE_NAMES
from tests.support.made_rows import made_row
from tests.support.made_suites import write_table
from tests.support.squares import Squares

# What a file of text can hold.
TEXTS = [name for name in HOSTILE_NAMES if name.isprintable() or name in ("new\nline", "nul\0byte")]
TEXTS = [name for name in TEXTS if name.encode(errors="replace").decode() == name]
FRAMES = np.zeros((2, 16, 16, 3), np.uint8)


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def read_or_refuse(read) -> None:
    """Any other error would be a traceback."""
    with suppress(InputError):
        read()


# readers


@pytest.mark.parametrize("name", TEXTS)
def test_readers_take_a_name_or_refuse_it(name, tmp_path):
    write_table(tmp_path, {"DAVIS_480p": [[name, *"abcde"]]})
    read_or_refuse(TGVE(tmp_path).names)
    prompts = {"caption": "a", "subject": "b", "scene": "c", "frame_range": [0, 2, 1]}
    (tmp_path / "JPEGImages" / "480p").mkdir(parents=True)
    (tmp_path / "prompts.json").write_text(json.dumps([{"video": name, **prompts}]))
    read_or_refuse(DAVIS(tmp_path, tmp_path / "prompts.json").names)
    for file, columns in (
        ("captions.csv", ["video", "caption", "edit"]),
        ("videos.csv", ["video", "reference"]),
    ):
        with (tmp_path / file).open("w", newline="") as table:
            csv.writer(table).writerows([columns, [name, "one", "two"][: len(columns)], [name, name]])
    read_or_refuse(VideoFolder(tmp_path).names)
    read_or_refuse(lambda: find_videos(tmp_path, Squares(), ["one"]))
    read_or_refuse(lambda: find_videos(tmp_path / "JPEGImages", Named(name), [name]))
    read_or_refuse(Clip(tmp_path / "x", "a", ["b"]).names)


class Named(Squares):
    """The suite of squares with one reference of another name."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        return replace(super().read("one", frames, height, width), name=self.name)


def test_clips_have_names_of_a_bounded_length():
    (first,), (second,) = (Clip(f"/a/{'x' * 246}{end}.mp4", "a", ["b"]).names() for end in "yz")
    assert first != second
    assert max(len(first), len(second)) <= 120


# writers


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_cell_and_its_grid_stay_in_their_folder(name, tmp_path):
    cell = Cell(tmp_path / "out" / "cell")
    for suffix in (".npz", ".mp4", ".series.json"):
        request = SampleRequest(Edit(name, "a"), 0, name)
        path = cell.sample_path(request, suffix)
        assert path.resolve().parent == cell.media.resolve()
        assert len(path.name) < 240
    reference = Named(name).read(name, 4, 16, 16)
    plan = CellPlan(reference, (reference,), 0, (), cell, (), {}, (("base", cell, ()),))
    write_png(tmp_path / "out" / "grids" / f"{plan.grid_name}.png", FRAMES[0])
    (grid,) = everything(tmp_path)
    assert grid.parent == tmp_path / "out" / "grids"


def test_grids_of_two_clips_of_one_name_are_two(tmp_path):
    reference = Squares().read("one", 4, 16, 16)
    cells = [Cell(tmp_path / name) for name in ("a", "b")]
    requests = [(SampleRequest(Edit("style", "a"), 0, cell.folder.name),) for cell in cells]
    names = {
        CellPlan(reference, (), 0, (), cell, (), {}, (("base", cell, shown),)).grid_name
        for cell, shown in zip(cells, requests, strict=True)
    }
    assert len(names) == 2


@pytest.mark.parametrize("field", ["reference", "source", "sample_id"])
def test_a_submission_of_somebody_s_rows_writes_nothing_elsewhere(field, tmp_path):
    for name in TEXTS:
        names = {"reference": "bear", "source": "DAVIS_480p", "sample_id": "a"} | {field: name}
        cell = Cell(tmp_path / "samples" / "cell")
        edit = Edit("style", "a")
        request = SampleRequest(edit, 0, names["sample_id"])
        if not cell.has_sample(request):
            cell.save_sample(request, Sample(edit, 0, FRAMES, 1, 1.0, 1), 8)
        row = made_row(
            suite="tgve",
            reference=names["reference"],
            strata={"source": names["source"]},
            sample_id=names["sample_id"],
            edit_caption="a",
        )
        (cell.folder / "rows.jsonl").unlink(missing_ok=True)
        append_rows(cell.folder / "rows.jsonl", [row])
        before = everything(tmp_path)
        new = tmp_path / f"new {TEXTS.index(name)}"
        if field == "sample_id" and name:
            assert write_submission(tmp_path / "samples", new, {})[0] == 1
            assert {path.parent for path in everything(tmp_path) - before} == {
                new / "DAVIS_480p" / "bear" / "style"
            }
        else:
            with pytest.raises(InputError):
                write_submission(tmp_path / "samples", new, {})
            assert everything(tmp_path) == before


def test_a_folder_of_samples_that_is_a_link_is_read_and_its_target_not_written_to(tmp_path):
    cell, edit = Cell(tmp_path / "elsewhere" / "cell"), Edit("style", "a")
    cell.save_sample(SampleRequest(edit, 0, "a"), Sample(edit, 0, FRAMES, 1, 1.0, 1), 8)
    cell.add_rows([made_row(suite="tgve", reference="bear", strata={"source": "DAVIS_480p"}, sample_id="a")])
    (tmp_path / "samples").symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path / "elsewhere")
    write_submission(tmp_path / "samples", tmp_path / "new", {})
    assert everything(tmp_path / "elsewhere") == before
    assert len(everything(tmp_path / "new")) == len(FRAMES)
