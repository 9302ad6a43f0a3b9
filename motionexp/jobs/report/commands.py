"""The command that makes a sample again, from its rows and from the settings that its cell stores."""

import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from motionexp.config.command_line import in_quotes, named
from motionexp.config.options import option_file, options
from motionexp.config.yaml_file import read_yaml
from motionexp.errors import InputError
from motionexp.jobs.report.samples import ShownSample
from motionexp.results.settings_table import EXTERNAL

OF_CLIP = ("video", "caption")
"""Settings that stand for `data=clip`."""
BUNDLED = "shapes"
"""The suite and the option of the bundled world."""


def command_of(sample: ShownSample) -> str:
    """The command that makes a sample; empty for videos of another system, and without a cell's settings."""
    stored = stored_settings(sample)
    if sample.row.method == EXTERNAL or not stored:
        return ""
    return shlex.join(["python", "run.py", *_words(sample, stored)])


def _words(sample: ShownSample, stored: Mapping[str, Any]) -> Iterator[str]:
    row = sample.row
    yield f"model={row.model}"
    if stored.get("video"):
        yield from (f"{name}={stored[name]}" for name in OF_CLIP)
        yield f"edits=[{in_quotes(row.edit_caption)}]"
    else:
        yield from _data_words(stored.get("data") or {})
        yield named("references", [row.reference])
        if stored.get("edits"):
            yield f"edits=[{in_quotes(row.edit_caption)}]"
        elif row.edit_kind:
            yield named("edit_kinds", [row.edit_kind])
    yield f"tau={row.tau:g}"
    yield from sample.settings[1:]
    if row.seed:
        yield f"seeds={row.seed + 1}"
    yield f"precision={row.precision}"


def _data_words(data: Mapping[str, Any]) -> Iterator[str]:
    """`data=NAME`, and the settings within it that differ from the option's own."""
    for option in options("data"):
        defaults = option_file("data", option)
        if defaults.get("_target_") != data.get("_target_"):
            continue
        if option != BUNDLED:
            yield f"data={option}"
        for name, default in defaults.items():
            # A default such as ${fit} is a setting of the job.
            if data.get(name, default) != default and "$" not in str(default):
                yield f"data.{name}={data[name]}"
        return
    yield f"data._target_={data.get('_target_')}"


def stored_settings(sample: ShownSample) -> Mapping[str, Any]:
    """The settings that the last job of a sample's cell stored; of the bundled world what its rows say.

    Empty where there are none that can be read.
    """
    stored = _cell_settings(sample.cell) if sample.cell else {}
    if not stored and sample.row.suite == BUNDLED:
        data = option_file("data", BUNDLED)
        return {"data": data | {"split": sample.row.strata.get("split", data["split"])}}
    return stored


@cache
def _cell_settings(cell: Path) -> Mapping[str, Any]:
    try:
        settings = read_yaml(cell / "config.yaml") if (cell / "config.yaml").exists() else {}
    except InputError:
        return {}
    return settings if isinstance(settings, dict) else {}
