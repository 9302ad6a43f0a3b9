"""Pictures that samples begin with: files, the captions' file of a folder, and settings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.data.folder import VideoFolder
from motionexp.data.select import check_source, make_reader
from motionexp.data.videos import read_image, write_mp4
from motionexp.errors import InputError
from motionexp.jobs.references import read_references

SIZE = 16, 32


def picture(path: Path, size: tuple[int, int] = SIZE, **settings: Any) -> Path:
    """A picture of which the left half is red."""
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[:, : size[1] // 2] = 200, 10, 10
    Image.fromarray(pixels).save(path, **settings)
    return path


def test_a_picture_is_upright_on_white_and_of_the_videos_size(tmp_path: Path) -> None:
    plain = read_image(picture(tmp_path / "a.png"), SIZE)
    assert plain.shape == (*SIZE, 3)
    assert plain[0, 0].tolist() == [200, 10, 10]
    assert read_image(picture(tmp_path / "b.png", (64, 128)), SIZE)[8, 30].tolist() == [90, 90, 90]
    # A camera held sideways: it says that the picture has to be turned by 90 degrees.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(picture(tmp_path / "c.png", (32, 16), exif=exif), SIZE)
    assert turned[0, 0].tolist() == turned[0, -1].tolist() == [200, 10, 10]
    assert turned[-1, 0].tolist() == [90, 90, 90]
    Image.new("RGBA", SIZE[::-1], (10, 20, 30, 0)).save(tmp_path / "d.png")
    assert (read_image(tmp_path / "d.png", SIZE) == 255).all()


def test_an_aspect_is_the_videos_to_one_percent(tmp_path: Path) -> None:
    assert read_image(picture(tmp_path / "a.png", (100, 201)), SIZE).shape == (*SIZE, 3)
    with pytest.raises(InputError, match=r"203 x 100.*32 x 16.*200 x 100"):
        read_image(picture(tmp_path / "b.png", (100, 203)), SIZE)
    with pytest.raises(InputError, match=r"40 x 32.*40 x 20"):
        read_image(picture(tmp_path / "c.png", (32, 40)), SIZE)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("a picture")
    whole = picture(tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "half.png", "absent.png", "x" * 300, "."):
        with pytest.raises(InputError, match="image"):
            read_image(tmp_path / name, SIZE)


def suite(folder: Path, content: str | list[Any]) -> VideoFolder:
    """A folder of two videos and two pictures, with a captions' file."""
    for name in ("cat", "dog"):
        write_mp4(folder / f"{name}.mp4", np.zeros((5, *SIZE, 3), np.uint8), 8)
    picture(folder / "a.png")
    Image.new("RGB", SIZE[::-1], "blue").save(folder / "b.png")
    for old in folder.glob("captions.*"):
        old.unlink()
    if isinstance(content, str):
        (folder / "captions.csv").write_text(content)
    else:
        (folder / "captions.json").write_text(json.dumps(content))
    return VideoFolder(folder)


CSV = """video,caption,object,object image,style,image
cat.mp4,a cat,a fox,b.png,a cat in oil,a.png
dog.mp4,a dog,a wolf,,,
"""
LISTED = [
    {
        "video": "cat.mp4",
        "caption": "a cat",
        "image": "a.png",
        "edits": {"object": {"caption": "a fox", "image": "b.png"}, "style": "a cat in oil"},
    },
    {"video": "dog.mp4", "caption": "a dog", "edits": {"object": {"caption": "a wolf"}}},
]


@pytest.mark.parametrize("content", [CSV, LISTED], ids=["csv", "json"])
def test_each_edit_of_a_folder_may_have_an_image(tmp_path: Path, content: str | list[Any]) -> None:
    reader = suite(tmp_path, content)
    fox, oil = reader.read("cat", 5, *SIZE).edits
    assert fox.image is not None
    assert oil.image is not None
    assert (fox.kind, fox.caption, fox.image.name) == ("object", "a fox", "b.png")
    assert (oil.kind, oil.caption, oil.image.name) == ("style", "a cat in oil", "a.png")
    assert fox.image.pixels[0, 0].tolist() == [0, 0, 255]
    assert [edit.image for edit in reader.read("dog", 5, *SIZE).edits] == [None]
    # Described without decoding, they are named too.
    assert [edit.image and edit.image.name for edit in reader.describe("cat").edits] == ["b.png", "a.png"]


