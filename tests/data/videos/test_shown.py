"""What a player shows of a file is read: compared with FFmpeg's own filters and with closed forms."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image

from motionexp.data.videos import decoding, frame_count, frame_rate, read_frames, taken_count
from motionexp.errors import InputError
from tests.support.made_videos import encode, moving, numbered, numbers, psnr

VARIABLE = [0, 100, 133, 200, 600, 640, 700, 1200, 1500, 1510, 1600, 2500, 2600]


def filtered(path, *filters):
    """All frames (F, H, W, 3) of a file behind FFmpeg's filters; no other code reads the display matrix."""
    with av.open(path) as file:
        stream, graph = file.streams.video[0], Graph()
        nodes = [graph.add_buffer(template=stream), *(graph.add(*step) for step in filters)]
        graph.link_nodes(*nodes, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
        frames = []
        for frame in [*file.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    frames.append(graph.pull().to_ndarray())
                except (BlockingIOError, av.EOFError):
                    break
    return np.stack(frames)


def encoded(path, frames, pixel_format, codec="libx264", **fields):
    """VideoFrames, in the codec's own pixel format; `fields` are of the codec, as sample_aspect_ratio."""
    options = fields.pop("options", {})
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=8, options=options)
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, pixel_format
        for name, value in fields.items():
            setattr(stream.codec_context, name, value)
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, 8)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def with_matrix(path, a, b, c, d):
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


# ---- times


@pytest.mark.parametrize(("start", "fps"), [(0, 8), (0.3, 5), (0.07, 3.7), (1.0, 2)])
def test_fps_takes_the_frame_on_screen_of_a_variable_rate(tmp_path, start, fps):
    path = encode(tmp_path / "a.webm", numbered(13), times=VARIABLE, codec="libvpx-vp9")
    shown = numbers(
        filtered(path, ("setpts", f"PTS-{start}/TB"), ("fps", f"fps={fps}:round=up:start_time=0"))
    )
    count = taken_count(path, start=start, fps=fps)
    assert numbers(read_frames(path, frames=count, start=start, fps=fps)) == shown[:count]
    with pytest.raises(InputError, match="frames are asked for"):
        read_frames(path, frames=count + 1, start=start, fps=fps)


def test_a_held_frame_is_held_to_its_end(tmp_path):
    times = [0, 125, 250, 2250, 2375, 2500]
    path = encode(tmp_path / "a.mkv", numbered(6), times=times, codec="ffv1")
    expected = [0, 1, *[2] * 16, 3, 4, 5]
    assert taken_count(path, fps=8) == len(expected)
    assert numbers(read_frames(path, frames=21, fps=8)) == expected
    # Only the held frame is taken; the rest of the file says that 8 a second is not too much.
    assert numbers(read_frames(path, frames=8, fps=8, start=0.5)) == [2] * 8
    assert (frame_count(path), frame_rate(path)) == (6, 2)


def test_a_gif_s_durations_are_its_times(tmp_path):
    images = [Image.fromarray(frame) for frame in numbered(4)]
    durations = [100, 500, 100, 1000]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=durations)
    assert taken_count(tmp_path / "a.gif", fps=10) == 17
    assert numbers(read_frames(tmp_path / "a.gif", frames=17, fps=10)) == [0, *[1] * 5, 2, *[3] * 10]


def stream_copy(source, target, **options):
    """Copies packets, those of the first second before the begin."""
    with av.open(source) as old, av.open(target, "w", options=options) as new:
        video = old.streams.video[0]
        copied, second = new.add_stream_from_template(video), int(1 / video.time_base)
        for packet in old.demux(video):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - second, packet.dts - second, copied
                new.mux(packet)


