"""Files written are measured with other decoders (cv2, Pillow); files read are written by PyAV or Pillow."""

import os
import resource
import struct
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from motionexp.config import InputError
from motionexp.videos import (
    contact_sheet,
    frame_rate,
    read_frames,
    side_by_side,
    write_gif,
    write_mp4,
    write_png,
)
from motionexp.videos.grids import _font

CLIPS = Path(__file__).parents[2] / "shared/data/videos"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"real clips are not at {CLIPS}")


def moving(count: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """A coloured ball over a moving coloured wave: smooth, so that a codec can be held to a bound."""
    y, x = np.mgrid[:height, :width].astype(float)
    frames = np.empty((count, height, width, 3), np.uint8)
    for t in range(count):
        wave_ = 110 + 40 * np.sin((x + 2 * y) / 9 + t / 3)
        image = np.stack([wave_, 230 - wave_, np.full_like(x, 90)], -1)
        image[(x - 10 - 2 * t) ** 2 + (y - 30) ** 2 < 80] = (210, 60, 50)
        frames[t] = image
    return frames


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-20 * np.log10(max(np.sqrt(np.mean((one.astype(np.float32) - other) ** 2)), 1e-9) / 255))


def encode(path: Path, frames: np.ndarray, *, times=None, codec="libx264", container=None, **options) -> Path:
    """Frames at `times` (milliseconds; 8 fps by default), written without motionexp."""
    times = times or [125 * index for index in range(len(frames))]
    with av.open(path, "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=8, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbered(count: int) -> np.ndarray:
    return np.stack([np.full((32, 48, 3), 20 + 7 * index, np.uint8) for index in range(count)])


def numbers(frames: np.ndarray) -> list[int]:
    return [round(value) for value in (frames.mean((1, 2, 3)) - 20) / 7]


def with_cv2(path: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1][..., ::-1])
    return np.stack(frames)


def with_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            white = Image.new("RGBA", image.size, "white")
            frames.append(np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")))
        return np.stack(frames)


# ---- writing


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
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            durations.append(image.info["duration"])
    assert sum(durations) == 2000
    assert set(durations) == {120, 130}


def test_a_write_that_fails_keeps_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, moving(1)[0])
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"bytes were to be written.*a\.png"):
            write_png(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/a\.mp4"):
        write_mp4(tmp_path / "file/a.mp4", moving(2), 8)


@pytest.mark.parametrize(
    "wrong", [moving(2).astype(np.float32), moving(2)[0], moving(2)[..., :2], moving(2)[:0]]
)
def test_only_uint8_rgb_videos_are_written(tmp_path, wrong):
    with pytest.raises(ValueError, match="must be"):
        write_mp4(tmp_path / "a.mp4", wrong, 8)
    assert not list(tmp_path.iterdir())


# ---- sheets and grids


def test_contact_sheet_has_each_frame_in_its_place_with_white_between():
    frames = moving(5, 20, 30)
    sheet = contact_sheet(frames, columns=3)
    assert sheet.shape == (20 + 2 + 20, 30 * 3 + 2 * 2, 3)
    left = np.ones(sheet.shape[:2], bool)
    for index, frame in enumerate(frames):
        y, x = 22 * (index // 3), 32 * (index % 3)
        assert np.array_equal(sheet[y : y + 20, x : x + 30], frame)
        left[y : y + 20, x : x + 30] = False
    assert (sheet[left] == 255).all()
    assert np.array_equal(contact_sheet(frames[:1]), frames[0])


def test_side_by_side_enlarges_tiny_videos_without_smoothing_and_labels_them():
    one, other = moving(6), moving(6)[::-1]
    grid = side_by_side([("a red ball", [one, other]), ("", [other, one])], ["reference", "τ = 0"])
    assert grid.shape[0] == 6
    found = []
    for video in (one, other):
        enlarged = np.kron(video, np.ones((1, 3, 3, 1), np.uint8))
        places = [(y, x) for y in range(grid.shape[1] - 191) for x in (8, 208)]
        likely = [(y, x) for y, x in places if np.array_equal(grid[0, y, x : x + 192], enlarged[0, 0])]
        found.append(
            [(y, x) for y, x in likely if np.array_equal(grid[:, y : y + 192, x : x + 192], enlarged)]
        )
    (y1, _), (y2, _) = found[0]
    assert found == [[(y1, 8), (y2, 208)], [(y1, 208), (y2, 8)]]
    assert y2 == y1 + 192 + 8
    assert grid.shape[1:3] == (y2 + 192 + 8, 408)
    labels = grid[:, :y1]
    assert (labels == labels[:1]).all()
    assert (labels[0, :, :200] < 128).any()
    assert (labels[0, :, 208:] < 128).any()


def test_a_long_caption_takes_more_lines_and_stays_in_the_grid():
    video = moving(2)
    words = "a red striped ball is moving in a wide circle over the sand "
    heights = [side_by_side([(text, [video])], ["base"]).shape[1] for text in ("a ball", words, words * 3)]
    assert heights[0] < heights[1] < heights[2]
    label_only = side_by_side([(words * 3, [video])], ["base"])[0]
    assert (label_only[:, 200:] == 255).all()


def test_the_font_knows_tau():
    missing = bytes(_font().getmask("\U0010fffe"))
    assert bytes(_font().getmask("τ")) not in (missing, bytes(_font().getmask(" ")))


def test_a_grid_of_unlike_videos_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        side_by_side([("", [moving(4), moving(5)])], ["a", "b"])
    with pytest.raises(ValueError, match="2 videos"):
        side_by_side([("", [moving(4)])], ["a", "b"])


# ---- reading: which frames


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "ffv1"), ("a.gif", "gif")]
)
def test_every_container_gives_every_frame_in_order(tmp_path, name, codec):
    if codec == "gif":
        write_gif(tmp_path / name, numbered(20), 10)
    else:
        encode(tmp_path / name, numbered(20), times=[100 * i for i in range(20)], codec=codec)
    assert numbers(read_frames(tmp_path / name, frames=20)) == list(range(20))
    assert frame_rate(tmp_path / name) == pytest.approx(10)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"stride": 3}, [0, 3, 6, 9]),
        ({"start": 0.5}, [4, 5, 6, 7]),
        ({"start": 0.51}, [5, 6, 7, 8]),
        ({"start": 0.5, "stride": 2}, [4, 6, 8, 10]),
        ({"fps": 4}, [0, 2, 4, 6]),
        ({"fps": 8, "start": 0.25}, [2, 3, 4, 5]),
        ({"fps": 2.9}, [0, 3, 6, 8]),
    ],
)
def test_start_stride_and_fps_choose_frames(tmp_path, settings, expected):
    path = encode(tmp_path / "a.mp4", numbered(20))
    assert numbers(read_frames(path, frames=4, **settings)) == expected


