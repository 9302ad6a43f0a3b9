"""Finished samples for other scorers: TGVE's layout, SOURCE/VIDEO/EDIT/00000.jpg, or plain videos."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from motionexp.config.commands import SubmissionConfig, command_settings
from motionexp.data.base import Edit, Reference
from motionexp.data.tgve import EDIT_COLUMNS, SOURCES, scored_frames
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError
from motionexp.files import file_name, user_path, write_whole
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.machine import clear_disk_errors
from motionexp.jobs.references import stored_reference
from motionexp.jobs.results_folder import ResultsFolder
from motionexp.results.formats import amount
from motionexp.results.rows import FIELDS, ROWS_NAME, Row, read_rows
from motionexp.results.selection import check_values, setting_of, values_in
from motionexp.results.settings_table import EXTERNAL

Key = tuple[str, str, str]
"""Source, reference and edit kind: the folders of one video."""
SampleKey = tuple[str, str, str, str, int]
"""Suite, reference, kind and caption of the edit, and seed."""
K = TypeVar("K", bound=Hashable)
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
    """`python run.py submission folder=NEW samples=FOLDER [layout=videos]`; other words select samples.

    Raises:
        InputError: a word is missing, or as `write_submission` and `write_videos`.
    """
    cfg, select = command_settings("submission", SubmissionConfig, words, selects=True)
    folder, samples = user_path(cfg.folder), user_path(cfg.samples)
    if cfg.layout == "videos":
        print(f"{amount(write_videos(samples, folder, select), 'video')} written to {folder}")
        return
    count, whole = write_submission(samples, folder, select)
    print(f"{count} of the benchmark's {whole} videos written to {folder}")


def write_submission(samples: Path, folder: Path, select: Mapping[str, str]) -> tuple[int, int]:
    """Write one sample of each video and edit as JPEGs.

    Args:
        samples: folder with finished cells of `data=tgve`, for instance `outputs/tgve/latte`, or of a sweep.
        folder: written to; must be new or empty.
        select: {field, stratum or setting of rows: its values with commas between}, of the chosen samples.

    Returns:
        The number of videos written, and of all videos of the benchmark, which its scorer expects.

    Raises:
        InputError: no sample has a selected value, two are of one video and edit, or the folder is not empty;
            or a row is not of a video of the benchmark.
    """
    chosen = _chosen(samples, folder, select, _of_benchmark, _key, "samples of data=tgve")
    with clear_disk_errors(str(folder)):
        _write(chosen, folder)
    return len(chosen), sum(SOURCES.values()) * len(EDIT_COLUMNS)


def write_videos(samples: Path, folder: Path, select: Mapping[str, str]) -> int:
    """Write one sample of each reference, edit and seed as a video, with its caption and its reference.

    `videos/NAME.mp4` are the samples, `prompts.json` their captions by name, as VBench's `custom_input` reads
    them, and `references/NAME.mp4` the references under the same names, for what compares two folders
    (FVD, DINO similarity).

    Args:
        samples: folder with finished cells of any suite, or of a sweep.
        folder, select: as of `write_submission`.

    Returns:
        The number of videos.

    Raises:
        InputError: as `write_submission`; or a reference cannot be read again, or is another video now.
    """
    chosen = _chosen(samples, folder, select, lambda row: True, _key_of_sample, "samples of jobs")
    names = file_names(chosen)
    references: dict[tuple[str, str], Reference] = {}
    with clear_disk_errors(str(folder)):
        for key, (cell, row) in chosen.items():
            if key[:2] not in references:
                references[key[:2]] = stored_reference(cell.folder, row)
            reference = references[key[:2]]
            for part, frames in (("videos", _frames(cell, row)), ("references", reference.frames)):
                path = folder / part / names[key]
                path.parent.mkdir(parents=True, exist_ok=True)
                write_mp4(path, frames[: reference.scored_frames], reference.fps)
        prompts = {names[key]: row.edit_caption for key, (_, row) in chosen.items()}
        write_whole(folder / "prompts.json", json.dumps(prompts, ensure_ascii=False, indent=1).encode())
    return len(chosen)


def file_names(keys: Iterable[SampleKey]) -> dict[SampleKey, str]:
    """{key: REFERENCE-KIND-SEED.mp4}; a number tells those apart that would have one name."""
    names: dict[SampleKey, str] = {}
    uses: Counter[str] = Counter()
    for key in keys:
        _, reference, kind, _, seed = key
        name = file_name(f"{reference}-{kind}-{seed}")
        uses[name] += 1
        names[key] = f"{name}.mp4" if uses[name] == 1 else f"{name}-{uses[name]}.mp4"
    return names


def _chosen(
    samples: Path,
    folder: Path,
    select: Mapping[str, str],
    is_candidate: Callable[[Row], bool],
    key_of: Callable[[Cell, Row], K],
    what: str,
) -> dict[K, tuple[Cell, Row]]:
    """The samples that are selected, one for each key. Raises InputError as `write_submission`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder={folder}: it is not empty; name a new folder")
    if not samples.is_dir():
        raise InputError(f"samples={samples}: there is no such folder")
    candidates = [(cell, row) for cell, row in _samples(samples) if is_candidate(row)]
    if not candidates:
        raise InputError(f"samples={samples}: it holds no {what}")
    for name, values in select.items():
        rows = [row for _, row in candidates]
        check_values(name, values, {_text_of(row, name) for row in rows}, rows, samples)
        # The base model's samples are chosen by their own tau, 1000: they are no second ones of an edit.
        candidates = [sample for sample in candidates if _text_of(sample[1], name) in values_in(values)]
    chosen: dict[K, tuple[Cell, Row]] = {}
    for cell, row in candidates:
        key = key_of(cell, row)
        if key in chosen:
            raise InputError(_two(chosen[key][1], row))
        chosen[key] = cell, row
    return chosen


