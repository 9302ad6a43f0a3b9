"""One cell's folder: settings, status, adapter, samples and rows. A file is whole or absent."""

import io
import json
import os
import re
import socket
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config import json_file
from motionexp.data.base import Edit, Reference
from motionexp.data.videos import contact_sheet, enlarged, side_by_side, write_mp4, write_png
from motionexp.data.videos.lossless import lossless_video, read_lossless_video
from motionexp.data.videos.writing import checked
from motionexp.errors import DAMAGE, InputError
from motionexp.files import file_name, locked, remove_leftovers, write_whole
from motionexp.jobs.failures import LOG_FILE, STATUS_FILE, STOPS, in_one_line, write_log
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows

ADAPTER_FILE = "adapter.safetensors"
FIT_FILE = "fit.json"
INVERTED_FILE, STRIP_FILE = "inverted.png", "strip.png"
"""Decoded inverted latents in the cell of a probe along a tree, and of the inversion probe."""
EXACT_FRAMES = {"video": ".mkv", "npz": ".npz"}
"""{value of exact_frames=: the suffix of its files}."""
MOST_OF_KIND = 80
"""Characters of an edit's kind in file names."""
# What zipfile, zlib and numpy raise on files with flipped bits.
DAMAGED_NUMBERS = (*DAMAGE, MemoryError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)
ABOUT_SAMPLE: Mapping[str, Any] = {
    "caption": str, "adapter_steps": int, "seconds": int | float, "peak_memory": int
}  # fmt: skip
ABOUT_FIT: Mapping[str, Any] = {"suite": str, "reference": str, "steps": int, "seconds": int | float}


@dataclass(frozen=True, eq=False)
class Sample:
    """One generated video.

    Attributes:
        edit: its caption and kind.
        index: of its initial noise.
        frames: (F, H, W, 3) uint8 RGB.
        adapter_steps: sampling steps with the method on.
        seconds: wall time of its batch, divided by the batch's size.
        peak_memory: bytes, of the device on a GPU and else of the process.
    """

    edit: Edit
    index: int
    frames: np.ndarray
    adapter_steps: int
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class SampleRequest:
    """One sample that a job makes and scores: an edit with the index of its initial noise, and its id."""

    edit: Edit
    index: int
    sample_id: str


@dataclass(frozen=True)
class Cell:
    """`outputs/SUITE/MODEL/ID/`: the results of one adapter, or of the base model, on one reference."""

    folder: Path

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def has_adapter(self) -> bool:
        return (self.adapter / ADAPTER_FILE).exists()

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Lock the cell for this process. What is stored has to be read again under the lock.

        Args:
            on_wait: called before waiting for another process that has the lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock", on_wait):
            yield

    @contextmanager
    def running(self, about: Mapping[str, Any], on_wait: Callable[[], None]) -> Iterator[None]:
        """Lock the cell as `locked` does. `status.json` says running, then done, interrupted or failed.

        The status holds the state, since when, the host and the process; of a failure also the error in one
        line, and the name of the file with its traceback.

        Args:
            about: further entries of the status, which describe the cell.
            on_wait: see `locked`.
        """
        with self.locked(on_wait):
            remove_leftovers(self.folder, below=True)
            self._write_status({"state": "running", **about})
            try:
                yield
            except BaseException as error:
                if isinstance(error, STOPS):
                    self._write_last_status({"state": "interrupted", **about})
                else:
                    log = write_log(self.folder, error)
                    failed = {"state": "failed", **about, "error": in_one_line(error)}
                    self._write_last_status(failed | ({"log": log.name} if log else {}))
                raise
            (self.folder / LOG_FILE).unlink(missing_ok=True)
            self._write_status({"state": "done", **about})

    def add_to_status(self, **entries: Any) -> None:
        """Add entries to the status that is stored."""
        write_json(self.folder / STATUS_FILE, {**self.status(), **entries})

    def _write_status(self, status: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        process = {"since": now, "host": socket.gethostname(), "pid": os.getpid()}
        write_json(self.folder / STATUS_FILE, {**status, **process})

    def _write_last_status(self, status: Mapping[str, Any]) -> None:
        # Most often the disk is full. The error that is being raised is more useful than the status.
        with suppress(OSError):
            self._write_status(status)

    def status(self) -> dict[str, Any]:
        """The content of `status.json`, or `{"state": "new"}` if there is none."""
        return {"state": "new"} | (read_json(self.folder / STATUS_FILE) or {})

    def write_config(self, text: str) -> None:
        """Store the resolved settings of the last run."""
        write_whole(self.folder / "config.yaml", text.encode())

    def sample_path(self, request: SampleRequest, suffix: str) -> Path:
        """The path of a sample's file; the sample's id ends the name and alone identifies the sample."""
        kind = re.sub(r"[^A-Za-z0-9_]+", "_", request.edit.kind)[:MOST_OF_KIND]
        return self.media / f"{kind}-{request.index}-{file_name(request.sample_id)}{suffix}"

    def has_sample(self, request: SampleRequest) -> bool:
        """Whether the sample's exact frames are stored."""
        return self._exact_frames(request).exists()

    def _exact_frames(self, request: SampleRequest) -> Path:
        """The file of the exact frames, whatever `exact_frames=` was when it was written."""
        paths = [self.sample_path(request, suffix) for suffix in EXACT_FRAMES.values()]
        return next((path for path in paths if path.exists()), paths[0])

    def save_sample(
        self, request: SampleRequest, sample: Sample, fps: float, exact_frames: str = "video"
    ) -> None:
        """Write a sample as mp4 and contact sheet. Its exact frames come last: they mark it as complete."""
        write_mp4(self.sample_path(request, ".mp4"), enlarged(sample.frames), fps)
        write_png(self.sample_path(request, ".png"), contact_sheet(sample.frames))
        about = {name: getattr(sample, name) for name in ("adapter_steps", "seconds", "peak_memory")}
        about["caption"] = request.edit.caption
        path = self.sample_path(request, EXACT_FRAMES[exact_frames])
        if exact_frames == "video":
            write_whole(path, lossless_video(sample.frames, fps, about))
            return
        memory = io.BytesIO()
        np.savez_compressed(memory, frames=sample.frames, about=np.array(json.dumps(about)))
        write_whole(path, memory.getvalue())

    def save_preview(self, sample: Sample, step: int, fps: float) -> None:
        """Write a sample of the adapter as it is after `step` training steps."""
        write_mp4(self.media / "previews" / f"step-{step:06d}.mp4", enlarged(sample.frames), fps)

    def read_sample(self, request: SampleRequest) -> Sample:
        """Read a stored sample.

        Raises:
            InputError: the file is damaged.
        """
        path = self._exact_frames(request)
        try:
            if path.suffix == EXACT_FRAMES["video"]:
                frames, about = read_lossless_video(path.read_bytes())
            else:
                with np.load(path, allow_pickle=False) as file:
                    frames, about = checked(file["frames"]), json.loads(str(file["about"]))
            check_types(about, ABOUT_SAMPLE)
        except DAMAGED_NUMBERS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{path}: damaged ({reason}); delete it, and the same command samples it again"
            ) from error
        numbers = (about["adapter_steps"], about["seconds"], about["peak_memory"])
        return Sample(request.edit, request.index, frames, *numbers)

    def add_series(self, request: SampleRequest, series: Mapping[str, np.ndarray]) -> None:
        """Add per-frame values, {metric: values}, to the sample's `.series.json`; NaN becomes null."""
        path = self.sample_path(request, ".series.json")
        path.parent.mkdir(exist_ok=True)
        new = {
            name: [round(float(value), 6) if np.isfinite(value) else None for value in values]
            for name, values in series.items()
        }
        write_json(path, (read_json(path) or {}) | new)

    def rows(self) -> list[Row]:
        """The cell's rows. Raises InputError if the file is damaged."""
        path = self.folder / ROWS_NAME
        return read_rows(path) if path.exists() else []

    def add_rows(self, rows: list[Row]) -> None:
        """Append rows to the cell's file, which is written whole."""
        append_rows(self.folder / ROWS_NAME, rows)


