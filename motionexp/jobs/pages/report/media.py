"""The small videos and posters of a report, made from the exact frames of samples."""

import io
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from motionexp.data.videos import enlarged, frame_count, frame_rate, read_frames, write_mp4
from motionexp.data.videos.grids import as_tiles
from motionexp.data.videos.lossless import read_lossless_video
from motionexp.diffusion.progress import progress_bar
from motionexp.errors import DAMAGE, InputError
from motionexp.files import file_name, write_whole
from motionexp.jobs.cell import EXACT_FRAMES
from motionexp.jobs.pages.report.content import Content, Media
from motionexp.jobs.pages.report.details import Series, details_of, ranges_of, series_of, write_details
from motionexp.jobs.pages.report.overlays import overlays
from motionexp.jobs.pages.report.probes import PairVideo, write_strip
from motionexp.jobs.pages.report.references import ShownReference
from motionexp.jobs.pages.report.samples import ShownSample

LEAST, MOST = 128, 192
"""Pixels of the shorter side in a report: at least, and what videos twice as large are reduced to."""
CRF = 22
"""Of H.264: a third of the bytes of the stored videos to look at."""
POSTER_QUALITY = 70
DEFAULT_FPS = 8.0
"""Of a folder of images, which says nothing of times."""
MEDIA, DETAILS = "media", "samples"
"""Folders of a report."""


def write_media(folder: Path, content: Content) -> None:
    """Write the small videos and details of a report into its folder; fills media, problems and ranges."""
    for name in (MEDIA, DETAILS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    media, problems, series = dict[str, Media](), dict[str, str](), list[Series]()

    def write(entry: tuple[str, Callable[[], Media]]) -> None:
        key, make = entry
        try:
            media[key] = make()
        except (InputError, OSError) as error:
            problems[key] = str(error)

    entries = list(_entries(folder, content, series))
    # Decoders and encoders leave the interpreter to other threads.
    with ThreadPoolExecutor() as pool, progress_bar(len(entries), "report", "video") as bar:
        for _ in pool.map(write, entries):
            bar.update()
    for unit in content.probes.units:
        write_strip(folder / MEDIA, unit)
    for name, path in content.probes.figures.items():
        shutil.copyfile(path, folder / MEDIA / f"{file_name(name)}.svg")
    content.media, content.problems, content.ranges = media, problems, ranges_of(series)


def _entries(
    folder: Path, content: Content, series: list[Series]
) -> Iterator[tuple[str, Callable[[], Media]]]:
    """(key, what writes its video) of all videos of a report."""
    for reference in content.references:
        yield reference.page, partial(_write_reference, folder, reference)
    for sample in content.samples:
        series.append(series_of(sample))
        yield sample.key, partial(_write_sample, folder, sample, series[-1])
    for unit in content.probes.units:
        for pair in unit.pairs.values():
            yield pair.key, partial(_write_pair, folder, pair)


def _write_reference(folder: Path, reference: ShownReference) -> Media:
    if reference.reference is None:
        raise InputError(reference.problem)
    frames = reference.reference.frames
    write_details(folder / DETAILS, reference.page, overlays(frames))
    return write_small(folder / MEDIA, reference.page, frames, reference.reference.fps)


def _write_sample(folder: Path, sample: ShownSample, series: Series) -> Media:
    details = {**details_of(sample), "series": series}
    try:
        if sample.video is None:
            raise InputError("its row names no file")
        frames = read_stored(sample.video)
        details |= overlays(frames)
        if is_small(sample.video, frames):
            shutil.copyfile(sample.video, folder / MEDIA / f"{sample.key}.mp4")
        return write_small(folder / MEDIA, sample.key, frames, frame_rate(sample.video) or DEFAULT_FPS)
    finally:
        write_details(folder / DETAILS, sample.key, details)


def _write_pair(folder: Path, pair: PairVideo) -> Media:
    return write_small(
        folder / MEDIA, pair.key, read_stored(pair.video), frame_rate(pair.video) or DEFAULT_FPS
    )


def read_stored(video: Path) -> np.ndarray:
    """(F, H, W, 3) uint8: the exact frames beside a stored mp4, or else the mp4's own.

    Raises:
        InputError: neither is there, or it is damaged.
    """
    exact = video.with_suffix(".mkv")
    try:
        if exact.exists():
            return read_lossless_video(exact.read_bytes())[0]
        if (arrays := video.with_suffix(".npz")).exists():
            with np.load(arrays, allow_pickle=False) as file:
                return np.asarray(file["frames"])
    except DAMAGE as error:
        raise InputError(f"{exact}: damaged ({error})") from error
    return read_frames(video, frames=frame_count(video))


def is_small(video: Path, frames: np.ndarray) -> bool:
    """Whether a stored mp4 is what `write_small` would make of it, and nothing better lies beside it."""
    exact = any(video.with_suffix(suffix).exists() for suffix in EXACT_FRAMES.values())
    return not exact and LEAST <= min(frames.shape[1:3]) <= MOST


def write_small(folder: Path, key: str, frames: np.ndarray, fps: float) -> Media:
    """Write `KEY.mp4` and the poster `KEY.webp` unless they are there."""
    tiles = enlarged(frames, LEAST) if min(frames.shape[1:3]) < LEAST else as_tiles(frames, MOST)
    count, height, width, _ = tiles.shape
    if not (folder / f"{key}.webp").exists():
        if not (folder / f"{key}.mp4").exists():
            write_mp4(folder / f"{key}.mp4", tiles, fps, crf=CRF)
        memory = io.BytesIO()
        Image.fromarray(tiles[0]).save(memory, "WEBP", quality=POSTER_QUALITY)
        # Last: it marks both as written.
        write_whole(folder / f"{key}.webp", memory.getvalue())
    return Media(width, height, count, fps)
