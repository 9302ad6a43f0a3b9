"""Finished samples in the layout that TGVE's organisers ask for: SOURCE/VIDEO/EDIT/00000.jpg."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from motionexp.data.base import Edit
from motionexp.data.tgve import EDIT_COLUMNS, SOURCES, scored_frames
from motionexp.errors import InputError
from motionexp.files import file_name, user_path
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.machine import clear_disk_errors
from motionexp.results.rows import FIELDS, ROWS_NAME, Row, read_rows
from motionexp.results.settings_table import EXTERNAL

Key = tuple[str, str, str]
"""Source, reference and edit kind: the folders of one video."""
DISTINGUISHING = (
    "model",
    "method",
    "tau",
    "seed",
    "training_seed",
    "steps",
    "train_steps",
    "adapter_scale",
    "precision",
)


def submission(words: Sequence[str]) -> None:
    """`python run.py submission folder=NEW samples=FOLDER`; other words select samples by their rows.

    Raises:
        InputError: a word is missing, or as `write_submission`.
    """
    select = {key: value for key, sign, value in (word.partition("=") for word in words) if sign}
    if len(select) != len(words) or not {"folder", "samples"} <= set(select):
        raise InputError("submission needs folder=NEW and samples=outputs/tgve/MODEL; tau=, seed= ... select")
    folder, samples = user_path(select.pop("folder")), user_path(select.pop("samples"))
    count, whole = write_submission(samples, folder, select)
    print(f"{count} of the benchmark's {whole} videos written to {folder}")


def write_submission(samples: Path, folder: Path, select: Mapping[str, str]) -> tuple[int, int]:
    """Write one sample of each video and edit as JPEGs.

    Args:
        samples: folder with finished cells of `data=tgve`, for instance `outputs/tgve/latte`.
        folder: written to; must be new or empty.
        select: {field, stratum or setting of rows: its value as text}, of the samples that are chosen.

    Returns:
        The number of videos written, and of all videos of the benchmark, which its scorer expects.

    Raises:
        InputError: no sample is chosen, or two for one video and edit, or the folder is not empty; or a row
            is not of a video of the benchmark.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder={folder}: it is not empty; name a new folder")
    if not samples.is_dir():
        raise InputError(f"samples={samples}: there is no such folder")
    chosen: dict[Key, tuple[Cell, Row]] = {}
    for cell, row in _samples(samples):
        if any(_text_of(row, name) != value for name, value in select.items()):
            continue
        key = _key(cell, row)
        if key in chosen:
            raise InputError(_two(chosen[key][1], row))
        chosen[key] = cell, row
    if not chosen:
        chosen_by = "".join(f" {name}={value}" for name, value in select.items())
        raise InputError(
            f"samples={samples}: it holds no samples of data=tgve{' with' * bool(select)}{chosen_by}"
        )
    with clear_disk_errors(str(folder)):
        _write(chosen, folder)
    return len(chosen), sum(SOURCES.values()) * len(EDIT_COLUMNS)


def _write(chosen: Mapping[Key, tuple[Cell, Row]], folder: Path) -> None:
    for (source, reference, kind), (cell, row) in chosen.items():
        edit, path = Edit(kind, row.edit_caption), folder / source / reference / kind
        frames = cell.read_sample(SampleRequest(edit, row.seed or 0, row.sample_id)).frames
        path.mkdir(parents=True)
        # Of a video of 4k + 1 frames the benchmark scores the first 4k.
        for index, frame in enumerate(frames[: scored_frames(len(frames))]):
            Image.fromarray(frame).save(path / f"{index:05d}.jpg", quality=95, subsampling=0)


def _samples(folder: Path) -> Iterator[tuple[Cell, Row]]:
    """The samples of TGVE's own edits with one row each, without those of probes and other systems."""
    for file in sorted(folder.rglob(ROWS_NAME)):
        rows = {row.sample_id: row for row in read_rows(file)}
        for row in rows.values():
            sampled = row.method != EXTERNAL and not row.tau_start
            if sampled and row.suite == "tgve" and row.sample_id and row.edit_kind in EDIT_COLUMNS:
                yield Cell(file.parent), row


def _key(cell: Cell, row: Row) -> Key:
    """The folders of a sample. Raises InputError where a row would lead out of the submission's folder."""
    source = row.strata.get("source", "")
    for name, text, is_right in (
        ("source", source, source in SOURCES),
        ("reference", row.reference, row.reference == file_name(row.reference)),
    ):
        if not is_right:
            raise InputError(f"{cell.folder / ROWS_NAME}: {name} {text!r:.80} is none of TGVE's")
    return source, row.reference, row.edit_kind


def _text_of(row: Row, name: str) -> str:
    if name in row.settings and name not in FIELDS:
        value = row.settings[name]
        return f"{value:g}" if isinstance(value, float) else str(value)
    if name not in FIELDS and name not in row.strata:
        raise InputError(f"{name}=: rows have no such field, stratum or setting")
    return row.stratum(name)


def _two(first: Row, second: Row) -> str:
    """An error's text for two samples of one video and edit: the settings that tell them apart."""
    settings = sorted({*first.settings, *second.settings} - set(DISTINGUISHING) - {"model", "method"})
    differ = {}
    for name in (*DISTINGUISHING, *settings):
        one, two = (r.stratum(name) if name in FIELDS else str(r.settings.get(name)) for r in (first, second))
        if one != two:
            differ[name] = f"{name} ({one}, {two})"
    which = "they are equal"
    if differ:
        which = f"they differ in {', '.join(differ.values())}: choose one of each with {next(iter(differ))}="
    return f"two samples of {first.reference}, {first.edit_kind}: {which}"
