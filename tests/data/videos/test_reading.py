"""Which frames are read and with what pixels; the files are written by PyAV or Pillow."""

import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from motionexp.data.videos import frame_count, frame_rate, read_frames, taken_count, write_gif, write_png
from motionexp.errors import InputError
from tests.support import made_videos
from tests.support.made_videos import CLIPS, encode, moving, needs_clips, numbered, numbers, psnr


def check_most(path, **settings):
    """As many frames as are counted are read, and no more."""
    most = taken_count(path, **settings)
    assert len(read_frames(path, frames=most, **settings)) == most
    with pytest.raises(InputError, match=f": {most + 1} "):
        read_frames(path, frames=most + 1, **settings)


def test_every_container_gives_every_frame_in_order(tmp_path):
    times = [100 * index for index in range(20)]
    write_gif(tmp_path / "a.gif", numbered(20), 10)
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "ffv1")):
        encode(tmp_path / name, numbered(20), times=times, codec=codec)
    for path in tmp_path.iterdir():
        assert numbers(read_frames(path, frames=20)) == list(range(20)), path
        assert (frame_rate(path), frame_count(path)) == (pytest.approx(10), 20), path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"start": 0.51}, [5, 6, 7, 8]),
        ({"start": 0.5, "stride": 2}, [4, 6, 8, 10]),
        ({"fps": 8, "start": 0.25}, [2, 3, 4, 5]),
        ({"fps": 2.9}, [0, 3, 6, 8]),
    ],
)
def test_start_stride_and_fps_choose_frames(tmp_path, settings, expected):
    path = encode(tmp_path / "a.mp4", numbered(20))
    assert numbers(read_frames(path, frames=4, **settings)) == expected
    check_most(path, **settings)


def test_a_first_frame_that_is_not_at_zero_starts_the_clip(tmp_path):
    path = encode(tmp_path / "a.mkv", numbered(12), times=[5000 + 125 * index for index in range(12)])
    assert numbers(read_frames(path, frames=4, start=0.25, fps=4)) == [2, 4, 6, 8]
    assert numbers(read_frames(path, frames=3, start=0.25, stride=3)) == [2, 5, 8]
    check_most(path, start=0.25, stride=3)
    assert taken_count(path, start=2) == taken_count(path, start=2, fps=4) == 0


def test_the_last_frame_is_on_screen_until_its_end_and_none_comes_twice(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(20))
    assert numbers(read_frames(path, frames=1, start=2.49, fps=8)) == [19]
    check_most(path, fps=8)
    with pytest.raises(InputError, match=r"fps=12 .* 8 "):
        read_frames(path, frames=16, fps=12)
    assert len(read_frames(path, frames=16, fps=8.2)) == 16


def test_a_sound_track_is_passed_over(tmp_path):
    silent, sounding = encode(tmp_path / "silent.mp4", numbered(20)), tmp_path / "sounding.mp4"
    with av.open(silent) as source, av.open(sounding, "w") as file:
        # The sound comes first, lasts longer, and has packets between those of the pictures.
        sound = file.add_stream("aac", rate=16000, layout="mono")
        pictures = file.add_stream_from_template(source.streams.video[0])
        for index in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate, frame.pts = 16000, 1024 * index
            file.mux(sound.encode(frame))
        file.mux(sound.encode())
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                file.mux(packet)
    assert numbers(read_frames(sounding, frames=20)) == list(range(20))
    assert numbers(read_frames(sounding, frames=4, start=0.5, fps=4)) == [4, 6, 8, 10]
    assert (frame_count(sounding), frame_rate(sounding)) == (20, pytest.approx(8))


# ---- pixels


