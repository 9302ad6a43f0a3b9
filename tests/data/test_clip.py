import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motionexp.data.base import Edit, Reference, References
from motionexp.data.clip import Clip
from motionexp.data.videos import read_frames, write_gif, write_mp4
from motionexp.errors import InputError
from tests.support.made_videos import CLIPS, needs_clips, numbered, numbers


def video(folder: Path, count: int = 24) -> Path:
    write_mp4(folder / "my dog.mp4", numbered(count), 12)
    return folder / "my dog.mp4"


def test_a_clip_is_one_reference_with_its_captions(tmp_path):
    clip: References = Clip(video(tmp_path), "a dog is running", ["a robot is running", "a “dog” 🐕"])
    assert (clip.suite, clip.names()) == ("clip", ["my-dog"])
    reference = clip.read("my-dog", 16, 16, 24)
    assert reference.frames.shape == (16, 16, 24, 3)
    assert (reference.name, reference.suite, reference.caption) == ("my-dog", "clip", "a dog is running")
    assert reference.edits == (Edit("caption", "a robot is running"), Edit("caption", "a “dog” 🐕"))
    assert reference.content_hash == clip.read("my-dog", 16, 16, 24).content_hash


@pytest.mark.parametrize(
    ("settings", "fps", "first"),
    [
        ({}, 12, [0, 1, 2]),
        ({"stride": 3}, 4, [0, 3, 6]),
        ({"fps": 6, "start": 0.5}, 6, [6, 8, 10]),
        ({"start": 0.25}, 12, [3, 4, 5]),
    ],
)
def test_settings_choose_frames_and_say_how_fast_they_are_shown(tmp_path, settings, fps, first):
    clip = Clip(video(tmp_path), "a dog", ["a cat"], **settings)
    reference = clip.read("my-dog", 3, 32, 48)
    assert reference.fps == pytest.approx(fps)
    assert numbers(reference.frames) == first


def test_a_folder_of_frames_and_a_gif_are_clips_too(tmp_path):
    folder = tmp_path / "run.1"
    folder.mkdir()
    for index, frame in enumerate(numbered(6)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    write_gif(tmp_path / "run.2.gif", numbered(6), 10)
    of_folder = Clip(folder, "a dog", ["a cat"], stride=2).read("run.1", 3, 32, 48)
    of_gif = Clip(tmp_path / "run.2.gif", "a dog", ["a cat"], stride=2).read("run.2", 3, 32, 48)
    assert np.array_equal(of_folder.frames, numbered(6)[::2])
    assert abs(of_gif.frames.astype(int) - numbered(6)[::2]).max() <= 1
    assert (of_folder.fps, of_gif.fps) == (4, 5)
    assert Clip(folder, "a dog", ["a cat"], fps=3).read("run.1", 3, 32, 48).fps == 3


def test_fit_reaches_the_reader(tmp_path):
    path = video(tmp_path)
    frames = [Clip(path, "a", ["b"], fit=fit).read("my-dog", 2, 48, 48).frames for fit in ("crop", "fit")]
    assert frames[0].min() > 10
    assert frames[1].min() == 0


def test_a_name_is_fit_for_a_path(tmp_path, monkeypatch):
    assert Clip(tmp_path / "Ünïcode & sons' (1).mp4", "a", ["b"]).names() == ["n-code-sons-1"]
    assert Clip("🐕.mp4", "a", ["b"]).names() == ["clip"]
    monkeypatch.chdir(tmp_path)
    assert Clip(".", "a", ["b"]).names() == [tmp_path.name]


@pytest.mark.parametrize(
    ("caption", "edits", "message"),
    [("a dog", [], "edits"), ("", ["a cat"], "caption"), ("a dog", ["a cat", "  "], "caption")],
)
def test_captions_must_say_something(caption, edits, message):
    with pytest.raises(InputError, match=rf"dog\.mp4: .*{message}"):
        Clip("dog.mp4", caption, edits)


def test_what_is_wrong_with_the_file_names_it(tmp_path):
    clip = Clip(video(tmp_path, count=5), "a dog", ["a cat"])
    missing = Clip(tmp_path / "none.mp4", "a dog", ["a cat"])
    for reader, name, named in (
        (clip, "my-dog", r"my dog\.mp4: .* 5 "),
        (clip, "cat", r"cat.*my-dog"),
        (missing, "none", re.escape(str(missing.path))),
    ):
        with pytest.raises(InputError, match=named):
            reader.read(name, 16, 32, 32)


def test_content_hash_covers_frames_shape_and_caption_alone():
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    base = Reference("a", "clip", frames, 8, "a dog", (Edit("caption", "a cat"),))
    assert base.content_hash == hashlib.sha256(b"(2, 4, 6, 3)" + frames.tobytes() + b"a dog").hexdigest()
    again = replace(base, name="b", suite="tgve", frames=np.asfortranarray(frames), fps=12, edits=())
    assert again.content_hash == base.content_hash
    changes = {"frames": frames ^ 1}, {"frames": frames.reshape(2, 6, 4, 3)}, {"caption": "a dog "}
    hashes = [replace(base, **change).content_hash for change in changes]
    assert len({base.content_hash, *hashes}) == 4


@pytest.mark.parametrize("wrong", [np.zeros((2, 4, 6, 3)), np.zeros((4, 6, 3), np.uint8)])
def test_a_reference_holds_uint8_rgb_videos(wrong):
    with pytest.raises(ValueError, match="reference dog"):
        Reference("dog", "clip", wrong, 8, "a dog", ())


@needs_clips
@pytest.mark.parametrize(
    ("name", "settings", "fps"),
    [("md_zoom_in_cup.gif", {}, 100 / 12), ("tav_man-skiing.mp4", {"fps": 8, "start": 0.5}, 8)],
)
def test_real_clips_become_references(name, settings, fps):
    clip = Clip(CLIPS / name, "something moves", ["something else moves"], **settings)
    reference = clip.read(clip.names()[0], 16, 64, 64)
    assert reference.frames.shape == (16, 64, 64, 3)
    assert reference.fps == pytest.approx(fps)
    assert np.array_equal(reference.frames, read_frames(CLIPS / name, frames=16, size=(64, 64), **settings))