@pytest.mark.parametrize(("start", "fps", "count"), [(0, 8, 20), (0.3, 5, 11), (0.07, 3.7, 9), (1.0, 2, 3)])
def test_fps_takes_the_frame_nearest_in_time_of_a_variable_rate(tmp_path, start, fps, count):
    times = [0, 100, 133, 200, 600, 640, 700, 1200, 1500, 1510, 1600, 2500, 2600]
    path = encode(tmp_path / "a.webm", numbered(13), times=times, codec="libvpx-vp9")
    seconds = np.array(times) / 1000
    wanted = start + np.arange(count) / fps
    nearest = [int(np.abs(seconds - time).argmin()) for time in wanted]
    assert numbers(read_frames(path, frames=count, start=start, fps=fps)) == nearest


def test_a_first_frame_that_is_not_at_zero_starts_the_clip(tmp_path):
    path = encode(tmp_path / "a.mkv", numbered(12), times=[5000 + 125 * index for index in range(12)])
    assert numbers(read_frames(path, frames=4, start=0.25, fps=4)) == [2, 4, 6, 8]
    assert numbers(read_frames(path, frames=3, start=0.25, stride=3)) == [2, 5, 8]


def test_the_last_frame_is_on_screen_until_its_end(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(8))
    assert numbers(read_frames(path, frames=1, start=0.99, fps=8)) == [7]
    with pytest.raises(InputError, match="gives 8"):
        read_frames(path, frames=9, fps=8)


def test_more_frames_a_second_than_there_are_is_an_error(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(20))
    with pytest.raises(InputError, match="fps=12 would show frames twice; the clip has 8 a second"):
        read_frames(path, frames=16, fps=12)
    assert len(read_frames(path, frames=16, fps=8.2)) == 16


# ---- reading: pixels


