"""One cell's folder: settings, status, adapter, samples and rows, each file whole or absent."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.data.base import Edit
from motionexp.data.videos import contact_sheet, enlarged, write_mp4, write_png
from motionexp.errors import InputError
from motionexp.files import locked, write_whole
from motionexp.jobs.evaluation import Sample
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows

ADAPTER_FILE = "adapter.safetensors"
FIT_FILE = "fit.json"


@dataclass(frozen=True)
class Kept:
    """A sample in a cell's folder: the video for the eye, and what was measured while it was made."""

    file: Path
    adapter_steps: int
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Cell:
    """`outputs/SUITE/MODEL/ID/`: what one adapter, or the base model, gave for one reference."""

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
    def running(self, about: Mapping[str, Any], on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds the cell for this process and keeps `status.json`: running, then done, interrupted or failed.

        Args:
            about: what the cell is, for the reader of its status.
            on_wait: called if another process has it, before waiting for that.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock", on_wait):
            self._write_status({"state": "running", **about, "pid": os.getpid()})
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                self._write_last_status({"state": "interrupted", **about})
                raise
            except BaseException as error:
                self._write_last_status(
                    {"state": "failed", **about, "error": f"{type(error).__name__}: {error}"}
                )
                raise
            self._write_status({"state": "done", **about})

    def _write_status(self, status: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.folder / "status.json", {**status, "updated": now})

    def _write_last_status(self, status: Mapping[str, Any]) -> None:
        try:
            self._write_status(status)
        except OSError:
            # A full disk is what most often brings us here; the error on its way says more than the status.
            return

    def status(self) -> dict[str, Any]:
        """The content of `status.json`; `{"state": "new"}` where there is none."""
        return read_json(self.folder / "status.json") or {"state": "new"}

    def write_config(self, text: str) -> None:
        """Keeps the resolved settings of the last run."""
        write_whole(self.folder / "config.yaml", text.encode())

    def fit_record(self) -> dict[str, Any]:
        """What is known of the training: seconds, steps, trained; empty where nothing was trained here."""
        return read_json(self.adapter / FIT_FILE) or {}

    def sample_path(self, edit: Edit, index: int, sample_id: str, suffix: str) -> Path:
        """Where a file of a sample lies; its id ends the name and alone identifies it."""
        kind = re.sub(r"[^A-Za-z0-9_]+", "_", edit.kind)
        return self.media / f"{kind}-{index}-{sample_id}{suffix}"

    def has_sample(self, edit: Edit, index: int, sample_id: str) -> bool:
        return self.sample_path(edit, index, sample_id, ".npz").exists()

    def keep_sample(self, sample: Sample, sample_id: str, fps: float) -> None:
        """Writes a sample as mp4 and contact sheet, and last its exact frames, by which it is there."""
        path = self.sample_path(sample.edit, sample.index, sample_id, "")
        write_mp4(path.with_name(path.name + ".mp4"), enlarged(sample.frames), fps)
        write_png(path.with_name(path.name + ".png"), contact_sheet(sample.frames))
        about = {
            "caption": sample.edit.caption,
            "adapter_steps": sample.adapter_steps,
            "seconds": sample.seconds,
            "peak_memory": sample.peak_memory,
        }
        memory = io.BytesIO()
        np.savez_compressed(memory, frames=sample.frames, about=np.array(json.dumps(about)))
        write_whole(path.with_name(path.name + ".npz"), memory.getvalue())

    def keep_preview(self, sample: Sample, step: int, fps: float) -> None:
        """Writes what the adapter gave after so many training steps."""
        write_mp4(self.media / "previews" / f"step-{step:06d}.mp4", enlarged(sample.frames), fps)

    def read_sample(self, edit: Edit, index: int, sample_id: str) -> tuple[np.ndarray, Kept]:
        """A kept sample's exact frames (F, H, W, 3) uint8, and what is known of it.

        Raises:
            InputError: the file is damaged.
        """
        path = self.sample_path(edit, index, sample_id, ".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                frames, about = file["frames"], json.loads(str(file["about"]))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: damaged ({error}); delete it, and the same command samples it again"
            ) from error
        video = self.sample_path(edit, index, sample_id, ".mp4")
        return frames, Kept(video, about["adapter_steps"], about["seconds"], about["peak_memory"])

    def keep_series(self, edit: Edit, index: int, sample_id: str, series: Mapping[str, np.ndarray]) -> None:
        """Adds per-frame values to the sample's `.series.json`; NaN becomes null."""
        path = self.sample_path(edit, index, sample_id, ".series.json")
        known = read_json(path) or {}
        new = {
            name: [round(float(value), 6) if np.isfinite(value) else None for value in values]
            for name, values in series.items()
        }
        write_json(path, known | new)

    def rows(self) -> list[Row]:
        """The cell's rows; raises InputError where the file is damaged."""
        path = self.folder / ROWS_NAME
        return read_rows(path) if path.exists() else []

    def add_rows(self, rows: list[Row]) -> None:
        append_rows(self.folder / ROWS_NAME, rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object for people to read, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no file. Raises InputError where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run the same command again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; delete it and run the same command again")
    return content