class Samples:
    """A cell's samples. Each is decoded when it is first read, and once until it is dropped."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._decoded: dict[str, Sample] = {}

    def read(self, request: SampleRequest) -> Sample:
        """See `Cell.read_sample`."""
        if request.sample_id not in self._decoded:
            self._decoded[request.sample_id] = self.cell.read_sample(request)
        return self._decoded[request.sample_id]

    def drop(self, requests: Sequence[SampleRequest]) -> None:
        """Forget the frames of these samples."""
        for request in requests:
            self._decoded.pop(request.sample_id, None)


def write_grid(
    path: Path, reference: Reference, columns: Sequence[tuple[str, Samples, Sequence[SampleRequest]]]
) -> bool:
    """Write a video of the reference and the columns' samples side by side, with a row for each edit.

    Where edits have images, these are the first column.

    Args:
        path: of the mp4.
        reference: fills a column.
        columns: label, samples of a cell, and one request for each edit of the reference, in order. A column
            that lacks a sample is left out.

    Returns:
        Whether the video was written: at least one column must have all its samples.
    """
    whole = [
        (label, [samples.read(request).frames for request in requests])
        for label, samples, requests in columns
        if all(samples.cell.has_sample(request) for request in requests)
    ]
    if not whole:
        return False
    images = [edit.pixels for edit in reference.edits]
    labels = [*["image"] * (images[0] is not None), "reference", *(label for label, _ in whole)]
    rows = [
        (
            edit.caption,
            [
                *([] if image is None else [np.repeat(image[None], len(reference.frames), axis=0)]),
                reference.frames,
                *(videos[number] for _, videos in whole),
            ],
        )
        for number, (edit, image) in enumerate(zip(reference.edits, images, strict=True))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, side_by_side(rows, labels), reference.fps)
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None if there is no file. Raises InputError if it is damaged."""
    if not path.exists():
        return None
    try:
        content = json_file.read_json(path)
    except InputError as error:
        raise InputError(f"{error}: damaged; delete it and run the same command again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; delete it and run the same command again")
    return content


def read_fit_record(adapter: Path) -> dict[str, Any]:
    """The record that a training left beside its adapter (folder or file); empty if there is none.

    Raises:
        InputError: the record is damaged.
    """
    path = (adapter.parent if adapter.is_file() else adapter) / FIT_FILE
    if record := read_json(path):
        try:
            check_types(record, ABOUT_FIT)
        except ValueError as error:
            raise InputError(
                f"{path}: damaged ({error}); delete it and run the same command again"
            ) from error
    return record or {}


def check_types(content: Any, types: Mapping[str, Any]) -> None:
    """Raise ValueError if a JSON object lacks one of these entries, or has another type there."""
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    for name, kind in types.items():
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool):
            raise ValueError(f"{name} is {content.get(name)!r:.80}")
