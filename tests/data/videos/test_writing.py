"""Files written are measured with other decoders: cv2 and Pillow."""

import os
import re
import resource
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from motionexp.data.videos import read_frames, write_gif, write_mp4, write_png
from tests.support.made_videos import CLIPS, moving, needs_clips, psnr, with_cv2, with_pillow


def test_png_is_exact(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    write_png(tmp_path / "new/folder/a.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new/folder/a.png")), image)


def test_mp4_is_near_the_source_as_another_decoder_sees_it(tmp_path):
    frames = moving()
    write_mp4(tmp_path / "a.mp4", frames, 8)
    again = with_cv2(tmp_path / "a.mp4")
    assert again.shape == frames.shape
    assert psnr(frames, again) > 32
    assert psnr(np.roll(frames, 1, 0), again) < 25
    flat = np.full((4, 64, 64, 3), (200, 40, 60), np.uint8)
    write_mp4(tmp_path / "flat.mp4", flat, 8)
    assert abs(with_cv2(tmp_path / "flat.mp4").astype(int) - flat).max() <= 3


def test_mp4_is_what_every_player_takes_and_says_its_rate_and_colours(tmp_path):
    write_mp4(tmp_path / "a.mp4", moving(12), 29.97)
    with av.open(tmp_path / "a.mp4") as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(2997, 100)
        assert stream.frames == 12
        frame = next(file.decode(stream))
        assert (frame.colorspace, frame.color_range) == (5, 1)


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 65), (33, 47)])
def test_mp4_of_odd_size_gains_a_copy_of_its_last_row_or_column(tmp_path, height, width):
    frames = moving(4, height, width)
    write_mp4(tmp_path / "a.mp4", frames, 8)
    again = with_cv2(tmp_path / "a.mp4")
    assert again.shape == (4, height + height % 2, width + width % 2, 3)
    assert psnr(frames, again[:, :height, :width]) > 32
    assert psnr(again[:, height - 1], again[:, -1]) > 32
    assert psnr(again[:, :, width - 1], again[:, :, -1]) > 32


def test_gif_keeps_frames_times_and_colours(tmp_path):
    frames = moving()
    write_gif(tmp_path / "a.gif", frames, 8)
    assert psnr(frames, with_pillow(tmp_path / "a.gif")) > 40
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert (sum(durations), set(durations)) == (2000, {120, 130})


def test_a_write_that_fails_keeps_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, moving(1)[0])
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.png"):
            write_png(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]
    with pytest.raises(OSError, match=r"a\.png/b\.mp4"):
        write_mp4(path / "b.mp4", moving(2), 8)


@pytest.mark.parametrize("wrong", [moving(2) / 255, moving(2)[0], moving(2)[..., :2], moving(2)[:0]])
def test_only_uint8_rgb_videos_are_written(tmp_path, wrong):
    with pytest.raises(ValueError, match=re.escape(f"{wrong.shape} {wrong.dtype}")):
        write_mp4(tmp_path / "a.mp4", wrong, 8)
    assert not list(tmp_path.iterdir())


@needs_clips
def test_a_real_clip_survives_mp4(tmp_path):
    frames = read_frames(CLIPS / "tav_man-skiing.mp4", frames=16, fps=8, size=(256, 256))
    write_mp4(tmp_path / "a.mp4", frames, 8)
    assert psnr(frames, with_cv2(tmp_path / "a.mp4")) > 34