def test_frames_before_a_cut_are_not_counted(tmp_path):
    source = encode(tmp_path / "whole.mp4", numbered(24), g="24", bf="2")
    stream_copy(source, tmp_path / "cut.mp4", use_editlist="1", avoid_negative_ts="disabled")
    path = tmp_path / "cut.mp4"
    with av.open(path) as file:
        assert sum(packet.is_discard for packet in file.demux(video=0)) == 8
    assert (frame_count(path), frame_rate(path), taken_count(path, fps=4)) == (16, 8, 8)
    assert numbers(read_frames(path, frames=16)) == list(range(8, 24))
    assert numbers(read_frames(path, frames=2, start=1)) == [16, 17]
    with pytest.raises(InputError, match=r"it has 16 frames in 2 s; take"):
        read_frames(path, frames=17)


def test_frames_behind_the_end_of_a_cut_are_not_counted(tmp_path):
    path = encode(tmp_path / "a.mp4", numbered(24), g="24", bf="2")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12
    # The one entry of the edit list lasts 3,000 thousandths of a second; now one second.
    assert content[place : place + 4] == struct.pack(">I", 3000)
    content[place : place + 4] = struct.pack(">I", 1000)
    path.write_bytes(content)
    assert (frame_count(path), taken_count(path, fps=4)) == (8, 4)
    assert numbers(read_frames(path, frames=8)) == list(range(8))


def test_a_hidden_frame_of_vp8_is_not_counted(tmp_path):
    source = encode(tmp_path / "a.webm", numbered(8), codec="libvpx", **{"auto-alt-ref": "0"})
    with av.open(source) as old, av.open(tmp_path / "b.webm", "w") as new:
        copied = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(old.demux(video=0)):
            if packet.dts is None:
                continue
            content = bytes(packet)
            hidden = av.Packet(bytes([content[0] & 0xEF]) + content[1:])
            hidden.pts, hidden.dts, hidden.time_base = packet.pts + 60, packet.dts + 60, packet.time_base
            packet.stream = hidden.stream = copied
            new.mux(packet)
            if index == 3:
                new.mux(hidden)
    assert frame_count(tmp_path / "b.webm") == len(read_frames(tmp_path / "b.webm", frames=8)) == 8


@pytest.mark.parametrize(
    ("name", "codec", "options", "most"),
    [
        ("a.mp4", "libx264", {"g": "6", "x264-params": "open-gop=1"}, 9),
        ("b.mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=6:bframes=0"}, 20),
        ("c.webm", "libvpx-vp9", {"g": "6"}, 9),
        ("d.ts", "libx264", {"g": "6"}, 9),
        ("e.gif", "gif", {}, 20),
    ],
)
def test_a_late_start_gives_the_frames_of_decoding_from_the_first(
    tmp_path, name, codec, options, most, monkeypatch
):
    """With `most` checked frames at the most: one for the times, and those from the keyframe before."""
    pictures = np.repeat(moving(1, 48, 64), 20, axis=0)
    # A square on a picture that stays: a decoder that misses a frame before shows another picture.
    for index in range(20):
        pictures[index, 8:24, 2 * index : 2 * index + 16] = 250 - 10 * index
    pixel_format = "rgb8" if codec == "gif" else "yuv420p"
    frames = [
        av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
        for picture in pictures
    ]
    path = encoded(tmp_path / name, frames, pixel_format, codec, options=options)
    every = read_frames(path, frames=20)
    for index in range(20):
        assert np.array_equal(read_frames(path, frames=1, start=index / 8)[0], every[index]), index
    assert np.array_equal(read_frames(path, frames=3, start=1.5, fps=4), every[12:18:2])
    checked = []
    monkeypatch.setattr(decoding._Clip, "check", lambda clip, frame: checked.append(frame.pts))
    read_frames(path, frames=1, start=19 / 8)
    assert 0 < len(checked) <= most + 1


