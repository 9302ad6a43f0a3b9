"""The probes of a report: the videos of each unit of work by pair of timesteps, strips and boundaries."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from motionexp.errors import InputError
from motionexp.files import file_name, write_whole
from motionexp.jobs.cell import INVERTED_FILE, STRIP_FILE
from motionexp.probes.analysis.boundary import in_words
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.probes.timesteps import EDGES
from motionexp.results.cell_state import read_state
from motionexp.results.rows import Row
from motionexp.results.settings_table import LABELS

STARTS, ENDS = tuple(f"{edge}" for edge in EDGES[:0:-1]), tuple(f"{edge}" for edge in EDGES[-2::-1])
"""From noise on: the first and the last timestep of a changed condition."""
OF_MODELS = ("log_snr", "energy")
"""Metrics of a model itself, which its boundary needs beside its probes."""
STRIP_QUALITY = 85
"""Of WebP; the stored strip is without loss, and ten times as large."""
MOST_OF_WEBP = 16383
"""Pixels of a side."""


@dataclass(frozen=True)
class PairVideo:
    """The video of a pair of timesteps: its key in the report, its stored file and its values by metric."""

    key: str
    video: Path
    values: Mapping[str, float]


@dataclass(frozen=True)
class ProbeUnit:
    """A unit of a probe's work.

    Attributes:
        kind: the probe.
        name: of the unit: its reference and its kind of edit.
        cell: its folder.
        rows: of its videos.
        videos: {sample id: path of the stored mp4}.
    """

    kind: str
    name: str
    cell: Path
    rows: Sequence[Row]
    videos: Mapping[str, Path]

    @property
    def key(self) -> str:
        """Names its files in the report."""
        return file_name(f"probe-{self.cell.name}")

    @property
    def model(self) -> str:
        """That was probed."""
        return self.cell.parent.name

    @property
    def caption(self) -> str:
        """The changed caption; empty: none."""
        return self.rows[0].edit_caption if self.rows else ""

    @cached_property
    def pairs(self) -> dict[tuple[str, str], PairVideo]:
        """{(start, end): video}; the control is ("none", "none")."""
        by_sample: dict[str, dict[str, float]] = {}
        place: dict[str, tuple[str, str]] = {}
        for row in self.rows:
            by_sample.setdefault(row.sample_id, {})[row.metric] = row.value
            place[row.sample_id] = row.tau_start, row.tau_end
        return {
            place[sample]: PairVideo(file_name(sample), self.videos[sample], values)
            for sample, values in by_sample.items()
            if sample in self.videos
        }

    @property
    def metrics(self) -> dict[str, str]:
        """{metric: heading} of the metrics that have a value of a pair, without those of old attributes."""
        labels = {"text_alignment": LABELS["text"], "flow_similarity": LABELS["flow"]}
        labels |= {"velocity_similarity": LABELS["motion"]}
        names = dict.fromkeys(
            name
            for pair in self.pairs.values()
            for name, value in pair.values.items()
            if not math.isnan(value)
        )
        order = sorted(names, key=lambda name: (name not in labels, name.startswith("old_"), name))
        return {name: labels.get(name, name.replace("_", " ")).rstrip(" ↑↓") for name in order}

    @property
    def strip(self) -> Path | None:
        """The picture of decoded inverted latents, in the published results a WebP; None: there is none."""
        names = INVERTED_FILE, STRIP_FILE, f"{self.key}.webp"
        return next((path for name in names if (path := self.cell / name).is_file()), None)


@dataclass(frozen=True)
class Probes:
    """The probes of an output folder.

    Attributes:
        units: of all probes.
        boundaries: lines about the boundary between motion and appearance, one for each model and contrast.
        ranges: {metric: least and most value of all units}, for one scale of colours.
        figures: {name: path} of the figures that jobs drew.
    """

    units: Sequence[ProbeUnit] = ()
    boundaries: Sequence[str] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    figures: Mapping[str, Path] = field(default_factory=dict)


def probes_of(rows: Sequence[Row], output: Path, cells: Sequence[Path]) -> Probes:
    """The probes among the cells of an output folder, whose rows are among `rows`."""
    by_sample: dict[str, list[Row]] = {}
    for row in rows:
        if row.tau_start:
            by_sample.setdefault(row.sample_id, []).append(row)
    units = []
    for cell in cells:
        try:
            about = read_state(cell).about
        except (InputError, OSError):
            continue  # the page of failures has it
        if "probe" in about:
            units.append(_unit(cell, str(about["probe"]), str(about.get("unit", "")), by_sample))
    if not units:
        return Probes()
    figures = {
        f"{path.parent.name}: {path.stem}": path for path in sorted(output.glob("*/*/figures/*/*.svg"))
    }
    units = sorted(
        (unit for unit in units if unit.pairs or unit.strip), key=lambda unit: (unit.model, unit.name)
    )
    return Probes(units, boundaries_of(rows), _ranges(units), figures)


def _unit(cell: Path, kind: str, name: str, by_sample: Mapping[str, list[Row]]) -> ProbeUnit:
    videos = {path.stem.rpartition("-")[2]: path for path in sorted(cell.glob("media/*.mp4"))}
    rows = [row for sample in videos for row in by_sample.get(sample, ())]
    return ProbeUnit(kind, name, cell, rows, videos)


def boundaries_of(rows: Sequence[Row]) -> list[str]:
    """Lines about the boundary of each model and contrast that was probed, or why there is none."""
    try:
        analysis = Analysis.of_rows([row for row in rows if row.tau_start or row.metric in OF_MODELS])
        return [
            f"{model}{', ' * bool(contrast)}{contrast}: {in_words(boundary, analysis.log_snr[model])}"
            for (model, contrast), boundary in analysis.boundaries.items()
        ]
    except InputError as error:
        return [f"undetermined: {error}"]


def _ranges(units: Sequence[ProbeUnit]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {}
    for unit in units:
        for pair in unit.pairs.values():
            for name, value in pair.values.items():
                if not math.isnan(value):
                    values.setdefault(name, []).append(value)
    return {name: (min(numbers), max(numbers)) for name, numbers in values.items()}


def write_strip(folder: Path, unit: ProbeUnit) -> None:
    """Write the strip of a unit, if it has one, as `KEY.webp`."""
    if unit.strip is None or (folder / f"{unit.key}.webp").exists():
        return
    memory = io.BytesIO()
    with Image.open(unit.strip) as picture:
        picture.thumbnail((MOST_OF_WEBP, MOST_OF_WEBP))
        picture.convert("RGB").save(memory, "WEBP", quality=STRIP_QUALITY)
    write_whole(folder / f"{unit.key}.webp", memory.getvalue())
