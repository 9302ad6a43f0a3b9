"""What a page of a report loads of a sample when it is asked for: scripts, since a disk serves no JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.jobs.pages.report.commands import command_of
from motionexp.jobs.pages.report.samples import ShownSample
from motionexp.results.cell_state import STATUS
from motionexp.results.rows import VALUE_FIELDS, as_json

Series = Mapping[str, Sequence[float | None]]
"""{metric: its values by frame, or by pair of frames}."""


def write_details(folder: Path, key: str, details: Mapping[str, Any]) -> None:
    """Write the script `KEY.js` of a sample or a reference."""
    text = json.dumps({"key": key, **details}, separators=(",", ":"), allow_nan=False)
    write_whole(folder / f"{key}.js", f"motionexp.details({text});\n".encode())


def details_of(sample: ShownSample) -> dict[str, Any]:
    """Command, files, row and scores of a sample, as JSON values."""
    cell = sample.cell if sample.cell is not None and (sample.cell / STATUS).exists() else None
    adapter = cell / "adapter" if cell is not None else None
    return {
        "command": command_of(sample),
        "cell": str(cell or ""),
        "adapter": str(adapter) if adapter is not None and adapter.is_dir() else "",
        "row": {name: value for name, value in as_json(sample.row).items() if name not in VALUE_FIELDS},
        "scores": [
            [row.metric, None if math.isnan(row.value) else row.value, row.reason] for row in sample.rows
        ],
    }


def series_of(sample: ShownSample) -> Series:
    """The stored values by frame of a sample; empty where there are none that can be read."""
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
        if isinstance(values, list) and all(value is None or _is_number(value) for value in values)
    }


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def ranges_of(series: Sequence[Series]) -> dict[str, tuple[float, float]]:
    """{metric: least and most of its values by frame}, over several samples."""
    values: dict[str, list[float]] = {}
    for of_sample in series:
        for name, of_frames in of_sample.items():
            values.setdefault(name, []).extend(value for value in of_frames if value is not None)
    return {name: (min(numbers), max(numbers)) for name, numbers in sorted(values.items()) if numbers}