def _write(chosen: Mapping[Key, tuple[Cell, Row]], folder: Path) -> None:
    for (source, reference, kind), (cell, row) in chosen.items():
        frames, path = _frames(cell, row), folder / source / reference / kind
        path.mkdir(parents=True)
        # Of a video of 4k + 1 frames the benchmark scores the first 4k.
        for index, frame in enumerate(frames[: scored_frames(len(frames))]):
            Image.fromarray(frame).save(path / f"{index:05d}.jpg", quality=95, subsampling=0)


def _frames(cell: Cell, row: Row) -> np.ndarray:
    edit = Edit(row.edit_kind, row.edit_caption)
    return cell.read_sample(SampleRequest(edit, row.seed or 0, row.sample_id)).frames


def _samples(folder: Path) -> Iterator[tuple[Cell, Row]]:
    """The samples with one row each, without those of probes and other systems."""
    for cell, stored in _cells(folder):
        rows = {row.sample_id: row for row in stored}
        for row in rows.values():
            if row.method != EXTERNAL and not row.tau_start and row.sample_id:
                yield Cell(cell), row


def _cells(folder: Path) -> Iterator[tuple[Path, Iterable[Row]]]:
    """The cells below a folder, or those of a sweep and of the base model beside them, with their rows."""
    results = ResultsFolder(folder)
    if not results.is_sweep:
        yield from ((file.parent, read_rows(file)) for file in sorted(folder.rglob(ROWS_NAME)))
        return
    of_cells: dict[Path, list[Row]] = defaultdict(list)
    for row in results.rows():
        if (cell := results.cell_of(row)) is not None:
            of_cells[cell].append(row)
    yield from sorted(of_cells.items())


def _of_benchmark(row: Row) -> bool:
    return row.suite == "tgve" and row.edit_kind in EDIT_COLUMNS


def _key_of_sample(cell: Cell, row: Row) -> SampleKey:
    return row.suite, row.reference, row.edit_kind, row.edit_caption, row.seed or 0


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
    """As `setting_of`; `seed` is the number of a sample, as in `_two`, and no setting."""
    return row.stratum(name) if name == "seed" else setting_of(row, name)


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
