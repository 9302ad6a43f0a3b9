"""Videos that any system made for a suite's edits: finds them, and checks that all exist."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.data.base import Description, Edit, References
from motionexp.data.checks import caption_problem, folded, raise_problems, shortened
from motionexp.data.tables import read_table
from motionexp.data.videos import frame_count
from motionexp.errors import InputError, one_of

LIST = "videos.csv"
COLUMNS = ("video", "reference", "edit", "caption", "seed")
VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".mkv", ".mov", ".avi")


@dataclass(frozen=True)
class Generated:
    """One video, a file or a folder of images, with its reference's name and the edit that it should show."""

    path: Path
    reference: str
    edit: Edit
    seed: int


def find_videos(
    folder: Path, reader: References, names: Sequence[str], kinds: Collection[str] | None = None
) -> list[Generated]:
    """The videos in `folder`, ordered by reference.

    A CSV lists them: `folder` itself or `videos.csv` in it, with the columns `video` (the path, relative to
    the CSV or absolute), `reference`, `edit` (a kind) or `caption`, and `seed` (empty: 0). A caption that no
    edit of the reference has is a new edit. Without a CSV, every edit of every reference must lie where
    TGVE's submissions have it: `SOURCE/REFERENCE/KIND/00000.jpg`, with or without the source's folder, or
    `KIND.mp4` in place of the folder of images. `KIND-1` is the sample of seed 1.

    Args:
        folder: of the videos, or the CSV.
        reader: of the suite.
        names: references whose videos are returned.
        kinds: of the edits whose videos are returned; None: all.

    Raises:
        InputError: a video is missing or duplicated, or the CSV lists what does not exist.
    """
    described = {name: reader.describe(name) for name in names}
    # 1. The edits that may be shown, and whether the kinds that were asked for are among them.
    all_kinds = {edit.kind for description in described.values() for edit in description.edits}
    if unknown := [kind for kind in kinds or () if kind not in all_kinds]:
        raise InputError(f"edit_kinds=[{','.join(unknown)}]: {one_of(unknown[0], sorted(all_kinds))}")
    # 2. The videos, from a CSV or from the folders' names; problems are collected and raised together.
    problems: list[str] = []
    table = folder if folder.is_file() else folder / LIST
    if table.is_file():
        candidates = _from_csv(table, described, problems)
    else:
        candidates = _from_layout(folder, described, kinds, problems)
    videos = [video for video in candidates if kinds is None or video.edit.kind in kinds]
    # 3. One video for each sample: two files of one seed would be scored as two samples.
    counts = Counter((video.reference, video.edit.kind, video.edit.caption, video.seed) for video in videos)
    for (reference, kind, _, seed), times in counts.items():
        if times > 1:
            problems.append(f"{reference}, {kind}: two videos of seed {seed}")
    raise_problems(f"{folder}:", problems if problems or videos else ["no videos of the selected edits"])
    places = {name: place for place, name in enumerate(names)}
    return sorted(videos, key=lambda video: places[video.reference])


def check_lengths(videos: Sequence[Generated], reader: References, frames: int | None) -> None:
    """Raises InputError where a video's length is not `frames`, or without `frames` not its reference's.

    Decodes nothing.
    """
    problems = []
    lengths = {name: reader.describe(name).frames for name in {video.reference for video in videos}}
    for video in videos:
        count, length = frame_count(video.path), lengths[video.reference]
        if count != (frames or length):
            expected = f"frames={frames}" if frames else f"its reference {video.reference} has {length}"
            problems.append(f"{video.path}: has {count} frames, but {expected}")
    hint = "frames= sets one length for all, at which the references are read too"
    raise_problems(f"videos of another length than their reference ({hint}):", problems)


def _from_layout(
    folder: Path, described: Mapping[str, Description], kinds: Collection[str] | None, problems: list[str]
) -> Iterator[Generated]:
    folders_of = _folders_of_references(folder, described)
    for name, description in described.items():
        folders = folders_of.get(name, [])
        if len(folders) != 1:
            paths = " and ".join(map(str, folders)) or f"no folder {name} in {folder} or one level below"
            problems.append(f"reference {name}: {paths}")
            continue
        edits_of_kind = Counter(edit.kind for edit in description.edits)
        for edit in description.edits:
            if kinds is not None and edit.kind not in kinds:
                continue
            if edits_of_kind[edit.kind] > 1:
                raise InputError(f"{folder}: {name} has several {edit.kind} edits; list them in {LIST}")
            if not (samples := list(_samples(folders[0], edit.kind))):
                problems.append(f"{folders[0] / edit.kind}: missing")
            for seed, path in samples:
                yield Generated(path, name, edit, seed)


