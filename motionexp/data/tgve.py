"""LOVEU-TGVE-2023: 76 videos with four edits each, in the layout that its archive unzips to."""

import csv
import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from motionexp.data.base import Description, Edit, Reference
from motionexp.data.videos import frame_count, read_frames
from motionexp.errors import InputError

TABLE = "LOVEU-TGVE-2023_Dataset.csv"
SOURCES = {"DAVIS_480p": 16, "youtube_480p": 23, "videvo_480p": 37}
"""How many videos each source's folder has."""
LENGTHS = {"DAVIS_480p": 32, "youtube_480p": 128, "videvo_480p": 32}
"""How many frames each of them has."""
NAME_COLUMN, CAPTION_COLUMN = "Video name", "Our GT caption"
EDIT_COLUMNS = {
    "style": "Style Change Caption",
    "object": "Object Change Caption",
    "background": "Background Change Caption",
    "multiple": "Multiple Changes Caption",
}
SPAN, RATE = 32, 16.0
MOST_PROBLEMS = 8


@dataclass(frozen=True)
class Entry:
    """One line of the benchmark's table, with the folder of frames, or the mp4, that belongs to it."""

    name: str
    source: str
    caption: str
    edits: tuple[Edit, ...]
    video: Path


@dataclass(frozen=True)
class TGVE:
    """Reader of the folder that holds `LOVEU-TGVE-2023_Dataset.csv` and the three sources' folders.

    The rule for frames: the first 32 frames are taken as two seconds, 16 a second, for the shortest videos
    have no more and the benchmark does not say their rate. `frames` of them are taken at even distance: 16
    are every second one. Where 4k + 1 are asked for, as some VAEs do, the first 4k follow the rule and are
    scored, and one more comes after them. More than 33 are taken one by one.

    Captions are stripped of spaces around them, and else as the table has them; one style edit (of
    eiffel-flyover) repeats its reference's caption there.

    Raises InputError, before any frame is decoded, where the table or a video is missing or not the
    benchmark's: 76 videos (16 DAVIS, 23 youtube, 37 videvo) of 32, 128 and 32 frames, 304 edits.
    """

    path: str | Path
    fit: str = "crop"

    @property
    def suite(self) -> str:
        return "tgve"

    def names(self) -> list[str]:
        """The videos' names in the table's order."""
        return list(self._entries)

    def describe(self, name: str) -> Description:
        """The captions of one video, and its length: 32 or 128."""
        entry = self._entry(name)
        return Description(entry.caption, entry.edits, LENGTHS[entry.source])

    def long_enough(self, name: str, frames: int) -> bool:
        """Whether one video has `frames` frames, by the rule above."""
        length = LENGTHS[self._entry(name).source]
        return max(frame_indices(frames, length)) < length

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """One video as `frames` frames of `height` x `width` pixels, by the rule above. Raises InputError."""
        entry = self._entry(name)
        indices = frame_indices(frames, LENGTHS[entry.source])
        pixels = read_frames(entry.video, frames=max(indices) + 1, size=(height, width), fit=self.fit)
        scored = scored_frames(frames)
        return Reference(
            name=name,
            suite=self.suite,
            frames=pixels[indices],
            fps=RATE * min(1.0, (scored or frames) / SPAN),
            caption=entry.caption,
            edits=entry.edits,
            strata={"source": entry.source},
            scored_frames=scored,
        )

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            raise InputError(f"reference {name!r}: TGVE has no such video{_meant(close)}")
        return self._entries[name]

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        folder = Path(self.path).expanduser()
        entries = read_table(folder)
        problems = [*_count_problems(entries), *_video_problems(entries)]
        if problems:
            shown = problems[:MOST_PROBLEMS]
            more = [f"... and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
            raise InputError("\n".join([f"{folder}: not the whole of LOVEU-TGVE-2023:", *shown, *more]))
        return {entry.name: entry for entry in entries}


def scored_frames(frames: int) -> int | None:
    """How many of `frames` are scored: 4k of 4k + 1, within two seconds; None: all."""
    return frames - 1 if frames % 4 == 1 and 1 < frames <= SPAN + 1 else None


def frame_indices(frames: int, length: int) -> list[int]:
    """Which frames of a video of `length` are taken, from 0; may lie behind its end where it is too short."""
    scored = scored_frames(frames) or frames
    if scored > SPAN:
        return list(range(frames))
    indices = [index * SPAN // scored for index in range(scored)]
    return indices if scored == frames else [*indices, min(SPAN, length - 1)]


def read_table(folder: Path) -> list[Entry]:
    """The lines of the benchmark's CSV: rows with a source's heading and blank rows are no lines of it.

    Raises:
        InputError: no such file, columns of other names, a video before any source's heading, an empty
            caption.
    """
    path = folder / TABLE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); data.path= is the folder that LOVEU-TGVE-2023 was unzipped to"
        ) from error
    rows = [row for row in rows if any(row)]
    columns = _columns(path, rows[0] if rows else [])
    entries: list[Entry] = []
    source = None
    for row in rows[1:]:
        cells = {name: row[index] if index < len(row) else "" for name, index in columns.items()}
        name = cells[NAME_COLUMN]
        if name.endswith(":"):
            source = _source(path, name)
        elif name:
            if source is None:
                raise InputError(f"{path}: {name} stands before any source, as in 'DAVIS Videos:'")
            entries.append(_entry_of(path, source, cells))
    return entries


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """{column: its place}; spelling counts, spaces and capitals do not."""
    found = {" ".join(cell.split()).casefold(): index for index, cell in reversed(list(enumerate(header)))}
    wanted = [NAME_COLUMN, CAPTION_COLUMN, *EDIT_COLUMNS.values()]
    if missing := [name for name in wanted if name.casefold() not in found]:
        said = ", ".join(filter(None, header))
        raise InputError(f"{path}: has no column {', '.join(missing)}; its first row says {said}")
    return {name: found[name.casefold()] for name in wanted}