WRONG = {
    "a picture that is not there": (CSV.replace("b.png", "c.png"), "line 2.*c.png"),
    "a picture without an edit": (CSV.replace("a fox", ""), "line 2.*object"),
    "a column without an edit's": (CSV.replace("object image", "subject image"), "subject image"),
    "a picture out of the folder": (CSV.replace("b.png", "../b.png"), "line 2.*below the folder"),
    "a picture of another root": (CSV.replace("b.png", "/b.png"), "line 2.*below the folder"),
    "a video out of the folder": (CSV.replace("cat.mp4", "x/../../cat.mp4"), "line 2.*below the folder"),
    "no text": ([LISTED[0] | {"image": 3}], "image is 3"),
    "another key": ([LISTED[0] | {"edits": {"object": {"caption": "a fox", "picture": "b.png"}}}], "picture"),
    "no caption": ([LISTED[0] | {"edits": {"object": {"image": "b.png"}}}], "edit object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_images_of_a_folder_are_named(tmp_path: Path, case: str) -> None:
    content, named = WRONG[case]
    with pytest.raises(InputError, match=named):
        suite(tmp_path, content).names()


def test_a_picture_of_another_aspect_in_a_folder_is_named(tmp_path: Path) -> None:
    reader = suite(tmp_path, CSV)
    picture(tmp_path / "b.png", (32, 32))
    image = reader.read("cat", 5, *SIZE).edits[0].image  # whose video can be scored all the same
    assert image is not None
    with pytest.raises(InputError, match=r"b.png: 32 x 32"):
        _ = image.pixels


def test_a_plan_without_a_model_reads_the_pictures_of_a_suite(tmp_path: Path) -> None:
    suite(tmp_path, CSV)
    write_mp4(tmp_path / "cat.mp4", np.zeros((17, *SIZE, 3), np.uint8), 8)
    source = ["data=folder", f"data.path={tmp_path}", "references=[cat]", "frames=17"]
    cfg = load([*source, "model=wan_i2v_14b"])
    with pytest.raises(InputError, match=r"b.png: 32 x 16 pixels.*832 x 480"):
        read_references(cfg, make_reader(cfg.data), decode=False)
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, (480, 832))
    (cat,) = read_references(cfg, make_reader(cfg.data), decode=False)
    assert [edit.pixels.shape for edit in cat.edits if edit.pixels is not None] == [(480, 832, 3)] * 2


def words(tmp_path: Path, *more: str) -> list[str]:
    write_mp4(tmp_path / "clip.mp4", np.zeros((17, *SIZE, 3), np.uint8), 8)
    picture(tmp_path / "a.png", (480, 832))
    about = [f"video={tmp_path}/clip.mp4", "caption=a cat", 'edits=["a dog"]', "frames=17"]
    return [*about, f"output={tmp_path}/out", *more]


def test_settings_of_an_image_are_checked_without_torch(tmp_path: Path) -> None:
    image = f"image={tmp_path}/a.png"
    cfg = load(words(tmp_path, "model=wan_i2v_14b", image))
    check_source(cfg)
    for more, named in (
        (("model=wan_1_3b", image), "image=.*wan_1_3b"),
        (("model=wan_i2v_14b",), "image=: model=wan_i2v_14b"),
        (("model=wan2_2_i2v_14b", "image=absent.png"), "image=absent.png"),
        (("model=wan_i2v_14b", "image=a.png, b.png"), r'image=\'choice\("a.png","b.png"\)\''),
        (("model=wan_1_3b", "adapter=a,b"), r'adapter=\'choice\("a","b"\)\''),
        (("model=wan_i2v_14b", "probe=linear_probe"), "probe=linear_probe: model=wan_i2v_14b"),
    ):
        with pytest.raises(InputError, match=named):
            load(words(tmp_path, *more))
    square = load(words(tmp_path, "model=wan_i2v_14b", image, "model.width=480"))
    with pytest.raises(InputError, match=r"832 x 480 pixels.*480 x 480"):
        check_source(square)
    probed = load(words(tmp_path, "model=wan_i2v_14b", image, "probe=inversion"))
    with pytest.raises(InputError, match=r"image=: .*probe=inversion"):
        check_effects([(probed, {"image"})])
