"""Cases of videos and images: bytes that are damaged, and headers that lie."""

import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from motionexp.data.videos import frame_count, frame_rate, read_frames, taken_count, write_gif, write_mp4
from motionexp.data.videos.writing import write_png
from tests.fuzz.damage import Damage
from tests.support.made_videos import encode, moving

Image.init()  # Pillow looks for packages of rare formats when it first meets an unknown one


@cache
def _contents() -> dict[str, bytes]:
    return {kind: _encoded(kind) for kind in ("mp4", "gif", "webm", "apng", "png", "jpg")}


def _encoded(kind: str) -> bytes:
    """A valid file of six frames of 32 x 32 pixels."""
    video = moving(6, 32, 32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        if kind == "mp4":
            write_mp4(path, video, 8)
        elif kind == "gif":
            write_gif(path, video, 8)
        elif kind == "webm":
            encode(path, video, codec="libvpx-vp9", deadline="realtime")
        elif kind == "png":
            write_png(path, video[0])
        elif kind == "apng":
            images = [Image.fromarray(frame) for frame in video]
            images[0].save(path, "PNG", save_all=True, append_images=images[1:], duration=125)
        else:
            Image.fromarray(video[0]).save(path, "JPEG")
        return path.read_bytes()


def _png_with_sums(content: bytes, damage: Damage) -> bytes:
    """A PNG whose chunks are damaged, with their checksums computed again."""
    result, place = content[:8], 8
    chunks = []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    chosen = damage.random.randrange(len(chunks))
    for number, (name, part) in enumerate(chunks):
        whole = name + (damage.bytes(part) if number == chosen else part)
        result += struct.pack(">I", len(whole) - 4) + whole + struct.pack(">I", zlib.crc32(whole))
    return result


def film(damage: Damage, folder: Path, kind: str) -> None:
    """Read a damaged file as each caller does: its length, its rate, frames from a later time."""
    other = _contents()[damage.random.choice(("mp4", "gif", "webm"))]
    content = _contents()[kind]
    if kind == "apng" and damage.maybe(0.5):
        content = _png_with_sums(content, damage)
    else:
        content = damage.bytes(content, other)
    suffix = damage.random.choice((kind, kind, "mp4", "MKV")) if not damage.is_off else kind
    path = folder / f"a.{suffix}"
    path.write_bytes(content)
    settings = damage.random.choice(({}, {"stride": 2}, {"fps": 4.0}, {"start": 0.3}))
    frame_count(path)
    frame_rate(path)
    taken_count(path, **settings)
    read_frames(path, frames=2, size=(16, 16), **settings)


def image(damage: Damage, folder: Path) -> None:
    """A folder of images, one of them damaged."""
    kind = damage.random.choice(("png", "jpg"))
    (folder / "images").mkdir()
    for number in range(3):
        (folder / "images" / f"{number}.{kind}").write_bytes(_contents()[kind])
    content = _contents()[kind]
    with_sums = kind == "png" and damage.maybe(0.6)
    content = _png_with_sums(content, damage) if with_sums else damage.bytes(content, _contents()["gif"])
    name = f"1.{damage.random.choice((kind, 'webp', 'tiff')) if damage.maybe(0.2) else kind}"
    (folder / "images" / name).write_bytes(content)
    frame_count(folder / "images")
    read_frames(folder / "images", frames=3, size=(16, 16))


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    **{kind: (partial(film, kind=kind), 450) for kind in ("mp4", "gif", "webm", "apng")},
    "image": (image, 400),
}