def _folders_of_references(folder: Path, names: Collection[str]) -> Mapping[str, list[Path]]:
    """The folders in a folder and one level below, by their names. Raises InputError if none fits."""
    # TGVE's submissions have a folder for each source between the top and the references.
    by_name: dict[str, list[Path]] = {}
    for parent in (folder, *_folders(folder)):
        for path in _folders(parent):
            by_name.setdefault(path.name, []).append(path)
    if by_name.keys().isdisjoint(names):
        raise InputError(
            f"{folder}: no folder in it, or one level below, has the name of a reference, as in"
            f" {next(iter(names))}/KIND.mp4, and there is no {LIST} that lists the videos"
        )
    return by_name


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder. A disk's order is none, so they are sorted."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _samples(folder: Path, kind: str) -> Iterator[tuple[int, Path]]:
    """(seed, path) of the videos `KIND` and `KIND-SEED` in a reference's folder."""
    for path in sorted(folder.iterdir()):
        film = path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        match = re.fullmatch(rf"{re.escape(kind)}(?:-([0-9]{{1,18}}))?", path.stem if film else path.name)
        if match and (film or path.is_dir()):
            yield int(match[1] or 0), path


def _from_csv(table: Path, described: Mapping[str, Description], problems: list[str]) -> Iterator[Generated]:
    header, rows = read_table(table, ("video", "reference"))
    if unknown := [name for name in header if name not in COLUMNS]:
        names = shortened(", ".join(unknown))
        raise InputError(f"{table}: unknown columns {names}; they are {', '.join(COLUMNS)}")
    # Whose caption a text is: a row with the caption of another reference is shifted.
    owners: dict[str, set[str]] = {}
    for name, description in described.items():
        for caption in (description.caption, *(edit.caption for edit in description.edits)):
            owners.setdefault(folded(caption), set()).add(name)
    lines: dict[tuple[Path, str, str, str], int] = {}
    for number, row in rows:
        try:
            if row["reference"] not in described:
                raise InputError(f"reference {shortened(row['reference'])!r} is not selected")
            video = _of_row(table.parent, row, described[row["reference"]])
            edit = video.edit
            references = owners.get(folded(edit.caption), {video.reference})
            kinds = {"caption", *(edit.kind for edit in described[video.reference].edits)}
            if video.reference not in references and edit.kind in kinds:
                rule = "correct the row, or give the edit a kind of its own"
                raise InputError(
                    f"its caption is of reference {min(references)}, not {video.reference}; {rule}"
                )
            key = video.path, video.reference, edit.kind, edit.caption
            if lines.setdefault(key, number) != number:
                raise InputError(
                    f"{row['video']} shows this edit in line {lines[key]} too; list a video once"
                )
            yield video
        except InputError as error:
            problems.append(f"line {number}: {error}")


def _of_row(folder: Path, row: Mapping[str, str], described: Description) -> Generated:
    path, kind, caption = folder / row["video"], row.get("edit", ""), row.get("caption", "")
    seed = row.get("seed", "") or "0"
    if not row["video"] or not os.path.exists(path):
        raise InputError(f"there is no {path}")
    if not re.fullmatch("[0-9]{1,18}", seed):
        raise InputError(f"seed is {shortened(seed)!r}; it must be a whole number of at most 18 digits")
    if caption and (problem := caption_problem(caption)):
        raise InputError(f"caption {problem}")
    # An empty cell restricts nothing: the kind alone, or the caption alone, may name the edit.
    edits = [edit for edit in described.edits if kind in ("", edit.kind) and caption in ("", edit.caption)]
    if caption and not edits:
        # A caption of the reference that is written otherwise, or is of another kind, is no new edit.
        for edit in described.edits:
            if folded(caption) == folded(edit.caption):
                raise InputError(
                    f"its caption is that of edit {edit.kind!r}: {edit.caption}; correct the row"
                )
        edits = [Edit(kind or "caption", caption)]
    if len(edits) == 1:
        return Generated(path, row["reference"], edits[0], int(seed))
    kinds = ", ".join(edit.kind for edit in described.edits)
    which = f"which edit of {row['reference']}? edit is {kind!r} and caption {caption!r}"
    raise InputError(f"{which}; its kinds are {kinds}")