def test_crop_fills_the_size_and_fit_shows_everything(tmp_path):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :10], image[:, 10:30], image[:, 30:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    folder = tmp_path / "frames"
    write_png(folder / "1.png", image)
    crop = read_frames(folder, frames=1, size=(40, 40), fit="crop")[0]
    assert (abs(crop[:, 2:-2].astype(int) - (0, 250, 0)) < 8).all()
    fit = read_frames(folder, frames=1, size=(40, 40), fit="fit")[0]
    assert not fit[:9].any()
    assert not fit[-9:].any()
    assert np.array_equal(fit[10:30], image)
    assert read_frames(folder, frames=1, size=(10, 40)).shape == (1, 10, 40, 3)
    assert np.array_equal(read_frames(folder, frames=1, size=(20, 40))[0], image)
    # Shrinking averages and does not pick pixels.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    write_png(tmp_path / "f/1.png", stripes)
    small = read_frames(tmp_path / "f", frames=1, size=(8, 8)).astype(int)
    assert (abs(small - 127) < 8).all()


@pytest.mark.parametrize(("quarters", "turn"), [(0, 0), (1, 270), (2, 180), (3, 90)])
def test_a_turned_video_is_turned_upright(tmp_path, quarters, turn):
    frames = moving(3, 32, 48)
    path = encode(tmp_path / "a.mp4", frames, crf="8")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    matrix = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    content[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    upright = read_frames(path, frames=3)
    assert psnr(upright, np.rot90(frames, turn // 90, axes=(1, 2))) > 25
    assert psnr(upright, made_videos.with_cv2(path)) > 35


PALETTE = [(30, 60, 90), (250, 20, 80), (20, 200, 60), (0, 0, 0)]


def raw_gif(path: Path, parts: list[tuple[int, int, np.ndarray, int]]) -> None:
    """A GIF byte by byte, 40 x 30: parts are x, y, indices into PALETTE (3 paints nothing) and disposal."""
    out = b"GIF89a" + struct.pack("<HHBBB", 40, 30, 0xF6, 0, 0) + bytes(sum(PALETTE, ())) + bytes(3 * 124)
    for x, y, indices, disposal in parts:
        height, width = indices.shape
        out += b"!\xf9\x04" + struct.pack("<BHBB", disposal << 2 | 1, 12, 3, 0)
        out += b"," + struct.pack("<HHHHB", x, y, width, height, 0) + b"\x07"
        # Codes stay 8 bits wide where the table is cleared (128) before it is full.
        flat = indices.astype(np.uint8).tobytes()
        for start in range(0, len(flat), 100):
            block = b"\x80" + flat[start : start + 100] + (b"\x81" if start + 100 >= len(flat) else b"")
            out += bytes([len(block)]) + block
        out += b"\0"
    path.write_bytes(out + b";")


def test_gif_frames_are_put_together_as_their_disposal_says(tmp_path):
    rng = np.random.default_rng(0)
    parts = [(0, 0, np.zeros((30, 40), int), 1)]
    for disposal in (1, 3, 2, 1, 2, 3, 3, 2, 1):
        parts.append((int(rng.integers(25)), int(rng.integers(18)), rng.integers(1, 4, (12, 15)), disposal))
    raw_gif(tmp_path / "a.gif", parts)
    expected = made_videos.with_pillow(tmp_path / "a.gif")
    assert np.array_equal(read_frames(tmp_path / "a.gif", frames=len(parts)), expected)


def test_images_of_every_mode_become_rgb(tmp_path):
    grey = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8)
    colour = np.stack([grey, 255 - grey, grey // 2], -1)
    half = np.full((20, 30, 1), 128, np.uint8)
    palette = Image.fromarray(np.zeros((20, 30), np.uint8), mode="P")
    palette.putpalette([10, 20, 30])
    images = {
        "1.png": (Image.fromarray(grey), np.stack([grey] * 3, -1)),
        "2.png": (Image.fromarray(np.concatenate([colour, half], -1)), (colour / 2 + 127).astype(np.uint8)),
        "3.png": (Image.fromarray(np.stack([grey, np.zeros_like(grey)], -1)), np.full((20, 30, 3), 255)),
        "4.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.stack([grey] * 3, -1)),
        "5.png": (palette, np.full((20, 30, 3), (10, 20, 30))),
        "6.png": (Image.fromarray(grey > 100), np.stack([(grey > 100) * 255] * 3, -1)),
    }
    for name, (image, _) in images.items():
        image.save(tmp_path / name)
    read = read_frames(tmp_path, frames=6)
    for index, (_, expected) in enumerate(images.values()):
        assert abs(read[index].astype(int) - expected).max() <= 2, index


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    pixels = moving(1, 20, 30)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    assert np.array_equal(read_frames(tmp_path, frames=1)[0], np.rot90(pixels, -1))


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for index, frame in enumerate(numbered(12)):
        write_png(tmp_path / f"frame{index + 1}.png", frame)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._frame1.png").write_text("no image")
    assert numbers(read_frames(tmp_path, frames=12)) == list(range(12))
    assert numbers(read_frames(tmp_path, frames=4, stride=3)) == [0, 3, 6, 9]
    assert numbers(read_frames(tmp_path, frames=4, start=0.5, fps=8)) == [4, 5, 6, 7]
    check_most(tmp_path, stride=5)
    check_most(tmp_path, start=0.5, fps=8)
    assert (frame_rate(tmp_path), frame_count(tmp_path)) == (None, 12)


# ---- real clips


@needs_clips
@pytest.mark.parametrize(
    ("name", "count", "rate"),
    [("md_car-turn_16f_480x480.mp4", 16, 8), ("tav_man-skiing.mp4", 91, 30000 / 1001)],
)
def test_real_mp4s_are_read_as_cv2_reads_them(name, count, rate):
    stride = count // 6
    frames = read_frames(CLIPS / name, frames=6, stride=stride)
    assert psnr(frames, made_videos.with_cv2(CLIPS / name)[::stride][:6]) > 40
    assert frame_rate(CLIPS / name) == pytest.approx(rate)


@needs_clips
def test_a_real_gif_is_read_as_pillow_reads_it():
    path = CLIPS / "md_zoom_in_cup.gif"
    assert abs(read_frames(path, frames=16).astype(np.int16) - made_videos.with_pillow(path)).max() <= 1


@needs_clips
def test_a_real_folder_is_read_and_resized():
    frames = read_frames(CLIPS / "vmc_sharks_swimming_8f", frames=8, size=(256, 256))
    images = [cv2.imread(str(CLIPS / f"vmc_sharks_swimming_8f/{index}.jpg")) for index in range(1, 9)]
    middle = [cv2.resize(image[:, 65:415], (256, 256), interpolation=cv2.INTER_AREA) for image in images]
    assert psnr(frames, np.stack(middle)[..., ::-1]) > 30