def test_crop_fills_the_size_and_fit_shows_everything(tmp_path):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :10], image[:, 10:30], image[:, 30:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    folder = tmp_path / "frames"
    write_png(folder / "1.png", image)
    crop = read_frames(folder, frames=1, size=(40, 40), fit="crop")[0]
    assert (abs(crop[:, 2:-2].astype(int) - (0, 250, 0)) < 8).all()
    fit = read_frames(folder, frames=1, size=(40, 40), fit="fit")[0]
    assert (fit[:9] == 0).all()
    assert (fit[-9:] == 0).all()
    assert np.array_equal(fit[10:30], image)
    assert read_frames(folder, frames=1, size=(10, 40)).shape == (1, 10, 40, 3)
    assert np.array_equal(read_frames(folder, frames=1, size=(20, 40))[0], image)


def test_shrinking_averages_and_does_not_pick_pixels(tmp_path):
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
    content[at : at + 36] = struct.pack(
        ">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30
    )
    path.write_bytes(content)
    upright = read_frames(path, frames=3)
    assert psnr(upright, np.rot90(frames, turn // 90, axes=(1, 2))) > 25
    assert psnr(upright, with_cv2(path)) > 35


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
    parts += [
        (int(rng.integers(25)), int(rng.integers(18)), rng.integers(1, 4, (12, 15)), disposal)
        for disposal in (1, 3, 2, 1, 2, 3, 3, 2, 1)
    ]
    raw_gif(tmp_path / "a.gif", parts)
    colours = np.array([*PALETTE[:3], (255, 255, 255)], np.uint8)
    canvas, expected = np.full((30, 40), 3), []
    for x, y, indices, disposal in parts:
        area, before = (slice(y, y + len(indices)), slice(x, x + indices.shape[1])), canvas.copy()
        canvas[area] = np.where(indices == 3, canvas[area], indices)
        expected.append(colours[canvas])
        if disposal == 2:
            canvas[area] = 3
        if disposal == 3:
            canvas = before
    assert np.array_equal(read_frames(tmp_path / "a.gif", frames=len(parts)), np.stack(expected))


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
    assert frame_rate(tmp_path) is None


# ---- reading: what is wrong


def test_what_is_no_video_is_refused(tmp_path):
    text, playlist = tmp_path / "text.mp4", tmp_path / "list.mp4"
    text.write_text("not a video at all\n" * 50)
    encode(tmp_path / "real.mp4", numbered(4))
    playlist.write_text("ffconcat version 1.0\nfile real.mp4\n")
    (tmp_path / "none.mp4").write_bytes(b"")
    for path in (text, playlist, tmp_path / "none.mp4"):
        with pytest.raises(InputError, match=rf"{path.name}: no video that can be read"):
            read_frames(path, frames=4)
    with pytest.raises(InputError, match=r"missing\.mp4: cannot be read \(No such file"):
        read_frames(tmp_path / "missing.mp4", frames=4)


def test_a_sound_file_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    with pytest.raises(InputError, match="holds no video"):
        read_frames(tmp_path / "a.wav", frames=4)


def test_a_truncated_mp4_is_refused_even_where_the_frames_asked_for_are_there(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    last = encode(tmp_path / "header_last.mp4", noise)
    first = encode(tmp_path / "header_first.mp4", noise, container={"movflags": "faststart"})
    for path in (last, first):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match="or one cut short"):
        read_frames(last, frames=4)
    with pytest.raises(
        InputError, match=r"cut short; its header lists 24 frames, and \d+ of them lie behind"
    ):
        read_frames(first, frames=4)


@pytest.mark.parametrize(
    ("codec", "damaged"), [("libx264", 12), ("libx264", 23), ("libx264", 0), ("mpeg4", 12)]
)
def test_a_damaged_frame_is_refused_and_named(tmp_path, codec, damaged):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", noise, codec=codec, bf="0")
    with av.open(path) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    position, size = places[damaged]
    content = bytearray(path.read_bytes())
    content[position + size // 3 : position + size] = bytes(size - size // 3)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"frame {damaged} (cannot be decoded|is damaged)"):
        read_frames(path, frames=damaged + 1)
    if damaged:
        assert len(read_frames(path, frames=damaged)) == damaged


def test_a_webm_that_ends_early_is_refused_with_both_counts(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.webm", noise, codec="libvpx-vp9", deadline="realtime")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"it has 1\d frames .*header says 24: it may be cut short"):
        read_frames(path, frames=24)


def test_a_truncated_gif_is_refused(tmp_path):
    write_gif(tmp_path / "a.gif", moving(), 8)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content + bytes(7))
    assert len(read_frames(tmp_path / "a.gif", frames=16)) == 16
    (tmp_path / "a.gif").write_bytes(content[:-40])
    with pytest.raises(InputError, match=r"a\.gif: is cut short"):
        read_frames(tmp_path / "a.gif", frames=4)


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (1, {}, r"16 frames are asked for, and it has 1 frame in 0\.125 s; take a longer clip"),
        (
            20,
            {"stride": 2},
            r"16 frames are asked for, and it has 20 frames in 2\.5 s, of which stride=2 gives 10",
        ),
        (20, {"start": 1.0}, r"it has 20 frames in 2\.5 s, of which start=1 gives 12"),
        (20, {"fps": 5, "start": 0.5}, r"of which start=0\.5 fps=5 gives 10"),
        (20, {"start": 9.0}, r"of which start=9 gives 0"),
    ],
)
def test_too_few_frames_are_counted(tmp_path, count, settings, message):
    path = encode(tmp_path / "a.mp4", numbered(count))
    with pytest.raises(InputError, match=message):
        read_frames(path, frames=16, **settings)


def test_a_folder_with_nothing_to_read_or_too_little_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        read_frames(tmp_path, frames=4)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="holds no images"):
        read_frames(tmp_path, frames=4)
    for index, frame in enumerate(numbered(3)):
        write_png(tmp_path / f"{index}.png", frame)
    with pytest.raises(InputError, match="4 frames are asked for, and it has 3 images; take a longer clip"):
        read_frames(tmp_path, frames=4)
    with pytest.raises(InputError, match="give fps= too"):
        read_frames(tmp_path, frames=2, start=0.5)


def test_images_of_two_sizes_are_both_named(tmp_path):
    write_png(tmp_path / "1.png", np.zeros((20, 30, 3), np.uint8))
    write_png(tmp_path / "2.png", np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(InputError, match=r"1\.png is 30 x 20 and 2\.png is 31 x 20 pixels"):
        read_frames(tmp_path, frames=2, size=(8, 8))


def test_an_image_that_is_damaged_or_none_is_named(tmp_path):
    write_png(tmp_path / "1.png", moving(1)[0])
    content = (tmp_path / "1.png").read_bytes()
    for wrong in (content[: len(content) // 2], b"text", b""):
        (tmp_path / "2.png").write_bytes(wrong)
        with pytest.raises(InputError, match=r"2\.png: no image that can be read"):
            read_frames(tmp_path, frames=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 4, "stride": 2}, "give one"),
        ({"stride": 0}, "stride=0; it must be at least 1"),
        ({"frames": 0}, "frames=0"),
        ({"start": -1}, "start=-1"),
        ({"fps": 0}, "fps=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"fit": "squeeze"}, "it must be crop or fit"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, settings, message):
    path = encode(tmp_path / "a.mp4", numbered(4))
    with pytest.raises(InputError, match=message):
        read_frames(path, **{"frames": 2, **settings})


def test_a_4k_video_is_shrunk_frame_by_frame(tmp_path):
    """16 frames of 3840 x 2160 are 380 MiB as RGB; the reader's process may grow by far less."""
    frame = np.zeros((2160, 3840, 3), np.uint8)
    frame[:, :1920] = 200
    path = encode(tmp_path / "a.mp4", np.broadcast_to(frame, (16, *frame.shape)), codec="mpeg4")
    script = (
        "import resource, sys; from motionexp.videos import read_frames\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); frames = read_frames(sys.argv[1], frames=16, size=(64, 64))\n"
        "print(peak() - before)\n"
        "assert frames.shape == (16, 64, 64, 3) and abs(frames[:, :, 4:28].mean() - 200) < 4"
    )
    grown = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert int(grown.stdout) < 200


# ---- real clips


@needs_clips
@pytest.mark.parametrize(
    ("name", "count", "rate"),
    [("md_car-turn_16f_480x480.mp4", 16, 8), ("tav_man-skiing.mp4", 91, 30000 / 1001)],
)
def test_real_mp4s_are_read_as_cv2_reads_them(name, count, rate):
    stride = count // 6
    frames = read_frames(CLIPS / name, frames=6, stride=stride)
    assert psnr(frames, with_cv2(CLIPS / name)[::stride][:6]) > 40
    assert frame_rate(CLIPS / name) == pytest.approx(rate)


@needs_clips
def test_a_real_gif_is_read_as_pillow_reads_it():
    path = CLIPS / "md_zoom_in_cup.gif"
    assert abs(read_frames(path, frames=16).astype(np.int16) - with_pillow(path)).max() <= 1


@needs_clips
def test_a_real_folder_is_read_and_resized():
    frames = read_frames(CLIPS / "vmc_sharks_swimming_8f", frames=8, size=(256, 256))
    expected = [
        cv2.imread(str(CLIPS / f"vmc_sharks_swimming_8f/{index}.jpg"))[..., ::-1] for index in range(1, 9)
    ]
    middle = [cv2.resize(image[:, 65:415], (256, 256), interpolation=cv2.INTER_AREA) for image in expected]
    assert psnr(frames, np.stack(middle)) > 30


@needs_clips
def test_a_real_clip_survives_mp4(tmp_path):
    frames = read_frames(CLIPS / "tav_man-skiing.mp4", frames=16, fps=8, size=(256, 256))
    write_mp4(tmp_path / "a.mp4", frames, 8)
    assert psnr(frames, with_cv2(tmp_path / "a.mp4")) > 34
