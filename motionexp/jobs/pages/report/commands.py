"""The command that makes a sample again, from its rows and from the settings that its cell stores."""

import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from motionexp.config.command_line import listed_texts, named
from motionexp.config.options import option_file, options
from motionexp.config.yaml_file import read_yaml
from motionexp.errors import InputError
from motionexp.jobs.pages.report.samples import ShownSample
from motionexp.results.selection import default_of
from motionexp.results.settings_table import EXTERNAL

BESIDE = ("start", "fps", "stride", "fit", "adapter", "mode")
"""Settings that change samples and stand in no table."""
EXTERNAL_LORA = "external_lora"
UNUSUAL = (TypeError, LookupError, ValueError, AttributeError, ArithmeticError)
"""What settings raise whose values have other types than a job writes."""
OF_CLIP = ("video", "caption")
"""Settings that stand for `data=clip`."""
BUNDLED = "shapes"
"""The suite and the option of the bundled world."""


def command_of(sample: ShownSample) -> str:
    """The command that makes a sample; empty for videos of another system, and without a cell's settings."""
    stored = stored_settings(sample)
    if sample.row.method == EXTERNAL or not stored:
        return ""
    try:
        return shlex.join(["python", "run.py", *_words(sample, stored)])
    except UNUSUAL:
        return ""  # its settings are not those of a job


def _words(sample: ShownSample, stored: Mapping[str, Any]) -> Iterator[str]:
    row = sample.row
    yield f"model={row.model}"
    if stored.get("video"):
        yield from (f"{name}={stored[name]}" for name in OF_CLIP)
        yield listed_texts("edits", [row.edit_caption])
    else:
        yield from _data_words(stored.get("data") or {})
        yield named("references", [row.reference])
        if stored.get("edits"):
            yield listed_texts("edits", [row.edit_caption])
        elif row.edit_kind:
            yield named("edit_kinds", [row.edit_kind])
    if stored.get("image"):
        yield f"image={stored['image']}"
    yield f"tau={row.tau:g}"
    yield from sample.settings[1:]
    if row.method not in ("base", EXTERNAL_LORA):
        yield from _changed(row.settings.get("method", {}), option_file("method", row.method), "method.")
    yield from _changed(row.settings, {name: default_of(name, row) for name in BESIDE})
    if row.seed:
        yield f"seeds={row.seed + 1}"
    yield f"precision={row.precision}"


def _data_words(data: Mapping[str, Any]) -> Iterator[str]:
    """`data=NAME`, and the settings within it that differ from the option's own."""
    for option in options("data"):
        defaults = option_file("data", option)
        if defaults.get("_target_") == data.get("_target_"):
            if option != BUNDLED:
                yield f"data={option}"
            yield from _changed(data, defaults, "data.")
            return
    yield f"data._target_={data.get('_target_')}"


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Words for the settings that differ from their defaults; a default such as ${fit} is a job's setting."""
    for name, default in defaults.items():
        value = settings.get(name, default)
        if value != default and "$" not in str(default):
            yield f"{before}{name}={value}"


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
