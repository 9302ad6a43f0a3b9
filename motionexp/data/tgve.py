"""LOVEU-TGVE-2023: 76 videos with four edits each, in the layout that its archive unzips to."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from motionexp.data import checks
from motionexp.data.base import Description, Edit, Reference
from motionexp.data.checks import caption_problem, folded, raise_problems, reference_named, shortened
from motionexp.data.tables import first_row, read_rows, row_problem
from motionexp.data.videos import frame_count, read_frames
from motionexp.errors import InputError, nearest
from motionexp.files import user_path

TABLE = "LOVEU-TGVE-2023_Dataset.csv"
SOURCES = {"DAVIS_480p": 16, "youtube_480p": 23, "videvo_480p": 37}
"""Number of videos in each source's folder."""
LENGTHS = {"DAVIS_480p": 32, "youtube_480p": 128, "videvo_480p": 32}
"""Number of frames of each of these videos."""
NAME_COLUMN, CAPTION_COLUMN = "Video name", "Our GT caption"
EDIT_COLUMNS = {
    "style": "Style Change Caption",
    "object": "Object Change Caption",
    "background": "Background Change Caption",
    "multiple": "Multiple Changes Caption",
}
REPEATS_CAPTION = ("eiffel-flyover", "style")
"""The one edit of the benchmark that repeats its reference's caption."""
# 32 frames count as two seconds: the shortest videos have 32, and the benchmark gives no rate.
SPAN, RATE = 32, 16.0


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

    Frames: the first 32 frames count as two seconds at 16 frames per second, because the shortest videos have
    32 and the benchmark does not give their rate. `read` takes `frames` of them at even distance: 16 frames
    are every second one. Of 4k + 1 frames, which some VAEs need, the first 4k are taken so and are scored,
    and one more frame follows. More than 33 frames are taken one by one.

    Captions are those of the table without the spaces around them. One style edit (of eiffel-flyover) repeats
    its reference's caption.

    Raises InputError, before any frame is decoded, where the table or a video is missing or differs from the
    benchmark: 76 videos (16 DAVIS, 23 youtube, 37 videvo) of 32, 128 and 32 frames, 304 edits.
    """

    suite: ClassVar = "tgve"
    path: str | Path
    fit: str = "crop"

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
        scored, strata = scored_frames(frames), {"source": entry.source}
        fps = RATE * min(1.0, (scored or frames) / SPAN)
        return Reference(
            name, self.suite, pixels[indices], fps, entry.caption, entry.edits, strata, scored_frames=scored
        )

    def _entry(self, name: str) -> Entry:
        return reference_named(name, self._entries, "TGVE")

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        folder = user_path(self.path)
        entries = read_table(folder)
        heading = f"{folder}: not the whole of LOVEU-TGVE-2023:"
        raise_problems(heading, [*_count_problems(entries)])
        raise_problems(heading, [*_video_problems(entries)])
        return {entry.name: entry for entry in entries}


def scored_frames(frames: int) -> int | None:
    """How many of `frames` are scored: 4k of 4k + 1, within two seconds; None: all."""
    return checks.scored_frames(frames, SPAN)


def frame_indices(frames: int, length: int) -> list[int]:
    """Indices from 0 of the frames that `read` takes; some are >= `length` where the video is too short."""
    scored = scored_frames(frames) or frames
    # Longer than two seconds: one by one, which only the youtube videos allow.
    if scored > SPAN:
        return list(range(frames))
    indices = [index * SPAN // scored for index in range(scored)]
    # The extra frame is the 33rd; a video of 32 repeats its last one.
    return indices if scored == frames else [*indices, min(SPAN, length - 1)]


def read_table(folder: Path) -> list[Entry]:
    """The videos of the benchmark's CSV, without the rows that are a source's heading.

    Raises:
        InputError: the file does not exist, a column is missing or doubled, a video precedes the first
            source's heading, a heading stands twice, a row is shifted, or a caption is empty or repeated.
    """
    path = folder / TABLE
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; data.path= is the folder that LOVEU-TGVE-2023 was unzipped to"
        )
    rows = read_rows(path)
    header = rows[0][1] if rows else []
    columns = _columns(path, header)
    entries: list[Entry] = []
    problems: list[str] = []
    sources: list[str] = []
    for number, row in rows[1:]:
        try:
            name, *rest = row
            # A source's heading is a row with one cell, such as 'DAVIS Videos:'.
            if name.endswith(":"):
                sources.append(_source(name, sources))
                if any(rest):
                    raise InputError(f"{shortened(name)} is a heading; its row has no further cells")
                continue
            if problem := row_problem(header, row):
                raise InputError(problem)
            cells = {name: row[index] for name, index in columns.items()}
            if any(cells.values()):
                entries.append(_entry_of(path, sources, cells))
        except InputError as error:
            problems.append(f"line {number}: {error}")
    raise_problems(f"{path}:", problems)
    return entries


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """{column: its index}. Spelling matters, spaces and capitals do not."""
    names = [folded(cell) for cell in header]
    needed = [NAME_COLUMN, CAPTION_COLUMN, *EDIT_COLUMNS.values()]
    if missing := [name for name in needed if folded(name) not in names]:
        raise InputError(f"{path}: no column {', '.join(missing)}; {first_row(header)}")
    if doubled := [name for name in needed if names.count(folded(name)) > 1]:
        raise InputError(f"{path}: two columns are called {doubled[0]}; {first_row(header)}")
    return {name: names.index(folded(name)) for name in needed}


def _source(heading: str, sources: Sequence[str]) -> str:
    for source in SOURCES:
        if heading.casefold().startswith(source.removesuffix("_480p").casefold()):
            if source in sources:
                raise InputError(
                    f"the heading {shortened(heading)!r} stands twice; list a source's videos once"
                )
            return source
    raise InputError(f"{shortened(heading)!r} is none of the sources {', '.join(SOURCES)}")


def _entry_of(path: Path, sources: Sequence[str], cells: Mapping[str, str]) -> Entry:
    name, caption = cells[NAME_COLUMN], cells[CAPTION_COLUMN]
    if not name or "/" in name or not name.strip("."):
        raise InputError(f"{NAME_COLUMN} is {shortened(name)!r}; it must be the name of a video's folder")
    if not sources:
        raise InputError(f"{shortened(name)} precedes the first source's heading, as 'DAVIS Videos:'")
    for column in (CAPTION_COLUMN, *EDIT_COLUMNS.values()):
        if not cells[column]:
            raise InputError(f"{shortened(name)} has no {column}")
        if problem := caption_problem(cells[column]):
            raise InputError(f"{shortened(name)}: {column} {problem}")
    edits = tuple(Edit(kind, cells[column]) for kind, column in EDIT_COLUMNS.items())
    _check_edits(name, caption, edits)
    source = sources[-1]
    frames = path.parent / source / "480p_frames" / name
    film = path.parent / source / "480p_videos" / f"{name}.mp4"
    # os.path takes a name that is too long for one that does not exist; Path raises OSError.
    video = film if os.path.isfile(film) and not os.path.isdir(frames) else frames
    return Entry(name, source, caption, edits, video)


def _check_edits(name: str, caption: str, edits: Sequence[Edit]) -> None:
    """Raises InputError where an edit repeats the caption or another edit: a cell is copied or shifted."""
    texts = {folded(caption): CAPTION_COLUMN}
    for edit in edits:
        column, text = EDIT_COLUMNS[edit.kind], folded(edit.caption)
        if text in texts and (name, edit.kind) != REPEATS_CAPTION:
            raise InputError(
                f"{shortened(name)}: {column} repeats {texts[text]}; give the benchmark's captions"
            )
        texts[text] = column


def _count_problems(entries: Sequence[Entry]) -> Iterator[str]:
    counts = Counter(entry.source for entry in entries)
    for source, count in SOURCES.items():
        if counts[source] != count:
            yield f"{TABLE} has {counts[source]} videos of {source}; the benchmark has {count}"
    names = {entry.name.casefold(): entry.name for entry in entries}
    for name, times in Counter(entry.name.casefold() for entry in entries).items():
        if times > 1:
            yield f"{TABLE} names {shortened(names[name])} {times} times"
    # No two videos of the benchmark share an edit; a row that is copied to the next line shares all.
    for entry, following in pairwise(entries):
        if entry.edits == following.edits and entry.name != following.name:
            yield f"{TABLE}: {shortened(following.name)} has the edits of {shortened(entry.name)}"


def _video_problems(entries: Sequence[Entry]) -> Iterator[str]:
    names = {entry.name for entry in entries}
    for entry in entries:
        if not os.path.exists(entry.video):  # Path.exists raises OSError for a name that is too long
            folder = entry.video.parent
            unlisted = sorted(set(os.listdir(folder)) - names) if folder.is_dir() else []
            near = nearest(entry.name, unlisted)
            both = f"480p_frames/{entry.name} and no 480p_videos/{entry.name}.mp4"
            yield f"{entry.source}: no {both}" + (f"; there is {near}" if near else "")
            continue
        try:
            if (count := frame_count(entry.video)) != LENGTHS[entry.source]:
                yield f"{entry.video}: has {count} frames; the benchmark's has {LENGTHS[entry.source]}"
        except InputError as error:
            yield str(error)
