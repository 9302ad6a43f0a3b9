"""Finding the videos that another system made: all must be there, and each as long as it should be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from motionexp.cli import main
from motionexp.data.base import Edit
from motionexp.data.external_videos import check_lengths, find_videos
from motionexp.data.videos import write_png
from motionexp.errors import InputError
from tests.support.made_videos import encode
from tests.support.squares import Squares

FRAMES = np.arange(4 * 16 * 16 * 3, dtype=np.uint8).reshape(4, 16, 16, 3)


def write_frames(folder: Path, count: int = 4) -> None:
    for index in range(count):
        write_png(folder / f"{index:05d}.png", FRAMES[index])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two references under a source's folder, one at the top; folders of images, and a film."""
    folder = tmp_path / "system"
    for name in ("SOURCE/one", "SOURCE/two"):
        for kind in ("style", "object"):
            write_frames(folder / name / kind)
    write_frames(folder / "three" / "style")
    encode(folder / "three" / "object.mp4", FRAMES)
    (folder / ".DS_Store").write_text("")
    return folder


def videos_in(folder: Path, names=("one", "two", "three"), kinds=None) -> list[str]:
    return [
        f"{video.reference} {video.edit.kind} {video.seed} {video.path.relative_to(folder)}"
        for video in find_videos(folder, Squares(), names, kinds)
    ]


def refused(folder: Path, **settings) -> str:
    with pytest.raises(InputError) as caught:
        videos_in(folder, **settings)
    return str(caught.value)


def test_tgve_s_layout_is_found_with_its_sources_or_without(folder):
    assert videos_in(folder, ["one"]) == ["one style 0 SOURCE/one/style", "one object 0 SOURCE/one/object"]
    assert videos_in(folder, ["three"]) == ["three style 0 three/style", "three object 0 three/object.mp4"]
    assert [line.split()[0] for line in videos_in(folder)] == ["one", "one", "two", "two", "three", "three"]
    assert videos_in(folder, ["three"], ["style"]) == ["three style 0 three/style"]
    assert find_videos(folder, Squares(), ["one"])[0].edit == Edit("style", "one red")


def test_several_samples_of_an_edit_are_numbered(folder):
    encode(folder / "three" / "style-2.webm", FRAMES, codec="libvpx-vp9")
    encode(folder / "three" / "stylish.mp4", FRAMES)
    samples = ["three style 0 three/style", "three style 2 three/style-2.webm"]
    assert videos_in(folder, ["three"], ["style"]) == samples
    encode(folder / "three" / "style.mp4", FRAMES)
    assert "three, style: two videos of seed 0" in refused(folder)


def test_everything_that_is_missing_is_named(folder):
    (folder / "three" / "object.mp4").unlink()
    (folder / "SOURCE" / "two").rename(folder / "SOURCE" / "to")
    error = refused(folder)
    assert "reference two: no folder two" in error
    assert "object: missing" in error
    write_frames(folder / "OTHER" / "one" / "style")
    assert all(f"{source}/one" in refused(folder) for source in ("SOURCE", "OTHER"))
    assert "edit_kinds=[colour]" in refused(folder, kinds=["colour"])


def test_a_folder_of_something_else_is_one_line_without_torch(tmp_path, capsys, monkeypatch):
    # A module that is None in sys.modules cannot be imported.
    monkeypatch.setitem(sys.modules, "motionexp.jobs.external_system", None)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert main(["score", f"folder={tmp_path}", "data=shapes", f"output={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}: ")


def test_a_csv_names_videos_wherever_they_lie(folder):
    (folder / "videos.csv").write_text(
        "video,reference,edit,caption,seed\n"
        "three/object.mp4,two,object,,3\nthree/style,one,,one blue,\nSOURCE/one/style, one ,,a new thing,\n"
    )
    videos = find_videos(folder, Squares(), ["one", "two", "three"])
    assert [(video.path.name, video.reference, video.edit, video.seed) for video in videos] == [
        ("style", "one", Edit("object", "one blue"), 0),
        ("style", "one", Edit("caption", "a new thing"), 0),
        ("object.mp4", "two", Edit("object", "two blue"), 3),
    ]
    assert find_videos(folder / "videos.csv", Squares(), ["one", "two", "three"]) == videos
    assert len(find_videos(folder, Squares(), ["one", "two", "three"], ["object"])) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no column video and reference"),
        ("video,reference,sead\n", "unknown columns sead"),
        ("video,reference,edit\n", "no videos"),
        ("video,reference,edit\nnone.mp4,one,style\n", "line 2: there is no"),
        ("video,reference,edit\nthree/style,four,style\n", "line 2: reference 'four'"),
        ("video,reference,edit\nthree/style,one,styles\n", "line 2: which edit of one? edit is 'styles'"),
        ("video,reference,edit\nthree/style,one,\n", "line 2: which edit of one?"),
        ("video,reference,seed,edit\nthree/style,one,x,style\n", "line 2: seed is 'x'"),
        ("video,reference,caption\nthree/style,one,a, b\n", "line 2: 4 cells"),
        (
            "video,reference,edit\n" + 2 * "three/style,one,style\n",
            "line 3: three/style shows this edit in line 2",
        ),
        (
            "video,reference,edit\nthree/style,one,style\nSOURCE/one/style,one,style\n",
            "one, style: two videos of seed 0",
        ),
        ("video,reference,edit\nthree/style,one\n", "line 2: 2 cells, but 3"),
        (
            "video,reference,edit,caption\nthree/style,one,style,one blue\n",
            "line 2: its caption is that of edit 'o",
        ),
        (
            "video,reference,caption\nthree/style,one,One  blue\n",
            "line 2: its caption is that of edit 'object'",
        ),
        ("video,reference,caption\nthree/style,one,two blue\n", "line 2: its caption is of reference two"),
        ("video,reference,caption\nthree/style,one,12\n", "line 2: caption is '12'"),
        *(
            (f"video,reference,edit,seed\nthree/style,one,style,{seed}\n", f"line 2: seed is '{seed}'")
            for seed in ("1.0", "-1", "\u0663", "\u00b2", "9" * 19, "1e3", "True")
        ),
    ],
)
def test_what_is_wrong_with_the_csv_is_said(folder, text, named):
    (folder / "videos.csv").write_text(text)
    assert named in refused(folder)


def test_videos_are_as_long_as_their_references(folder):
    videos = find_videos(folder, Squares(), ["one", "three"])
    check_lengths(videos, Squares(), None)
    check_lengths(videos, Squares(), 4)
    with pytest.raises(InputError, match=r" 4 .*frames=5"):
        check_lengths(videos, Squares(), 5)
    (folder / "SOURCE" / "one" / "style" / "00003.png").unlink()
    with pytest.raises(InputError, match=r"one/style: .* 3 .* one .* 4"):
        check_lengths(videos, Squares(), None)
    for image in (folder / "SOURCE" / "one" / "style").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"one/style: .*\.png"):
        check_lengths(videos, Squares(), None)
