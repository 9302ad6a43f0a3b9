"""What a finished job left, found again without torch: where nothing has changed, no model is loaded."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from motionexp.config.adapter_files import adapter_files
from motionexp.config.job_settings import plain_settings
from motionexp.config.schema import JobConfig, model_folder, training_seeds
from motionexp.data.base import Edit, Reference
from motionexp.errors import InputError
from motionexp.files import PACKAGE, user_path, write_whole
from motionexp.jobs.cell import Cell, SampleRequest, Samples, read_fit_record, read_json, write_grid
from motionexp.jobs.references import trained_together
from motionexp.results.rows import Row

GridColumns = Sequence[tuple[str, Cell, Sequence[SampleRequest]]]
PLACE = ("output", "dry_run", "device", "logger", "log_adapter", "report", "trainer", "references")
"""Settings that change no result of a reference."""


@dataclass(frozen=True)
class FinishedCell:
    """The results of one reference.

    Attributes:
        reference: with the edits of the job. With several training seeds it has several cells.
        cell: its folder.
        requests: its samples.
        adapters: the folders of adapters that the job trained; empty if it trained none.
        rows: of the samples.
        baselines: the folder and the rows of its sanity baselines.
        grid: the video side by side, and its columns.
        base: the results of the base model on the reference, which the job compares to.
    """

    reference: Reference
    cell: Cell
    requests: Sequence[SampleRequest]
    adapters: Sequence[Cell]
    rows: Sequence[Row]
    baselines: tuple[Cell, Sequence[Row]] | None
    grid: tuple[Path, GridColumns]
    base: "FinishedCell | None" = None


def write_record(cfg: JobConfig, references: Sequence[Reference], cells: Sequence[FinishedCell]) -> None:
    """Store where the results of each reference are, under a hash of all that they come from.

    Args:
        references: all of the job.
        cells: that are finished; a reference that lacks some has a record that nobody takes for whole.
    """
    output = user_path(cfg.output)
    for reference, group in zip(references, trained_together(references, cfg.train_together), strict=True):
        of_one = {cell.cell: cell for cell in cells if cell.reference.name == reference.name}
        if of_one:
            path = _path(cfg, reference, group)
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = [_entry(finished, output) for finished in of_one.values()]
            write_whole(path, json.dumps({"cells": entries}).encode())


def read_record(cfg: JobConfig, references: Sequence[Reference]) -> list[FinishedCell] | None:
    """The cells of references that a job finished with the same code, settings and files; None: not of all.

    Every file of the results is still there, and every cell's status says that nobody works on it. A job with
    plugins has no record: their code may have changed. A job that has finished more references has a record
    of each, unless it trained others together.
    """
    cells: list[FinishedCell] = []
    for reference, group in zip(references, trained_together(references, cfg.train_together), strict=True):
        of_one = _recorded(cfg, reference, group)
        if of_one is None:
            return None
        cells += of_one
    return cells


def _recorded(cfg: JobConfig, reference: Reference, group: Sequence[str]) -> list[FinishedCell] | None:
    """The cells of one reference, one for each training seed; None where one of them is not finished."""
    output, path = user_path(cfg.output), _path(cfg, reference, group)
    record = None if cfg.plugins else read_json(path)
    if record is None:
        return None
    try:
        if len(record["cells"]) != len(training_seeds(cfg)):
            return None
        entries = [_parsed(entry, output) for entry in record["cells"]]
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: damaged ({error!r:.200}); delete it and run the same command again"
        ) from error
    cells = []
    for entry in entries:
        finished = _finished(reference, entry)
        if finished is None or _relabelled(finished.rows, cfg):
            return None
        cells.append(finished)
    return cells


def write_grids(console: Console, cells: Sequence[FinishedCell]) -> list[Path]:
    """Name the cells, and write their videos side by side again: other jobs may have finished since."""
    grids = []
    for number, finished in enumerate(cells, start=1):
        counted = f"{number} of {len(cells)}, nothing left to train or sample"
        line = f"{finished.reference.name} ({counted})"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        path, columns = finished.grid
        samples = {cell: Samples(cell) for _, cell, _ in columns}
        shown = [(label, samples[cell], requests) for label, cell, requests in columns]
        grids += [path] if write_grid(path, finished.reference, shown) else []
    return grids


def _entry(finished: FinishedCell, output: Path) -> dict[str, Any]:
    path, columns = finished.grid
    baselines = finished.baselines
    return {
        "cell": _below(finished.cell.folder, output),
        "requests": [_plain(request) for request in finished.requests],
        "adapters": [_below(cell.folder, output) for cell in finished.adapters],
        "rows": [row.score_id for row in finished.rows],
        "baselines": baselines
        and [_below(baselines[0].folder, output), [row.score_id for row in baselines[1]]],
        "base": finished.base and _entry(finished.base, output),
        "grid": _below(path, output),
        "columns": [
            [label, _below(cell.folder, output), [_plain(request) for request in requests]]
            for label, cell, requests in columns
        ],
    }


@dataclass(frozen=True)
class _Entry:
    """An entry of a record: as `FinishedCell`, with the ids of rows."""

    cell: Cell
    requests: tuple[SampleRequest, ...]
    adapters: list[Cell]
    rows: list[str]
    baselines: tuple[Cell, list[str]] | None
    grid: tuple[Path, GridColumns]
    base: "_Entry | None"


def _parsed(plain: Mapping[str, Any], output: Path) -> _Entry:
    """What `_entry` wrote. Raises LookupError, TypeError or ValueError for anything else."""
    baselines = None
    if plain["baselines"] is not None:
        folder, score_ids = plain["baselines"]
        baselines = Cell(path_below(output, folder)), _texts(score_ids)
    columns = [
        (_texts([label])[0], Cell(path_below(output, name)), _requests(requests))
        for label, name, requests in plain["columns"]
    ]
    return _Entry(
        Cell(path_below(output, plain["cell"])),
        _requests(plain["requests"]),
        [Cell(path_below(output, name)) for name in plain["adapters"]],
        _texts(plain["rows"]),
        baselines,
        (path_below(output, plain["grid"]), columns),
        None if plain["base"] is None else _parsed(plain["base"], output),
    )


def path_below(folder: Path, name: str) -> Path:
    """The path of a name out of a file, which must lead nowhere else than below the folder.

    Raises TypeError or ValueError for another name.
    """
    path = PurePosixPath(name)
    if any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError("a name is longer than a file's may be")
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name} leads out of {folder}")
    return folder / path


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r:.80} is no list of texts")
    return values


def _finished(reference: Reference, entry: _Entry) -> FinishedCell | None:
    """The results that an entry of a record names; None if one of them is not there."""
    for adapter in entry.adapters:
        read_fit_record(adapter.adapter)  # raises where the record of the training is damaged
    rows, baselines = _rows(entry.cell, entry.rows), None
    if entry.baselines is not None:
        baselines = entry.baselines[0], _rows(*entry.baselines)
    base = None if entry.base is None else _finished(reference, entry.base)
    is_whole = (
        (base is None) == (entry.base is None)
        and entry.cell.status()["state"] == "done"
        and all(entry.cell.has_sample(request) for request in entry.requests)
        and all(adapter.has_adapter for adapter in entry.adapters)
        and len(rows) == len(entry.rows)
        and (entry.baselines is None or baselines is None or len(baselines[1]) == len(entry.baselines[1]))
    )
    if not is_whole:
        return None
    return FinishedCell(
        reference, entry.cell, entry.requests, entry.adapters, rows, baselines, entry.grid, base
    )


def _relabelled(rows: Sequence[Row], cfg: JobConfig) -> bool:
    """Whether another job has stored the rows with another source of tau since."""
    return any(row.settings.get("tau_from", "given") != cfg.tau_from for row in rows)


def _rows(cell: Cell, score_ids: Sequence[str]) -> list[Row]:
    """The rows with these ids that the cell has."""
    stored = {row.score_id: row for row in cell.rows()}
    return [stored[score_id] for score_id in score_ids if score_id in stored]


def _plain(request: SampleRequest) -> list[Any]:
    return [request.edit.kind, request.edit.caption, request.index, request.sample_id]


def _requests(plain: Sequence[Sequence[Any]]) -> tuple[SampleRequest, ...]:
    requests = []
    for kind, caption, index, key in plain:
        if type(index) is not int:
            raise TypeError(f"{index!r:.80} is no index of a sample")
        kind, caption, key = _texts([kind, caption, key])
        requests.append(SampleRequest(Edit(kind, caption), index, key))
    return tuple(requests)


def _below(path: Path, output: Path) -> str:
    return path.relative_to(output).as_posix()


def _path(cfg: JobConfig, reference: Reference, group: Sequence[str]) -> Path:
    """The record's file: its name is a hash of the code, the settings and the files of the results."""
    settings = {name: value for name, value in plain_settings(cfg).items() if name not in PLACE}
    parts = {
        "code": _code(),
        "settings": settings,
        "references": [reference.trained_hash, *group],
        "captions": [reference.caption, *(edit.caption for edit in reference.edits)],
        "images": [str(edit.image) for edit in reference.edits],
        "files": [_state(folder) for folder in _folders(cfg)],
        "precision": _machine(cfg) if cfg.precision == "auto" else "",
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return user_path(cfg.output) / ".cache" / "finished" / f"{digest[:20]}.json"


DEVICES, NVIDIA = Path("/dev"), Path("/proc/driver/nvidia")


@cache
def _code() -> list[Any]:
    """The names and contents of this package's modules, which do not change while it runs."""
    return _state(PACKAGE, "*.py", content=True)


def _folders(cfg: JobConfig) -> list[Path]:
    """The local folders and files that the results come from, beside the references."""
    scoring = cfg.scoring
    names = [scoring.clip, scoring.scorer, scoring.scorer_processor, scoring.tracker_weights, scoring.dino]
    folders = [user_path(name) for name in names if name is not None]
    folders += [folder for folder in [model_folder(cfg.model)] if folder is not None]
    if cfg.adapter is not None:
        for file in adapter_files(cfg.adapter):
            folders += [file, file.with_name("adapter_config.json")]  # peft's settings beside the weights
    return folders


def _state(path: Path, pattern: str = "*", *, content: bool = False) -> list[Any]:
    """Names of the files of a folder, with their contents' hashes, or their sizes and times of change."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
    if content:
        return [
            [str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest()] for file in files
        ]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _machine(cfg: JobConfig) -> list[Any]:
    """What `precision=auto` depends on: the processor's instructions, and the kind of GPU."""
    information = Path("/proc/cpuinfo")
    flags = (
        [line for line in information.read_text().splitlines() if line.startswith("flags")][:1]
        if information.exists()
        else []
    )
    return [cfg.device, platform.machine(), platform.system(), flags, _gpu_kind(DEVICES, NVIDIA, os.environ)]


def _gpu_kind(devices: Path, nvidia: Path, environment: Mapping[str, str]) -> Any:
    """The kind of the GPUs that a process sees; which of them it sees counts where there are several kinds.

    A launcher gives each process a GPU of its own, and the process that looks for finished cells sees all.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if not any(devices.glob("nvidia[0-9]*")) or (visible or "0").strip() == "-1" or visible == "":
        return None
    kinds = {
        line
        for file in nvidia.glob("gpus/*/information")
        for line in file.read_text().splitlines()
        if line.startswith("Model")
    }
    return sorted(kinds) if len(kinds) == 1 else visible
