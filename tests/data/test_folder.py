"""A folder of videos with captions as CSV, YAML or JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image

from motionexp.data.base import Edit, References
from motionexp.data.folder import VideoFolder
from motionexp.errors import InputError
from tests.support.made_videos import CLIPS, encode, needs_clips, numbered, numbers

CSV = """video,caption,object,style,start,stride
dog.mp4,"a dog, running","a robot, running",,,2
runs/cat.webm, a cat ,,a painted cat,0.5,

birds,birds fly,planes fly,painted birds,,
"""
ENTRIES = [
    {"video": "dog.mp4", "caption": "a dog, running", "edits": {"object": "a robot, running"}, "stride": 2},
    {"video": "runs/cat.webm", "caption": "a cat", "edits": {"style": "a painted cat"}, "start": 0.5},
    {"video": "birds", "caption": "birds fly", "edits": {"object": "planes fly", "style": "painted birds"}},
]


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "my videos"
    (folder / "runs").mkdir(parents=True)
    encode(folder / "dog.mp4", numbered(20))
    encode(folder / "runs" / "cat.webm", numbered(20), codec="libvpx-vp9")
    (folder / "birds").mkdir()
    for index, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(folder / "birds" / f"{index}.png")
    return folder


def refused(folder: Path, **settings) -> str:
    with pytest.raises(InputError) as caught:
        VideoFolder(folder, **settings).names()
    return str(caught.value)


@pytest.mark.parametrize("form", ["csv", "yaml", "json"])
def test_every_form_says_the_same(folder, form):
    text = {"csv": CSV, "yaml": yaml.safe_dump(ENTRIES), "json": json.dumps(ENTRIES)}[form]
    (folder / f"captions.{form}").write_text(text)
    reader: References = VideoFolder(folder)
    assert reader.names() == ["dog", "runs-cat", "birds"]
    assert [reader.describe(name).frames for name in reader.names()] == [20, 20, 12]
    assert reader.describe("birds").edits == (Edit("object", "planes fly"), Edit("style", "painted birds"))
    dog, cat, birds = (reader.read(name, 4, 32, 48) for name in reader.names())
    assert (dog.caption, dog.edits) == ("a dog, running", (Edit("object", "a robot, running"),))
    assert (cat.caption, cat.edits) == ("a cat", (Edit("style", "a painted cat"),))
    assert numbers(np.stack([video.frames[-1] for video in (dog, cat, birds)])) == [6, 7, 3]
    assert (dog.suite, dog.name, dog.fps, dog.strata) == ("folder", "dog", 4, {"folder": "my videos"})


def test_a_list_of_captions_is_of_kind_caption(folder):
    (folder / "captions.json").write_text(json.dumps([ENTRIES[0] | {"edits": ["a robot", "a cow"]}]))
    assert VideoFolder(folder).describe("dog").edits == (Edit("caption", "a robot"), Edit("caption", "a cow"))


def test_a_rate_for_all_gives_way_to_what_a_video_says(folder):
    (folder / "captions.csv").write_text(CSV)
    reader = VideoFolder(folder, fps=4)
    assert numbers(reader.read("runs-cat", 3, 32, 48).frames) == [4, 6, 8]
    assert numbers(reader.read("dog", 3, 32, 48).frames) == [0, 2, 4]
    assert VideoFolder(folder, fps=8).read("birds", 4, 32, 48).fps == 8
    # At 4 a second, from 0.5 s, 8 of the 20 frames; every second one of 20.
    assert [reader.long_enough("runs-cat", count) for count in (8, 9)] == [True, False]
    assert [reader.long_enough("dog", count) for count in (10, 11)] == [True, False]


def test_the_captions_may_lie_elsewhere(folder, tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    assert len(VideoFolder(folder, tmp_path / "mine.csv").names()) == 3
    assert "has no captions.csv" in refused(folder)
    for name in ("captions.csv", "captions.json"):
        (folder / name).write_text(CSV)
    assert "has captions.csv and captions.json" in refused(folder)
    assert "data=folder needs data.path=" in refused(None)  # type: ignore[arg-type]
    assert "none: there is no such folder" in refused(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("video;caption\ndog.mp4;a dog", "no column video and caption; its first row is video;caption"),
        ("video,caption,object", "lists no videos"),
        ("video,caption,a,a\ndog.mp4,x,y,z", "two columns are called a"),
        ("video,caption,object\ndog.mp4,a dog, running,a cow", "line 2: 4 cells"),
        ("video,caption,object\ncow.mp4,a cow,a dog", "line 2: there is no cow.mp4 in"),
        ("video,caption,object\ndog.mp4,,a cow", "line 2: caption is None"),
        ("video,caption,object,start\ndog.mp4,a dog,a cow,soon", "start is 'soon'"),
        ("video,caption,a\ndog.mp4,x,y\ndog.mp4,x,z", "line 3: dog.mp4 stands at line 2 too"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(folder, text, named):
    (folder / "captions.csv").write_text(text)
    assert named in refused(folder)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"dog.mp4": "a dog"}, "it must be a list of videos"),
        ([ENTRIES[0] | {"edit": "a cow"}], "video 1: unknown edit"),
        ([ENTRIES[0] | {"edits": "a cow"}], "edits must be a list of captions"),
        ([ENTRIES[0] | {"edits": {"object": 3}}], "video 1: edit object is 3"),
        ([ENTRIES[0] | {"edits": []}], "no edits"),
        ([ENTRIES[0] | {"stride": 1.5}], "stride is 1.5"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(folder, content, named):
    (folder / "captions.json").write_text(json.dumps(content))
    assert named in refused(folder)
    (folder / "captions.json").write_text(json.dumps(content)[:-1])
    assert "captions.json, line 1, column" in refused(folder)


def test_a_damaged_video_and_a_wrong_name_are_named(folder):
    (folder / "captions.csv").write_text(CSV)
    (folder / "dog.mp4").write_bytes((folder / "dog.mp4").read_bytes()[:900])
    with pytest.raises(InputError, match=r"dog\.mp4"):
        VideoFolder(folder).read("dog", 4, 32, 48)
    with pytest.raises(InputError, match=r"'cow'.* dog, runs-cat, birds"):
        VideoFolder(folder).read("cow", 4, 32, 48)


@needs_clips
def test_real_clips_become_references(tmp_path):
    names = ["md_car-turn_16f_480x480.mp4", "md_zoom_in_cup.gif", "vmc_sharks_swimming_8f"]
    entries = [{"video": name, "caption": "it moves", "edits": ["else"]} for name in names]
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    reader = VideoFolder(CLIPS, tmp_path / "captions.json")
    assert [reader.describe(name).frames for name in reader.names()] == [16, 16, 8]
    for name in reader.names():
        assert reader.read(name, 8, 64, 64).frames.std() > 20
