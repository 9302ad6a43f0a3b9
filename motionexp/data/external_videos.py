"""Videos that any system made for a suite's edits: where they lie, and whether all are there."""

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.data.base import Description, Edit, References
from motionexp.data.videos import frame_count
from motionexp.errors import InputError

LIST = "videos.csv"
COLUMNS = ("video", "reference", "edit", "caption", "seed")
VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".mkv", ".mov", ".avi")
MOST_PROBLEMS = 8


@dataclass(frozen=True)
class Generated:
    """One video, a file or a folder of images, with the reference's name and the edit that it should show."""

    path: Path
    reference: str
    edit: Edit
    seed: int


def find_videos(
    folder: Path, reader: References, names: Sequence[str], kinds: Collection[str] | None = None
) -> list[Generated]:
    """The videos in `folder`, those of one reference together.

    A CSV, `folder` itself or `videos.csv` in it, lists them: `video` (its path beside the CSV), `reference`,
    `edit` (a kind) or `caption`, and `seed`, 0 where it is empty. A caption that is none of the reference's
    edits is a new edit. Without a CSV every edit of every reference must be there as TGVE's submissions have
    it, `SOURCE/REFERENCE/KIND/00000.jpg`, the source's folder being optional and a film, `KIND.mp4`, as good
    as a folder of images; `KIND-1` is the sample of seed 1.

    Args:
        folder: of the videos, or the CSV.
        reader: of the suite.
        names: references that are wanted.
        kinds: of edits that are wanted; None: all.

    Raises:
        InputError: a video is missing or there twice, or the CSV names something that is not there.
    """
    described = {name: reader.describe(name) for name in names}
    known = {edit.kind for each in described.values() for edit in each.edits}
    if unknown := [kind for kind in kinds or () if kind not in known]:
        raise InputError(f"edit_kinds=[{','.join(unknown)}]: there are edits of {', '.join(sorted(known))}")
    table = folder if folder.is_file() else folder / LIST
    problems: list[str] = []
    found = list(
        _listed(table, described, problems)
        if table.is_file()
        else _laid_out(folder, described, kinds, problems)
    )
    found = [each for each in found if kinds is None or each.edit.kind in kinds]
    twice = Counter((each.reference, each.edit.kind, each.edit.caption, each.seed) for each in found)
    problems += [
        f"{key[0]}, {key[1]}: two videos of seed {key[3]}" for key, times in twice.items() if times > 1
    ]
    if not found and not problems:
        problems = ["no videos of the references and edits that are wanted"]
    _raise(f"{folder}:", problems)
    return sorted(found, key=lambda each: names.index(each.reference))


def check_lengths(videos: Sequence[Generated], reader: References, frames: int | None) -> None:
    """Raises InputError where a video has another number of frames than `frames`, or than its reference.

    Decodes nothing.
    """
    problems = []
    lengths = {name: reader.describe(name).frames for name in {each.reference for each in videos}}
    for each in videos:
        whole = lengths[each.reference]
        count, wanted = frame_count(each.path), frames or whole
        if count != wanted:
            said = f"frames={frames}" if frames else f"its reference {each.reference} {whole}"
            problems.append(f"{each.path}: has {count} frames, and {said}")
    hint = "frames= says how many all have; references are then read with as many, by their suite's rule"
    _raise(f"videos of another length than their reference ({hint}):", problems)


def _raise(heading: str, problems: Sequence[str]) -> None:
    if problems:
        shown = list(problems[:MOST_PROBLEMS])
        more = [f"... and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        raise InputError("\n".join([heading, *shown, *more]))


def _laid_out(
    folder: Path,
    described: Mapping[str, Description],
    kinds: Collection[str] | None,
    problems: list[str],
) -> Iterator[Generated]:
    parents = [folder, *(each for each in sorted(folder.iterdir()) if each.is_dir())]
    for name, description in described.items():
        own = [parent / name for parent in parents if (parent / name).is_dir()]
        if len(own) != 1:
            there = " and ".join(map(str, own)) if own else f"no folder {name}, here or one level below"
            problems.append(f"reference {name}: {there}")
            continue
        for edit in description.edits:
            if kinds is not None and edit.kind not in kinds:
                continue
            if sum(each.kind == edit.kind for each in description.edits) > 1:
                raise InputError(
                    f"{folder}: {name} has several edits of kind {edit.kind}; list them in {LIST}"
                )
            samples = list(_samples(own[0], edit.kind))
            if not samples:
                problems.append(f"{own[0] / edit.kind}: missing")
            for seed, path in samples:
                yield Generated(path, name, edit, seed)


def _samples(folder: Path, kind: str) -> Iterator[tuple[int, Path]]:
    """(seed, path) of what is called after the kind."""
    for path in sorted(folder.iterdir()):
        film = path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        named = re.fullmatch(rf"{re.escape(kind)}(?:-(\d+))?", path.stem if film else path.name)
        if named and (film or path.is_dir()):
            yield int(named[1] or 0), path


def _listed(table: Path, described: Mapping[str, Description], problems: list[str]) -> Iterator[Generated]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, restkey="unnamed", restval="")
            header = lines.fieldnames or []
            rows = [(lines.line_num, row) for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a list of videos ({error})") from error
    if unknown := [name for name in header if name not in COLUMNS]:
        raise InputError(f"{table}: unknown columns {', '.join(unknown)}; there are {', '.join(COLUMNS)}")
    if missing := [name for name in ("video", "reference") if name not in header]:
        raise InputError(
            f"{table}: no column {' and '.join(missing)}; its first row says {', '.join(header)}"
        )
    for number, cells in rows:
        try:
            if "unnamed" in cells:
                raise InputError("has more cells than the first row: quote its caption")
            row = {name: text.strip() for name, text in cells.items()}
            if row["reference"] in described:
                yield _of_row(table.parent, row, described[row["reference"]])
            else:
                problems.append(f"line {number}: no reference {row['reference']!r} among those wanted")
        except InputError as error:
            problems.append(f"line {number}: {error}")


def _of_row(folder: Path, row: Mapping[str, str], described: Description) -> Generated:
    path, kind, caption = folder / row["video"], row.get("edit", ""), row.get("caption", "")
    seed = row.get("seed", "") or "0"
    if not row["video"] or not path.exists():
        raise InputError(f"there is no {path}")
    if not seed.isdecimal():
        raise InputError(f"seed is {seed!r}; it must be a whole number")
    edits = [edit for edit in described.edits if kind in ("", edit.kind) and caption in ("", edit.caption)]
    if len(edits) == 1:
        return Generated(path, row["reference"], edits[0], int(seed))
    if caption and not edits:
        return Generated(path, row["reference"], Edit(kind or "caption", caption), int(seed))
    known = ", ".join(edit.kind for edit in described.edits)
    raise InputError(
        f"which edit of {row['reference']}? edit is {kind!r} and caption {caption!r}; it has {known}"
    )