def test_a_late_start_in_an_animated_png_keeps_what_was_painted_before(tmp_path):
    pictures = np.repeat(moving(1, 48, 64), 12, axis=0)
    for index in range(12):
        pictures[index, 8:24, : 4 * index + 4] = 250
    images = [Image.fromarray(picture) for picture in pictures]
    # Pillow stores the rectangle alone that changes.
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=125)
    assert np.array_equal(read_frames(tmp_path / "a.png", frames=12), pictures)
    assert np.array_equal(read_frames(tmp_path / "a.png", frames=2, start=1.25), pictures[10:])


# ---- pixels


@pytest.mark.parametrize("ratio", [Fraction(2), Fraction(16, 15), Fraction(1, 2)])
def test_pixels_become_square(tmp_path, ratio):
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in moving(2, 64, 96)]
    path = encoded(tmp_path / "a.mp4", frames, "yuv420p", sample_aspect_ratio=ratio, options={"crf": "8"})
    expected = filtered(path, ("scale", f"{round(96 * ratio)}:ih:flags=bicubic"))
    assert psnr(read_frames(path, frames=2), expected) > 33
    # A turned picture is widened before it is turned.
    turned = read_frames(with_matrix(path, 0, 1 << 16, -1 << 16, 0), frames=2)
    assert psnr(turned, np.rot90(expected, -1, axes=(1, 2))) > 33


def test_a_ratio_that_rounding_made_changes_nothing(tmp_path):
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in moving(2, 64, 96)]
    path = encoded(tmp_path / "a.mp4", frames, "yuv420p", sample_aspect_ratio=Fraction(1280, 1281))
    assert read_frames(path, frames=2).shape == (2, 64, 96, 3)


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "filters"),
    [
        ((-ONE, 0, 0, ONE), [("hflip",)]),
        ((ONE, 0, 0, -ONE), [("vflip",)]),
        ((0, ONE, ONE, 0), [("transpose", "cclock_flip")]),
        ((0, -ONE, -ONE, 0), [("transpose", "clock_flip")]),
        ((0, ONE, -ONE, 0), [("transpose", "clock")]),
    ],
)
def test_a_mirrored_or_turned_picture_is_shown_upright(tmp_path, matrix, filters):
    path = encode(tmp_path / "a.mp4", moving(2, 32, 48))
    expected = filtered(path, *filters)
    assert psnr(read_frames(with_matrix(path, *matrix), frames=2), expected) > 45


