"""Finished samples in the layout that TGVE's organisers ask for: SOURCE/VIDEO/EDIT/00000.jpg."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from motionexp.data.base import Edit
from motionexp.data.tgve import EDIT_COLUMNS, SOURCES, scored_frames
from motionexp.errors import InputError
from motionexp.jobs.cell import Cell
from motionexp.jobs.summary import EXTERNAL
from motionexp.results.rows import FIELDS, ROWS_NAME, Row, read_rows

TOLD_APART = ("model", "method", "tau", "seed", "steps", "train_steps", "adapter_scale", "precision")


def write_submission(samples: Path, folder: Path, select: Mapping[str, str]) -> tuple[int, int]:
    """Write one sample of each video and edit as JPEGs.

    Args:
        samples: folder with finished cells of `data=tgve`, for instance `outputs/tgve/latte`.
        folder: written to; must be new or empty.
        select: what the samples' rows should say: {field, stratum or setting: its value as text}.

    Returns:
        How many videos were written, and how many the benchmark has: its scorer wants all of them.

    Raises:
        InputError: no such samples, more than one for a video and edit, or a folder with something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder={folder}: there is something already; name a new folder")
    if not samples.is_dir():
        raise InputError(f"samples={samples}: there is no such folder")
    chosen: dict[tuple[str, str, str], tuple[Cell, Row]] = {}
    for cell, row in _samples(samples):
        if not all(_says(row, name) == value for name, value in select.items()):
            continue
        key = row.strata.get("source", ""), row.reference, row.edit_kind
        if key in chosen:
            raise InputError(_two(chosen[key][1], row))
        chosen[key] = cell, row
    if not chosen:
        said = " ".join(f"{name}={value}" for name, value in select.items())
        raise InputError(f"samples={samples}: no samples of data=tgve there{f' with {said}' if said else ''}")
    for (source, reference, kind), (cell, row) in chosen.items():
        _write(folder / source / reference / kind, cell, row)
    return len(chosen), sum(SOURCES.values()) * len(EDIT_COLUMNS)


def _samples(folder: Path) -> Iterator[tuple[Cell, Row]]:
    """Each sample of TGVE's own edits once, with one of its rows; not those of probes or other systems."""
    for file in sorted(folder.rglob(ROWS_NAME)):
        rows = {row.sample_id: row for row in read_rows(file)}
        for row in rows.values():
            ours = row.method != EXTERNAL and not row.tau_start
            if ours and row.suite == "tgve" and row.sample_id and row.edit_kind in EDIT_COLUMNS:
                yield Cell(file.parent), row


def _says(row: Row, name: str) -> str:
    if name in row.settings and name not in FIELDS:
        value = row.settings[name]
        return f"{value:g}" if isinstance(value, float) else str(value)
    if name not in FIELDS and name not in row.strata:
        raise InputError(f"{name}=: rows have no such field, stratum or setting")
    return row.stratum(name)


def _two(one: Row, other: Row) -> str:
    settings = sorted({*one.settings, *other.settings} - set(TOLD_APART) - {"model", "method"})
    names = [name for name in (*TOLD_APART, *settings) if _differ(one, other, name)]
    differ = ", ".join(f"{name} ({_shown(one, name)}, {_shown(other, name)})" for name in names)
    which = f"they differ in {differ}: choose one of each with {names[0]}=" if names else "they are the same"
    return f"two samples of {one.reference}, {one.edit_kind}: {which}"


def _differ(one: Row, other: Row, name: str) -> bool:
    return _shown(one, name) != _shown(other, name)


def _shown(row: Row, name: str) -> str:
    return row.stratum(name) if name in FIELDS else str(row.settings.get(name))


def _write(folder: Path, cell: Cell, row: Row) -> None:
    frames, _ = cell.read_sample(Edit(row.edit_kind, row.edit_caption), row.seed or 0, row.sample_id)
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames[: scored_frames(len(frames))]):
        Image.fromarray(frame).save(folder / f"{index:05d}.jpg", quality=95, subsampling=0)
