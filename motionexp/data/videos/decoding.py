"""The frames of a video file, decoded by FFmpeg. A damaged or wrong file raises `InputError`."""

import io
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from itertools import count as whole_numbers
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from PIL import Image

from motionexp.data.videos.pictures import MAX_PIXELS
from motionexp.data.videos.pixels import Pictures
from motionexp.data.videos.timeline import Timeline
from motionexp.errors import InputError

# Decoders refuse larger frames before they reserve memory. They count the margins that they add.
LIMIT = {"max_pixels": str(MAX_PIXELS * 5 // 4)}
# FFmpeg's own decoders of these drop the transparency.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def read_timeline(path: Path) -> Timeline:
    """When each frame is shown, from the encoded frames. Decodes one, and raises InputError."""
    with _opened(path) as clip:
        with _matroska_errors(clip.container) as errors:
            timeline = clip.timeline()
        if clip.is_cut_short:
            raise InputError(f"{path}: is cut short: it has {timeline.described()}; copy it again")
        # FFmpeg passes over what it cannot read between two frames, and goes on behind it.
        if errors:
            raise InputError(f"{path}: is damaged ({' '.join(errors[0].split())}); copy it again")
        return timeline


def decode(path: Path, timeline: Timeline, indices: Sequence[int]) -> Iterator[Image.Image]:
    """The frames of ascending `indices`, which may repeat, in RGB.

    Decoding starts at the keyframe before the first of them. Raises InputError for damage up to the last.
    """
    # A mark of a keyframe may be wrong: where another frame comes first, decoding starts at the file's begin.
    for start, seek_time in dict.fromkeys((timeline.keyframe(indices[0]), (0, None))):
        with _opened(path) as clip:
            frames = clip.frames(seek_time)
            head = next((frame for frame in frames if frame.pts >= timeline.times[start]), None)
            if start and (head is None or head.pts != timeline.times[start]):
                continue
            clip.count = start
            yield from _selected(clip, chain([head] if head else [], frames), timeline, indices)
            return


def _selected(
    clip: "_Clip", frames: Iterator[Any], timeline: Timeline, indices: Sequence[int]
) -> Iterator[Image.Image]:
    remaining = list(reversed(indices))
    for frame in frames:
        clip.check(frame)
        if clip.has_times and frame.pts != timeline.times[clip.count]:
            break
        while remaining and remaining[-1] == clip.count:
            remaining.pop()
            yield clip.pictures(frame)
        if not remaining:
            return
        clip.count += 1
    at = float((timeline.times[clip.count] - timeline.times[0]) * timeline.tick)
    raise InputError(f"{clip.path}: its frame at {at:.3g} s cannot be decoded: it is damaged; copy it again")


class _Clip:
    """The open video file.

    Damage that a decoder would hide is an error: a broken frame, and a file that ends before its frames do.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.stream = _video_stream(path, container)
        self.pictures = Pictures(path, self.stream.sample_aspect_ratio)
        self.pictures.check_size(self.stream.codec_context.width, self.stream.codec_context.height)
        self.context = _decoder(path, self.stream)
        # AVI has none, and FFmpeg's guesses of them are in no order; its frames are.
        self.has_times = container.format.name != "avi"
        self.count, self.is_cut_short = 0, False

    def timeline(self) -> Timeline:
        packets, keyframes, hidden, first = list[tuple[int, int]](), dict[int, int](), 0, None
        for packet in self._packets():
            first = first or next(self._decoded(packet), None)
            if packet.pts is None:
                continue
            if packet.is_discard or not _is_shown(self.stream.codec_context.name, packet):
                hidden += 1
                continue
            # A frame without a duration counts as one tick.
            packets.append((packet.pts, packet.duration or 1))
            if packet.is_keyframe:
                keyframes[packet.pts] = packet.pts if packet.dts is None else packet.dts
        if first is None:
            why = "none of its frames can be decoded: it is damaged or cut short"
            raise InputError(f"{self.path}: {why}; copy it again")
        self.check(first)
        # Frames before the first that can be decoded depend on others that a cut has removed.
        shown = sorted(pair for pair in packets if pair[0] >= first.pts or not self.has_times)
        if not shown:
            raise InputError(f"{self.path}: its frames have no times; store it as mp4 or webm")
        times = [begin for begin, _ in shown]
        rate, duration = self.stream.average_rate, self.container.duration
        return Timeline(
            tick=self.stream.time_base,
            times=times,
            last_duration=shown[-1][1],
            keyframes=_indices(keyframes, times) if self.has_times else [],
            hidden=hidden + len(packets) - len(shown),
            promised=self.stream.frames or round(rate * duration / av.time_base if rate and duration else 0),
        )

    def frames(self, seek_time: int | None) -> Iterator[Any]:
        """The decoded frames in the order of their times, from a keyframe up to `seek_time` on."""
        if seek_time is not None:
            self.container.seek(seek_time, stream=self.stream)
        for packet in self._packets():
            yield from self._decoded(packet)

    def check(self, frame: Any) -> None:
        """Raises InputError for a damaged frame, and for one that is not supported."""
        # A decoder conceals damage with pixels of other frames, and only sets this flag.
        if frame.is_corrupt:
            raise InputError(f"{self.path}: frame {self.count} is damaged: copy the file again")
        self.pictures.check(frame)

    def _packets(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        for count in whole_numbers():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                why = f"cannot be read after its frame {count - 1} ({error.strerror})"
                raise InputError(f"{self.path}: {why}: it is damaged or cut short; copy it again") from error
            if packet is None:
                return
            if packet.is_corrupt:
                raise InputError(f"{self.path}: frame {count} is damaged or cut short; copy the file again")
            yield packet

    def _decoded(self, packet: Any) -> Iterator[Any]:
        try:
            frames = self.context.decode(packet)
        except (av.FFmpegError, OSError) as error:
            why = f"frame {self.count} cannot be decoded ({error.strerror})"
            raise InputError(f"{self.path}: {why}: it is damaged or cut short; copy it again") from error
        for frame in frames:
            if frame.pts is None:
                raise InputError(f"{self.path}: its frames have no times; store it as mp4 or webm")
            yield frame


def _video_stream(path: Path, container: Any) -> Any:
    """The stream that a player shows. Raises InputError for none, or one that is not supported."""
    stream = container.streams.best("video")
    if stream is None:
        raise InputError(f"{path}: holds no video that can be read, or one cut short")
    if stream.codec_context is None:
        raise InputError(f"{path}: its video is of a kind that FFmpeg does not decode, or damaged")
    if stream.disposition & Disposition.attached_pic:
        raise InputError(f"{path}: holds no video that can be read, but sound with a cover picture")
    if container.format.name == "webp_pipe" and stream.codec_context.pix_fmt is None:
        right = "store it as gif, apng, mp4 or webm (ImageMagick: magick in.webp out.gif)"
        raise InputError(f"{path}: an animated WebP, which FFmpeg does not read; {right}")
    if container.metadata.get("major_brand") in ("avif", "avis") and any(
        plane.codec_context.pix_fmt in ("gray", "gray10le", "gray12le") for plane in container.streams.video
    ):
        raise InputError(
            f"{path}: an AVIF with transparency, which FFmpeg does not read; store it as apng or webm"
        )
    return stream


def _decoder(path: Path, stream: Any) -> Any:
    context = stream.codec_context
    # Matroska says in this tag that a second picture, the transparency, is stored beside each frame.
    if stream.metadata.get("alpha_mode") == "1" and context.name in ALPHA_DECODERS:
        name, extradata = ALPHA_DECODERS[context.name], context.extradata
        if name not in av.codecs_available:
            raise InputError(
                f"{path}: is transparent, and FFmpeg was built without {name}; store it as gif or mov"
            )
        context = av.CodecContext.create(name, "r")
        context.extradata = extradata
    context.options = {**context.options, **LIMIT}
    return context


def _is_shown(codec: str, packet: Any) -> bool:
    """False for a frame of VP8 or VP9 that other frames alone use: its show_frame bit is 0."""
    if codec not in ALPHA_DECODERS or not packet.size:
        return True
    content = memoryview(packet)
    if codec == "vp8":
        return bool(content[0] & 0x10)
    # Several frames in one packet end with an index, whose first bits are 110; the last of them is shown.
    if content[-1] & 0xE0 == 0xC0:
        return True
    # Two bits, profile (2), in profile 3 one more bit, show_existing_frame, frame_type, show_frame.
    bits = content[0] << 1 if content[0] & 0x30 == 0x30 else content[0]
    return bool(bits & 0x08 or bits & 0x02)


def _indices(keyframes: Mapping[int, int], times: Sequence[int]) -> list[tuple[int, int]]:
    """(index, seek time) of keyframes after the first frame; not of those at the time of another frame."""
    places = ((bisect_left(times, begin), begin, seek_time) for begin, seek_time in sorted(keyframes.items()))
    return [
        (index, seek_time)
        for index, begin, seek_time in places
        if index > 0 and times[index : index + 2].count(begin) == 1
    ]


@contextmanager
def _opened(path: Path) -> Iterator[_Clip]:
    # FFmpeg gets the open file, for a name can be read as an address or a pattern; and it may open no other,
    # for a playlist could name files elsewhere.
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        try:
            container = av.open(
                file, "r", metadata_errors="replace", options={"protocol_whitelist": "data", **LIMIT}
            )
        except (av.FFmpegError, OSError) as error:
            why = "no video that can be read, or one cut short"
            raise InputError(f"{path}: {why} ({error.strerror})") from error
        with container:
            clip = _Clip(path, container)
            _check_whole(clip, file)
            clip.is_cut_short = _segment_end(path) > path.stat().st_size
            yield clip


def _check_whole(clip: _Clip, file: io.BufferedReader) -> None:
    """Raises InputError where the header places frames behind the file's end, or a GIF has no end.

    FFmpeg decodes what is left of either without a word.
    """
    size = clip.path.stat().st_size
    entries = clip.stream.index_entries
    if behind := sum(entry.pos + entry.size > size for entry in entries):
        listed = f"its header lists {len(entries)} frames, and {behind} of them lie behind the file's end"
        raise InputError(f"{clip.path}: is cut short; {listed} ({size} bytes); copy it again")
    if clip.container.format.name == "gif":
        position = file.tell()
        # Some writers fill the file with zeros after the last character.
        file.seek(max(0, size - 64))
        if not file.read().rstrip(b"\0").endswith(b";"):
            raise InputError(f"{clip.path}: is cut short; a GIF's last character is ';'; copy it again")
        file.seek(position)


def _segment_end(path: Path) -> int:
    """Where the segment that holds all frames of a Matroska or WebM file ends, in bytes; 0: another file.

    The file is two elements: an ID of four bytes, a size, and the content. The first byte of a size has as
    many leading zeros as bytes follow it; a size of ones alone is unknown (RFC 8794, section 4).
    """
    end = 0
    with path.open("rb") as file:
        for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
            file.seek(end)
            head = file.read(12)
            if head[:4] != name or len(head) < 12 or not head[4]:
                return 0
            length = 9 - head[4].bit_length()
            size = int.from_bytes(head[4 : 4 + length]) & (1 << 7 * length) - 1
            if size == (1 << 7 * length) - 1:
                return 0
            end += 4 + length + size
    return end


@contextmanager
def _matroska_errors(container: Any) -> Iterator[list[str]]:
    """A list of what FFmpeg cannot read in a Matroska or WebM file meanwhile; it is filled at the end."""
    errors, level = list[str](), av.logging.get_level()
    if not container.format.name.startswith("matroska"):
        yield errors
        return
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logs:
            yield errors
    finally:
        av.logging.set_level(level)
    errors += [text for _, source, text in logs if source == container.format.name]
