"""`python run.py report`: a folder of pages about all that an output folder holds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config.command_line import selection
from motionexp.config.json_file import read_object
from motionexp.data.videos import frame_rate
from motionexp.diffusion.progress import progress_bar
from motionexp.errors import InputError
from motionexp.files import user_path, write_whole
from motionexp.jobs.failures import failures
from motionexp.jobs.report.commands import command_of
from motionexp.jobs.report.media import read_stored, write_small
from motionexp.jobs.report.overlays import overlays
from motionexp.jobs.report.pages import Content, Media, check_folder, natural, write_pages
from motionexp.jobs.report.references import ShownReference, references_of
from motionexp.jobs.report.samples import ShownSample, samples_of, scores_of
from motionexp.jobs.sweep_table import selected
from motionexp.results.formats import Table
from motionexp.results.rows import Row, as_json, read_rows
from motionexp.results.settings_table import differing_names, settings_tables

Series = Mapping[str, Sequence[float | None]]
"""{metric: its values by frame, or by pair of frames}."""
DEFAULT_FPS = 8.0
"""Of a folder of images, which says nothing of times."""
FOLDER = "report"
"""Of the report in an output folder, unless another is named."""


def report(words: Sequence[str]) -> None:
    """`python run.py report output=FOLDER [folder=NEW]`; other words select samples by their rows.

    Raises:
        InputError: there is nothing to show, or the folder has other files.
    """
    select = selection("report", words)
    output = user_path(select.pop("output", "outputs"))
    folder = user_path(select.pop("folder", output / FOLDER))
    check_folder(folder)
    rows = read_rows(output)
    for name, values in select.items():
        rows = selected(rows, name, values, output)
    content = content_of(rows, output)
    write_media(folder, content)
    write_pages(folder, content)
    print(f"report: {folder / 'index.html'}")


def content_of(rows: Sequence[Row], output: Path) -> Content:
    """What a report of rows shows; `output` is the folder that their paths start from."""
    samples = samples_of(rows, output)
    tables, notes = tables_of(rows, output)
    cells = sorted(path.parent for path in output.glob("*/*/*/status.json"))
    failed = [(failure, log_of(failure.log)) for failure in failures(cells)]
    return Content(
        title=f"{output.resolve().name}",
        samples=samples,
        references=references_of(samples),
        scores=scores_of(samples),
        tables=tables,
        notes=notes,
        facts=facts_of(rows),
        failures=failed,
    )


def tables_of(rows: Sequence[Row], output: Path) -> tuple[list[Table], list[str]]:
    """The tables of rows by the settings in which they differ, or a note why rows have none."""
    try:
        names = differing_names(rows)
        return settings_tables(rows, names, f"by {', '.join(names) or 'tau'}"), []
    except InputError as error:
        return [], [f"There is no table: {error}"]


def facts_of(rows: Iterable[Row]) -> dict[str, list[str]]:
    """{heading: values in words} of what was run."""
    facts: dict[str, dict[str, None]] = {}
    for row in rows:
        is_probe = bool(row.tau_start) or row.seed is None
        for heading, value in (
            ("suites", row.suite),
            ("backbones", row.model),
            ("probes" if row.tau_start else "methods", "" if is_probe and not row.tau_start else row.method),
            ("τ", "" if row.method == "base" or is_probe else f"{row.tau:g}"),
            ("edit kinds", row.edit_kind),
            ("precision", row.precision),
            ("devices", row.device),
            ("commits", f"{row.commit[:12]}{' with uncommitted changes' * row.dirty}" if row.commit else ""),
        ):
            if value:
                facts.setdefault(heading, {})[value] = None
    return {heading: sorted(values, key=natural) for heading, values in facts.items()}


def log_of(path: str) -> str:
    """The text of a log; empty if there is none."""
    try:
        return Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""


def write_media(folder: Path, content: Content) -> None:
    """Write the small videos and details of all samples and references; fills the content's media."""
    for name in ("media", "samples"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    media, problems, series = dict[str, Media](), dict[str, str](), list[Series]()

    def write(entry: ShownSample | ShownReference) -> None:
        key = entry.key if isinstance(entry, ShownSample) else entry.page
        try:
            if isinstance(entry, ShownSample):
                series.append(series_of(entry))
                media[key] = _write_sample(folder, entry, series[-1])
            else:
                media[key] = _write_reference(folder, entry)
        except (InputError, OSError) as error:
            problems[key] = str(error)

    entries = [*content.references, *content.samples]
    # Decoders and encoders leave the interpreter to other threads.
    with ThreadPoolExecutor() as pool, progress_bar(len(entries), "report", "video") as bar:
        for _ in pool.map(write, entries):
            bar.update()
    content.media, content.problems, content.ranges = media, problems, _ranges(series)


def _ranges(series: Iterable[Series]) -> dict[str, tuple[float, float]]:
    """{metric: least and most of its values by frame}."""
    values: dict[str, list[float]] = {}
    for of_sample in series:
        for name, of_frames in of_sample.items():
            values.setdefault(name, []).extend(value for value in of_frames if value is not None)
    return {name: (min(numbers), max(numbers)) for name, numbers in sorted(values.items()) if numbers}


def _write_sample(folder: Path, sample: ShownSample, series: Series) -> Media:
    details: dict[str, Any] = {**details_of(sample), "series": series}
    try:
        if sample.video is None:
            raise InputError("its row names no file")
        frames, fps = read_stored(sample.video), frame_rate(sample.video)
        details |= overlays(frames)
        return _written(folder, sample.key, frames, fps or DEFAULT_FPS)
    finally:
        write_details(folder, sample.key, details)


def _write_reference(folder: Path, reference: ShownReference) -> Media:
    if reference.reference is None:
        raise InputError(reference.problem)
    frames = reference.reference.frames
    write_details(folder, reference.page, overlays(frames))
    return _written(folder, reference.page, frames, reference.reference.fps)


def _written(folder: Path, key: str, frames: np.ndarray, fps: float) -> Media:
    width, height = write_small(folder / "media", key, frames, fps)
    return Media(width, height, len(frames), fps)


def write_details(folder: Path, key: str, details: dict[str, Any]) -> None:
    """Write what a page loads when it is asked for. A page from a disk may load scripts, and no JSON."""
    text = json.dumps({"key": key, **details}, separators=(",", ":"), allow_nan=False)
    write_whole(folder / "samples" / f"{key}.js", f"motionexp.details({text});\n".encode())


def details_of(sample: ShownSample) -> dict[str, Any]:
    """Command, files, row and per-frame scores of a sample, as JSON values."""
    common = {name: value for name, value in as_json(sample.row).items() if name not in OF_ONE_SCORE}
    return {
        "command": command_of(sample),
        "cell": str(sample.cell or ""),
        "adapter": adapter_of(sample),
        "row": common,
        "scores": [
            [row.metric, None if row.value != row.value else row.value, row.reason] for row in sample.rows
        ],
    }


OF_ONE_SCORE = ("metric", "metric_version", "value", "reason", "higher_is_better", "metric_model", "score_id")


def adapter_of(sample: ShownSample) -> str:
    """The path of the adapter that made a sample; empty: there is none."""
    path = sample.cell / "adapter" if sample.cell else None
    return str(path) if path is not None and path.is_dir() else ""


def series_of(sample: ShownSample) -> Series:
    """The stored values by frame of a sample; empty where there are none."""
    path = sample.video.with_suffix(".series.json") if sample.video else None
    if path is None or not path.exists():
        return {}
    try:
        series = read_object(path)
    except InputError:
        return {}
    return {
        name: values
        for name, values in series.items()
        if isinstance(values, list) and all(value is None or type(value) in (int, float) for value in values)
    }