@pytest.mark.parametrize("matrix", [(46341, 46341, -46341, 46341), (0, 0, 0, 0), (ONE, ONE // 9, 0, ONE)])
def test_another_turn_is_refused(tmp_path, matrix):
    path = with_matrix(encode(tmp_path / "a.mp4", moving(2, 32, 48)), *matrix)
    with pytest.raises(InputError, match=r"a\.mp4: its display matrix"):
        frame_count(path)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("b.webm", "libvpx", "yuva420p"),
        ("c.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_white_is_behind_what_is_transparent(tmp_path, name, codec, pixel_format):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[8:24, 8:24] = (30, 200, 60, 255)
    frames = [
        av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format) for _ in range(4)
    ]
    options = {"crf": "10", "auto-alt-ref": "0"} if "vpx" in codec else {"profile": "4444"}
    read = read_frames(encoded(tmp_path / name, frames, pixel_format, codec, options=options), frames=4)
    assert (read[:, 2, 40] > 250).all()
    assert abs(read[:, 16, 16].astype(int) - (30, 200, 60)).max() < 12


def hdr_file(path, red, green, blue, *, curve, matrix=9, primaries=9):
    """Two frames of one colour, R'G'B' from 0 to 1, in 10 bits of BT.2020 with limited range."""
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    codes = (64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746)
    frames = [av.VideoFrame(64, 48, "yuv420p10le") for _ in range(2)]
    for frame in frames:
        for plane, code in zip(frame.planes, codes, strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(code), np.uint16).tobytes())
    fields = {"color_trc": curve, "color_primaries": primaries, "colorspace": matrix}
    return encoded(path, frames, "yuv420p10le", "ffv1", **fields)


@pytest.mark.parametrize(
    ("curve", "colour", "expected"),
    [
        # BT.2408: 203 nits are 58% of PQ and 75% of HLG; 26 nits, 18% grey, are 38% of both.
        (16, (0.58, 0.58, 0.58), (255, 255, 255)),
        (18, (0.75, 0.75, 0.75), (255, 255, 255)),
        (16, (0.38, 0.38, 0.38), (100, 100, 100)),
        (18, (0.38, 0.38, 0.38), (100, 100, 100)),
        (16, (0.9, 0.9, 0.9), (255, 255, 255)),
        (16, (0.0, 0.0, 0.0), (0, 0, 0)),
        # BT.709's red of 203 nits in BT.2020: light of 0.6274, 0.0691 and 0.0164.
        (16, (0.5314, 0.3218, 0.2014), (255, 0, 0)),
    ],
)
def test_hdr_becomes_sdr_with_white_at_203_nits(tmp_path, curve, colour, expected):
    path = hdr_file(tmp_path / "a.mkv", *colour, curve=curve)
    assert abs(read_frames(path, frames=1)[0].reshape(-1, 3).astype(int) - expected).max() <= 4


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"curve": 8}, "linear light"),
        ({"curve": 1, "matrix": 8}, "YCgCo"),
        ({"curve": 16, "matrix": 14}, "ICtCp"),
        ({"curve": 18, "primaries": 12}, "primaries"),
    ],
)
def test_colours_that_are_not_supported_are_named(tmp_path, fields, named):
    path = hdr_file(tmp_path / "a.mkv", 0.5, 0.5, 0.5, **fields)
    with pytest.raises(InputError, match=rf"a\.mkv: .*{named}.*ffmpeg -i a\.mkv"):
        taken_count(path)


# ---- what is no single film


def test_interlaced_frames_are_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", moving(4), flags="+ildct+ilme", **{"x264-params": "interlaced=1"})
    with pytest.raises(InputError, match=r"a\.mp4: its frames are interlaced.* -vf bwdif"):
        frame_count(path)


def animation(path: Path) -> Path:
    images = [Image.fromarray(frame) for frame in numbered(4)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    return path


def test_animations_are_read_or_named(tmp_path):
    assert numbers(read_frames(animation(tmp_path / "a.png"), frames=4)) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"a\.webp: an animated WebP"):
        frame_count(animation(tmp_path / "a.webp"))
    (tmp_path / "frames").mkdir()
    (tmp_path / "a.webp").rename(tmp_path / "frames/1.webp")
    with pytest.raises(InputError, match=r"1\.webp: an animation"):
        read_frames(tmp_path / "frames", frames=1)


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (["00000.jpg", "00000.png"], r"00000\.jpg and 00000\.png"),
        (["00000.jpg", "00000_mask.png"], r"00000\.jpg and 00000_mask\.png"),
        (["img_1.jpg", "img_2.jpg", "flow_1.jpg"], r"flow_1\.jpg and img_1\.jpg"),
        (["1.png", "01.png"], r"01\.png and 1\.png"),
        (["1_0.png", "1_1.png", "2_0.png", "2_1.png"], r"1_0\.png to 2_1\.png"),
        (["1.png", "cover.png"], r"1\.png and cover\.png"),
    ],
)
def test_a_folder_of_two_sequences_is_refused(tmp_path, names, doubt):
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for read in (frame_count, lambda path: read_frames(path, frames=1)):
        with pytest.raises(InputError, match=doubt):
            read(tmp_path)


def test_a_time_beside_the_number_leaves_one_order(tmp_path):
    for name, frame in zip(["a_9_900ms.png", "a_10_1000ms.png", "a_11_1100ms.png"], numbered(3), strict=True):
        Image.fromarray(frame).save(tmp_path / name)
    assert numbers(read_frames(tmp_path, frames=3)) == [0, 1, 2]
