"""What cannot be read is refused with its name; what is large is read in bounded memory."""

import resource
import struct
import subprocess
import sys
import wave
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from motionexp.data.videos import frame_count, frame_rate, read_frames, taken_count, write_gif, write_png
from motionexp.errors import InputError
from tests.support.made_videos import encode, moving, noise, numbered


def test_what_is_no_video_is_refused(tmp_path):
    text, playlist = tmp_path / "text.mp4", tmp_path / "list.mp4"
    text.write_text("not a video at all\n" * 50)
    encode(tmp_path / "real.mp4", numbered(4))
    playlist.write_text("ffconcat version 1.0\nfile real.mp4\n")
    (tmp_path / "none.mp4").write_bytes(b"")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    for path in (text, playlist, tmp_path / "none.mp4", tmp_path / "sound.wav"):
        with pytest.raises(InputError, match=path.name):
            read_frames(path, frames=4)
    with pytest.raises(InputError, match=r"missing\.mp4"):
        read_frames(tmp_path / "missing.mp4", frames=4)


def test_a_truncated_mp4_is_refused_even_where_the_frames_asked_for_are_there(tmp_path):
    last = encode(tmp_path / "header_last.mp4", noise())
    first = encode(tmp_path / "header_first.mp4", noise(), container={"movflags": "faststart"})
    for path in (last, first):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=last.name):
        read_frames(last, frames=4)
    with pytest.raises(InputError, match=rf"{first.name}: .* 24 .* \d+ "):
        read_frames(first, frames=4)


@pytest.mark.parametrize(("codec", "damaged"), [("libx264", 23), ("libx264", 0), ("mpeg4", 12)])
def test_a_damaged_frame_is_refused_and_named(tmp_path, codec, damaged):
    path = encode(tmp_path / "a.mp4", noise(), codec=codec, bf="0")
    with av.open(path) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    position, size = places[damaged]
    content = bytearray(path.read_bytes())
    content[position + size // 3 : position + size] = bytes(size - size // 3)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"frame {damaged} "):
        read_frames(path, frames=damaged + 1)
    if damaged:
        assert len(read_frames(path, frames=damaged)) == damaged


def test_a_webm_that_ends_early_is_refused_with_both_counts(tmp_path):
    path = encode(tmp_path / "a.webm", noise(), codec="libvpx-vp9", deadline="realtime")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"a\.webm: .* 1\d .* 24\b"):
        read_frames(path, frames=24)


def test_a_webm_that_is_cut_short_is_refused_whatever_is_asked_for(tmp_path):
    path = encode(tmp_path / "a.webm", noise(), codec="libvpx-vp9", deadline="realtime")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"a\.webm: is cut short"):
        read_frames(path, frames=2)


def test_frames_that_a_damaged_matroska_file_loses_are_not_passed_over(tmp_path):
    path = encode(tmp_path / "a.webm", noise(), codec="libvpx-vp9", deadline="realtime")
    with av.open(path) as file:
        place = next(packet.pos for packet in file.demux(video=0) if packet.pts == 1500)
    content = bytearray(path.read_bytes())
    content[place - 16 : place + 400] = b"\x5a" * 416
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.webm: (is damaged|.* cannot be decoded)"):
        read_frames(path, frames=2)


