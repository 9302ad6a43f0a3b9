"""What loggers show of a cell: its settings, scores and videos. Imports no torch."""

import csv
import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config.metrics import measurable
from motionexp.config.run_settings import RunSettings
from motionexp.config.scoring import PAIRS
from motionexp.data.base import Reference
from motionexp.data.videos import enlarged, frame_count, read_frames, write_mp4
from motionexp.files import plain_name, write_whole
from motionexp.jobs.cell import Cell
from motionexp.jobs.finished import FinishedCell
from motionexp.jobs.summary import headings
from motionexp.jobs.sweep_plan import SWEEP_FOLDER
from motionexp.results.formats import Grid, markdown_text
from motionexp.results.rows import Row
from motionexp.results.runs import settings_in_words
from motionexp.results.selection import TRAINED

ABOUT_SAMPLES = ("reference", "training seed", "edit", "caption", "seed", "sample", "video")


@dataclass(frozen=True)
class Video:
    """A video of a cell.

    Attributes:
        caption: what it shows, in words.
        path: of its mp4.
        frames: returns (F, H, W, 3) uint8.
        fps: frames a second.
    """

    caption: str
    path: Path
    frames: Callable[[], np.ndarray]
    fps: float


@dataclass(frozen=True)
class Logged:
    """A cell as loggers show it, before its samples are scored, or finished.

    Attributes:
        settings: of its job; of the base model's cells those of the base model.
        reference: that it is of.
        cell: its folder.
        training_seed: of its adapter; None: nothing was trained.
        finished: its results; None before they are there.
        base: the id of the base model's run on the same reference; empty: there is none.
    """

    settings: RunSettings
    reference: Reference
    cell: Cell
    training_seed: int | None = None
    finished: FinishedCell | None = None
    base: str = ""

    @classmethod
    def of(cls, settings: RunSettings, of_base: RunSettings, finished: FinishedCell) -> "Iterator[Logged]":
        """What loggers show of a finished cell, then of the base model's."""
        seeds = [row.training_seed for row in finished.rows if row.training_seed is not None]
        base = None
        if finished.base is not None:
            base = cls(of_base, finished.reference, finished.base.cell, None, finished.base)
        id_of_base = base.run_id if base else ""
        yield cls(settings, finished.reference, finished.cell, next(iter(seeds), None), finished, id_of_base)
        if base is not None:
            yield base

    @property
    def run_id(self) -> str:
        """The id of the run: of the cell and of the settings of the sampling."""
        return f"{self.cell.folder.name}-{self.settings.sampling}"

    @property
    def is_base(self) -> bool:
        """Whether it is the base model."""
        return self.settings.is_base

    @property
    def method(self) -> str:
        """The method's name, as in rows."""
        return self.rows[0].method if self.rows else self.settings.method

    @property
    def tau(self) -> float:
        """The window's lower end, as in rows."""
        return self.rows[0].tau if self.rows else self.settings.tau or 0.0

    @property
    def name(self) -> str:
        """The run's name: the reference, and the settings that differ from the defaults."""
        words = settings_in_words(self.settings.rows, self.method, self.tau)
        seed = [f"training_seed={self.training_seed}"] if self.training_seed else []
        return " ".join([self.reference.name, *words, *seed])

    @property
    def curve(self) -> str:
        """What its curve over tau shows: model, suite, method, and other settings that are no defaults."""
        words = settings_in_words(self.settings.rows, self.method, self.tau)[1:]
        settings = [word for word in words if not word.startswith("method=")]
        return f"{self.settings.model} on {self.reference.suite}: {' '.join([self.method, *settings])}"

    @property
    def sweep(self) -> str:
        """The id of the sweep that this process works for; empty: none."""
        return Path(os.environ.get(SWEEP_FOLDER, "")).name

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of the samples."""
        return self.finished.rows if self.finished else ()

    @property
    def config(self) -> dict[str, Any]:
        """The settings, and what identifies model, reference, adapter and code."""
        settings = dict(self.settings.rows)
        if self.is_base:  # jobs of any tuning share it
            settings = {name: value for name, value in settings.items() if name not in ("method", *TRAINED)}
        about = {
            "model_settings": settings.pop("model"),
            "model": self.settings.model,
            "method_settings": settings.pop("method", {}),
            "method": self.method,
            "tau": self.tau,
            "curve": self.curve,
            "suite": self.reference.suite,
            "reference": self.reference.name,
            "reference_hash": self.reference.content_hash,
            "reference_caption": self.reference.caption,
            "strata": dict(self.reference.strata),
            "training_seed": self.training_seed,
            "cell": self.cell.folder.name,
            "base_run": self.base,
        }
        names = ("precision", "weights_hash", "commit", "dirty", "device", "packages")
        origin = {name: getattr(self.rows[0], name) for name in names} if self.rows else {}
        return {**settings, **about, **origin}

    # Scores

    @cached_property
    def _lines(self) -> dict[str, list[Row]]:
        """The rows of each sample, of each set of samples, and of each sanity baseline."""
        of_baselines = self.finished.baselines[1] if self.finished and self.finished.baselines else ()
        by_sample: dict[str, list[Row]] = {}
        for row in (*self.rows, *of_baselines):
            by_sample.setdefault(row.sample_id, []).append(row)
        return by_sample

    @property
    def columns(self) -> list[str]:
        """The columns of the table of samples: what it is, then every score."""
        metrics = dict.fromkeys(row.metric for rows in self._lines.values() for row in rows)
        return [*ABOUT_SAMPLES, *metrics]

    def lines(self) -> list[list[Any]]:
        """The table of samples: a line for each; a score without a value is None."""
        metrics, lines = self.columns[len(ABOUT_SAMPLES) :], []
        for sample, rows in self._lines.items():
            values = {row.metric: None if math.isnan(row.value) else row.value for row in rows}
            first = rows[0]
            kind = f"sanity baseline: {first.sanity_baseline}" if first.sanity_baseline else first.edit_kind
            about = (self.reference.name, first.training_seed, kind, first.edit_caption, first.seed, sample)
            lines.append([*about, first.sample_file, *(values.get(name) for name in metrics)])
        return lines

    def markdown(self) -> str:
        """The table of samples in Markdown."""
        lines = [[*map(_in_markdown, line)] for line in self.lines()]
        return Grid([markdown_text(name) for name in self.columns], lines, "l").markdown()

    def means(self) -> dict[str, float]:
        """Means over samples: `metrics/NAME` of all metrics, `scores/HEADING` of those in a job's summary."""
        means: dict[str, float] = {}
        values = {(row.sample_id, row.metric): row.value for row in self.rows}
        for metric in dict.fromkeys(row.metric for row in self.rows):
            _add_mean(means, f"metrics/{metric}", [v for (_, name), v in values.items() if name == metric])
        hidden = {f"frame_consistency_{name}" for name in PAIRS if name != self.settings.pairs}
        for metric, (heading, minus) in headings(measurable()).items():
            differences = [
                value - (values.get((sample, minus), math.nan) if minus else 0.0)
                for (sample, name), value in values.items()
                if name == metric and metric not in hidden
            ]
            _add_mean(means, f"scores/{heading}", differences)
        return means

    # Videos

    def videos(self) -> dict[str, Video]:
        """{key: video} of the reference, of each sample, and of cells side by side."""
        reference, fps = self.reference, self.reference.fps
        path = self.cell.folder / "logs" / "reference.mp4"
        if not path.exists():
            write_mp4(path, enlarged(reference.frames), fps)
        videos = {"reference": Video(reference.caption, path, lambda: enlarged(reference.frames), fps)}
        for sample, key in self.keys().items():
            request = next(request for request in self._requests if request.sample_id == sample)
            path = self.cell.sample_path(request, ".mp4")
            if path.exists():
                caption = f"{request.edit.caption} (seed {request.index})"
                videos[key] = _stored(caption, path, fps)
        if self.finished and self.finished.grid[0].exists():
            videos["grid"] = _stored(self.name, self.finished.grid[0], fps)
        return videos

    def keys(self) -> dict[str, str]:
        """{sample: the key of its video}: the edit's kind, numbered where several have it, and the seed."""
        kinds: dict[tuple[str, str], str] = {}
        counts: Counter[str] = Counter()
        keys = {}
        for request in self._requests:
            edit = request.edit.kind, request.edit.caption
            if edit not in kinds:
                kind = plain_name(request.edit.kind) or "edit"
                counts[kind] += 1
                kinds[edit] = f"{kind}_{counts[kind]}" if counts[kind] > 1 else kind
            keys[request.sample_id] = f"samples/{kinds[edit]}-{request.index}"
        return keys

    @property
    def _requests(self) -> Sequence[Any]:
        return self.finished.requests if self.finished else ()

    def digest(self, adapter: bool) -> str:
        """A hash of all that a logger writes; `adapter` says whether the adapter too."""
        scores = sorted((row.score_id, repr(row.value)) for row in self.rows)
        content = [self.run_id, self.config, scores, sorted(self.keys()), self.sweep, adapter]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _in_markdown(value: Any) -> str:
    if value is None:
        return ""
    return markdown_text(f"{value:.4g}" if isinstance(value, float) else str(value))


def _add_mean(means: dict[str, float], name: str, values: Sequence[float]) -> None:
    numbers = [value for value in values if not math.isnan(value)]
    if numbers:
        means[name] = float(np.mean(numbers)) + 0.0


def _stored(caption: str, path: Path, fps: float) -> Video:
    return Video(caption, path, lambda: read_frames(path, frames=frame_count(path)), fps)


def write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV, whole or not at all; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    write_whole(path, text.getvalue().encode(errors="backslashreplace"))
