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
        ("video,caption,a\ndog.mp4,x,y\nruns/../dog.mp4,x,z", "line 3: runs/../dog.mp4 stands at line 2"),
        ("video;caption\ndog.mp4;a dog", "it has semicolons between its cells"),
        ("video\tcaption\ndog.mp4\ta dog", "it has tabs between its cells"),
        ("dog.mp4,a dog,a cow", "no column video and caption; its first row is dog.mp4, a dog, a cow"),
        ("", "no column video and caption; its first row is empty"),
        ("video,caption,object\n\ndog.mp4,a dog", "line 3: 2 cells, but 3 in the first row"),
        ("video,caption,a\ndog.mp4,x,y\nvideo,caption,a\nbirds,x,y", "line 3: the first row again"),
        ('video,caption,a\ndog.mp4,"x,y\nbirds,x,y\n', "line 2: cannot be read as CSV"),
        ('video,caption,a\ndog.mp4,"x,y\nbirds,x",y', "line 2: a quote that opens here closes on line 3"),
        ('video,caption,a\ndog.mp4,"x" y,z\n', "line 2: cannot be read as CSV"),
        ("video,caption,a,\ndog.mp4,x,y,z", "line 2: z stands in a column without a name"),
        ("video,caption,a,A\ndog.mp4,x,y,z", "two columns are called a"),
        ("video,caption,a,Start\ndog.mp4,x,y,1", "column Start: write start"),
        ("video,caption,a\ndog.mp4,12.5,y", "line 2: caption is '12.5', which has no letter"),
        ("video,caption,a\ndog.mp4,x,7", "line 2: edit a is '7', which has no letter"),
        ("video,caption,a,b\ndog.mp4,x,y,Y ", "line 2: 2 edits are 'y'"),
        ("video,caption,a\ndog.mp4,a  dog,A dog", "line 2: edit a repeats the caption"),
        (f"video,caption,{'a' * 61}\ndog.mp4,x,y", "line 2: the kind of an edit is 'aaa"),
        (f"video,caption,a\ndog.mp4,{'x' * 6000},y", "line 2: caption has 6000 characters"),
        (f"video,caption,a\ndog.mp4,{'x' * 1_000_000},y", "line 2: cannot be read as CSV"),
        (f"video,caption,a\n{'x' * 300}.mp4,x,y", "line 2: there is no xxx"),
        ("video,caption,a\ndog.mp4,x\x07,y", "line 2: caption is 'x\\x07'"),
        ("video,caption,a\ndog.mp4,caf\ufffd,y", "line 2: caption is 'caf\ufffd'"),
        *(
            (f"video,caption,a,{key}\ndog.mp4,x,y,{value}", f"line 2: {key} is '{value}'")
            for key, value in (
                *(("stride", "0"), ("stride", "2.0"), ("start", "-1"), ("start", "nan"), ("start", "1_0")),
                *(("fps", "0"), ("fps", "inf"), ("fps", "1e9"), ("start", "\u0663"), ("start", "1:30")),
            )
        ),
        ("video,caption,a,fps,stride\ndog.mp4,x,y,8,2", "line 2: fps and stride"),
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
        ([ENTRIES[0], "dog.mp4"], "video 2: it is 'dog.mp4'"),
        ([ENTRIES[0] | {"edits": 5}], "video 1: edits must be a list of captions"),
        ([ENTRIES[0] | {"edits": {"": "a cow"}}], "video 1: the kind of an edit is ''"),
        ([ENTRIES[0] | {"edits": [None]}], "video 1: edit caption is None"),
        ([ENTRIES[0] | {"edits": [["a cow"]]}], "video 1: edit caption is ['a cow']"),
        ([ENTRIES[0] | {"edits": ["a cow", "a cow"]}], "video 1: 2 edits are 'a cow'"),
        ([ENTRIES[0] | {"caption": True}], "video 1: caption is True"),
        ([ENTRIES[0] | {"video": 3}], "video 1: video is 3"),
        ([ENTRIES[0] | {"start": True}], "video 1: start is True"),
        ([ENTRIES[0] | {"start": [1] * 10**5}], "video 1: start is [1, 1"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(folder, content, named):
    (folder / "captions.json").write_text(json.dumps(content))
    assert named in refused(folder)
    (folder / "captions.json").write_text(json.dumps(content)[:-1])
    assert "captions.json, line 1, column" in refused(folder)


def test_what_yaml_takes_for_something_else_is_named(folder):
    def with_caption(text: str) -> str:
        (folder / "captions.yaml").write_text(f"- {{video: dog.mp4, caption: {text}, edits: [a cow]}}")
        return refused(folder)

    assert "video 1: caption is False" in with_caption("no")
    assert "video 1: caption is None" in with_caption("")
    assert "video 1: caption is '12:30'" in with_caption("12:30")
    assert "video 1: caption is '2024-01-01'" in with_caption("2024-01-01")
    assert "line 1, column 32: the key caption stands twice" in with_caption("a, caption: b")


def test_names_that_meet_are_named(folder):
    for name in ("runs-cat.webm", "Dog.mp4", "dog.gif"):
        encode(folder / name, numbered(4)) if name == "Dog.mp4" else (folder / name).write_bytes(b"")
    for first, second in (("runs/cat.webm", "runs-cat.webm"), ("dog.mp4", "Dog.mp4"), ("dog.mp4", "dog.gif")):
        (folder / "captions.csv").write_text(f"video,caption,a\n{first},x,y\n{second},x,y")
        assert "line 3: it and line 2 are both called" in refused(folder)


def test_thousands_of_problems_are_cut_short(folder):
    rows = "".join(f"no-{number}.mp4,x,y\n" for number in range(5_000))
    (folder / "captions.csv").write_text("video,caption,a\n" + rows)
    error = refused(folder)
    assert error.splitlines()[-1] == "... and 4992 more"
    assert len(error) < 3000


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