def _source(path: Path, heading: str) -> str:
    for source in SOURCES:
        if heading.casefold().startswith(source.removesuffix("_480p").casefold()):
            return source
    raise InputError(f"{path}: {heading!r} is none of the sources {', '.join(SOURCES)}")


def _entry_of(path: Path, source: str, cells: Mapping[str, str]) -> Entry:
    name = cells[NAME_COLUMN]
    if empty := [column for column, text in cells.items() if not text]:
        raise InputError(f"{path}: {name} has no {', '.join(empty)}")
    edits = tuple(Edit(kind, cells[column]) for kind, column in EDIT_COLUMNS.items())
    frames = path.parent / source / "480p_frames" / name
    film = path.parent / source / "480p_videos" / f"{name}.mp4"
    video = film if film.is_file() and not frames.is_dir() else frames
    return Entry(name, source, cells[CAPTION_COLUMN], edits, video)


def _count_problems(entries: Sequence[Entry]) -> Iterator[str]:
    found = Counter(entry.source for entry in entries)
    for source, count in SOURCES.items():
        if found[source] != count:
            yield f"{TABLE} names {found[source]} videos of {source}, and there are {count}"
    for name, times in Counter(entry.name for entry in entries).items():
        if times > 1:
            yield f"{TABLE} names {name} {times} times"


def _video_problems(entries: Sequence[Entry]) -> Iterator[str]:
    names = {entry.name for entry in entries}
    for entry in entries:
        if not entry.video.exists():
            there = entry.video.parent.iterdir() if entry.video.parent.is_dir() else ()
            others = [each.name for each in there if each.name not in names]
            close = difflib.get_close_matches(entry.name, others, n=1)
            both = f"480p_frames/{entry.name} and no 480p_videos/{entry.name}.mp4"
            yield f"{entry.source}: no {both}{_meant(close)}"
            continue
        try:
            count = frame_count(entry.video)
        except InputError as error:
            yield str(error)
            continue
        if count != LENGTHS[entry.source]:
            yield f"{entry.video}: has {count} frames, and the benchmark's has {LENGTHS[entry.source]}"


def _meant(close: Sequence[str]) -> str:
    return f"; there is {close[0]}" if close else ""