def gif(width: int, height: int, count: int = 1) -> bytes:
    """A few bytes that claim `count` frames of one size."""
    screen = struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + bytes(6)
    image = struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\0"
    return b"GIF89a" + screen + count * (b"!\xf9\x04\0\x0c\0\0\0," + image) + b";"


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999)))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.gif", gif(16000, 16000)), ("a.gif", gif(65535, 65535)), ("a.png", png(16000, 16000))],
)
def test_a_small_file_of_huge_frames_is_refused_in_little_memory(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (frame_count, frame_rate, taken_count, lambda path: read_frames(path, frames=1)):
        with pytest.raises(InputError, match=rf"a\{name[1:]}: its frames .* at most 36,000,000 pixels"):
            read(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_a_picture_of_400_million_pixels_is_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(png(20000, 20000))
    with pytest.raises(InputError, match=r"1\.png: .*400000000 pixels"):
        read_frames(tmp_path, frames=1)


def test_times_that_no_video_has_are_refused_where_they_give_the_rate(tmp_path):
    years = encode(tmp_path / "a.mkv", numbered(4), times=[10**9 * index for index in range(4)], codec="ffv1")
    assert frame_count(years) == len(read_frames(years, frames=4)) == 4
    assert taken_count(years, fps=8) > 8 * 10**6
    with pytest.raises(InputError, match=r"a\.mkv: its times make 1e-06 frames per second"):
        frame_rate(years)


def test_sound_with_a_cover_picture_is_no_video(tmp_path):
    with av.open(tmp_path / "a.m4a", "w", format="mp4") as file:
        sound, cover = file.add_stream("aac", rate=16000, layout="mono"), file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        tone.rate, tone.pts = 16000, 0
        picture = av.VideoFrame(32, 32, "yuvj420p")
        picture.pts = 0
        for stream, frame in ((sound, tone), (cover, picture)):
            file.mux(stream.encode(frame))
            file.mux(stream.encode())
    with pytest.raises(InputError, match=r"a\.m4a: .*no video that can be read, but sound"):
        frame_count(tmp_path / "a.m4a")


def test_a_truncated_gif_is_refused(tmp_path):
    write_gif(tmp_path / "a.gif", moving(), 8)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content + bytes(7))
    assert len(read_frames(tmp_path / "a.gif", frames=16)) == 16
    (tmp_path / "a.gif").write_bytes(content[:-40])
    with pytest.raises(InputError, match=r"a\.gif"):
        read_frames(tmp_path / "a.gif", frames=4)


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (1, {}, r": 16 .* 1 .* 0\.125 s"),
        (20, {"stride": 2}, r" 20 .* 2\.5 s.* stride=2 .* 10\b"),
        (20, {"fps": 5, "start": 0.5}, r" start=0\.5 fps=5 .* 10\b"),
        (20, {"start": 9.0}, r" start=9 .* 0\b"),
    ],
)
def test_too_few_frames_are_counted(tmp_path, count, settings, message):
    path = encode(tmp_path / "a.mp4", numbered(count))
    with pytest.raises(InputError, match=message):
        read_frames(path, frames=16, **settings)


def test_a_folder_with_nothing_to_read_or_too_little_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=rf"{tmp_path}: .*\.png"):
        read_frames(tmp_path, frames=4)
    for index, frame in enumerate(numbered(3)):
        write_png(tmp_path / f"{index}.png", frame)
    with pytest.raises(InputError, match=r": 4 .* 3 "):
        read_frames(tmp_path, frames=4)
    with pytest.raises(InputError, match=r"start=.* fps="):
        read_frames(tmp_path, frames=2, start=0.5)
    write_png(tmp_path / "1.png", np.zeros((32, 49, 3), np.uint8))
    with pytest.raises(InputError, match=r"0\.png .*48 x 32.* 1\.png .*49 x 32"):
        read_frames(tmp_path, frames=2, size=(8, 8))


def test_an_image_that_is_damaged_or_none_is_named(tmp_path):
    write_png(tmp_path / "1.png", moving(1)[0])
    content = (tmp_path / "1.png").read_bytes()
    for wrong in (content[: len(content) // 2], b"text", b""):
        (tmp_path / "2.png").write_bytes(wrong)
        with pytest.raises(InputError, match=r"2\.png"):
            read_frames(tmp_path, frames=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 4, "stride": 2}, "fps= and stride="),
        ({"stride": 0}, "stride=0; .* 1"),
        ({"frames": 0}, "frames=0"),
        ({"start": -1}, "start=-1"),
        ({"fps": 0}, "fps=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"fit": "squeeze"}, "fit=squeeze; .*crop.* fit"),
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
        "import resource, sys; from motionexp.data.videos import read_frames\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); frames = read_frames(sys.argv[1], frames=16, size=(64, 64))\n"
        "print(peak() - before)\n"
        "assert frames.shape == (16, 64, 64, 3) and abs(frames[:, :, 4:28].mean() - 200) < 4"
    )
    command, root = [sys.executable, "-c", script, path], Path(__file__).parents[3]
    assert int(subprocess.run(command, capture_output=True, cwd=root, check=True).stdout) < 200
