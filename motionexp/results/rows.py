"""Rows: one value of one metric on one subject, stored as JSON lines.

A rows file is replaced as a whole under a lock, so that a reader, a second writer or a full disk never finds
half a line.
"""

import json
import math
import reprlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from motionexp.config.ids import score_id
from motionexp.config.json_file import DECODER
from motionexp.config.renames import renamed_row
from motionexp.errors import InputError
from motionexp.files import locked, write_whole

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS_NAME = "rows.jsonl"
# Videos that are scored in place of a sample: they show what a score means.
SANITY_BASELINES = {
    "reference": "the reference itself",
    "frozen": "its first frame, held",
    "reversed": "the reference reversed",
    "shuffled": "another reference",
}
Subject = tuple[str, str, int | None]
"""A reference, an edit kind, a seed: see `Row.subject`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One value of one metric on one subject, with all that identifies it.

    `value` is NaN where the metric abstained, for the given `reason`; `metric_model` is a short hash of the
    models that compute the metric. `tau` is a timestep in 0..1000; `adapter_steps` is the number of the
    `steps` sampling steps with the adapter on; it is off again at `off_t`, of log-SNR `off_log_snr`; None:
    never. `strata` are the groups that tables report separately.
    `tau_start` and `tau_end` are a probe's pair of timesteps as text, `none` for its control, `reference` for
    the video of the reference. `training_seed` is that of the adapter. `versions` holds the versions of the
    stages that made the sample (training, sampling, probe); rows from before they were stored have none, and
    are of version 1. `seconds` holds wall time by stage (fit, sample, score) and `peak_memory`
    bytes. `reference_hash` is the reference's content hash. `edit_image` names the image that a sample begins
    with, and has the first digits of its hash.
    """

    metric: str
    metric_version: int
    value: float
    reason: str = ""
    higher_is_better: bool | None = None
    metric_model: str = ""
    score_id: str = ""

    suite: str
    reference: str
    reference_hash: str = ""
    strata: dict[str, str] = field(default_factory=dict)
    edit_kind: str = ""
    edit_caption: str = ""
    edit_image: str = ""
    seed: int | None = None
    training_seed: int | None = None
    tau_start: str = ""
    tau_end: str = ""
    sample_file: str = ""
    adapter_id: str = ""
    sample_id: str = ""
    adapter_steps: int = 0
    off_t: float | None = None
    off_log_snr: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0

    model: str
    method: str
    tau: float
    steps: int
    train_steps: int = 0
    adapter_scale: float = 1.0
    versions: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    packages: dict[str, str] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    weights_hash: str = ""

    @property
    def sanity_baseline(self) -> str:
        """Which of `SANITY_BASELINES` was scored in place of a sample; empty for all other rows."""
        return self.strata.get("sanity_baseline", "")

    @property
    def subject(self) -> Subject:
        """(reference, edit kind, seed): by this two settings are paired."""
        return self.reference, self.edit_kind, self.seed

    @property
    def sampled_model(self) -> str:
        """The model, and the shift of its sampling steps where it has one: a boundary may depend on it."""
        shift = self.settings.get("shift")
        return self.model if shift is None else f"{self.model}, shift {shift:g}"

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, as a mapping of the fields by their names returns it."""
        return getattr(self, name) if name in FIELDS else default

    def stratum(self, name: str) -> str:
        """The value of a field, or else of a stratum or a setting, as text, for the selections of layouts.

        `method.NAME` is an argument of the method.
        """
        if name.startswith("method."):
            value = self.settings.get("method", {}).get(name.removeprefix("method."), "")
        else:
            value = (
                getattr(self, name) if name in FIELDS else self.strata.get(name, self.settings.get(name, ""))
            )
        return f"{value:g}" if isinstance(value, float) else str(value)

    def matches(self, select: Mapping[str, str]) -> bool:
        """Whether the row has the selected values; see `selection.matches`."""
        return all(self.stratum(name) in values.split("|") for name, values in select.items())


CONTRASTS = ("motion-dominant", "appearance-dominant")


def contrast_order(contrast: str) -> tuple[int, str]:
    """Sorts contrasts as tables and figures show them: motion-dominant first, the control after it."""
    return (CONTRASTS.index(contrast) if contrast in CONTRASTS else len(CONTRASTS), contrast)


def key_order(key: tuple[str, str]) -> tuple[str, tuple[int, str]]:
    """Sorts (model, contrast) by model, then as `contrast_order` does."""
    return key[0], contrast_order(key[1])


FIELDS = {entry.name: entry for entry in fields(Row)}
METRIC_FIELDS = ("metric", "metric_version", "metric_model", "higher_is_better")
VALUE_FIELDS = (*METRIC_FIELDS, "value", "reason", "score_id")
EDIT_FIELDS = ("reference", "reference_hash", "strata", "edit_kind", "edit_caption", "edit_image")
# From a sample's seed to its peak memory, in the order of `Row`, which is that of published rows.
SAMPLE_FIELDS = tuple(FIELDS)[[*FIELDS].index("seed") : [*FIELDS].index("model")]
RUN_FIELDS = tuple(name for name in FIELDS if name not in VALUE_FIELDS + EDIT_FIELDS + SAMPLE_FIELDS)
# What a JSON value has to be: a float may lack its point, and isinstance takes dict, but not dict[str, str].
# A file may hold a whole number where a float is meant.
WIDER: dict[Any, Any] = {float: int | float, float | None: int | float | None}
TYPES: dict[str, Any] = {
    name: dict if get_origin(entry.type) is dict else WIDER.get(entry.type, entry.type)
    for name, entry in FIELDS.items()
}
ENTRIES = {name: get_args(entry.type)[1] for name, entry in FIELDS.items() if get_origin(entry.type) is dict}
"""What the values of an object have to be."""
TEXT_FIELDS = frozenset(name for name, entry in FIELDS.items() if entry.type is str)
COUNTS = ("seed", "training_seed", "steps", "train_steps", "adapter_steps", "peak_memory", "metric_version")
RANGES = {**dict.fromkeys(COUNTS, (0, math.inf)), "tau": (0, 1000)}
"""Least and most of numbers; other numbers have no limits."""
MOST_NESTED = 20
"""Levels of objects and lists in a row."""
MOST_BYTES = 2_000_000_000
"""Of a file of rows: more than a million rows."""


def score_id_of(sample: str, metric: str, version: int, model: str) -> str:
    """Score id of a metric; other weights of its `model` give another id."""
    return score_id(sample, metric=f"{metric} {model}".strip(), version=version)


def as_json(row: Row) -> dict[str, Any]:
    """The row as JSON values; NaN becomes null, since JSON has no NaN."""
    plain = {name: getattr(row, name) for name in FIELDS}
    return plain if math.isfinite(row.value) else plain | {"value": None}


def checked_fields(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Some fields of a row from their JSON values, under today's names.

    Raises:
        InputError: a field is unknown, or its value has the wrong type.
    """
    if not plain.keys() <= FIELDS.keys():
        raise InputError(f"unknown fields {_shown(sorted(plain.keys() - FIELDS.keys()))}")
    values = renamed_row(plain)
    if "value" in values and values["value"] is None:
        values["value"] = math.nan
    for name, value in values.items():
        # Most fields are text, for which no call is needed: every command reads thousands of rows.
        if not ((type(value) is str and name in TEXT_FIELDS) or _is_right(name, value)):
            least, most = RANGES.get(name, (-math.inf, math.inf))
            limits = f" from {least} to {most}" if name in RANGES else ""
            raise InputError(f"field {name} is {_shown(value)}; it should be {FIELDS[name].type}{limits}")
    settings = values.get("settings", {})
    for name in ("model", "scoring"):
        if name in settings and not isinstance(settings[name], dict):
            raise InputError(f"field settings has {name}: {_shown(settings[name])}, not an object")
    return values


def _is_right(name: str, value: Any) -> bool:
    """Whether a field may have this value: its type, and the types of an object's entries."""
    if not isinstance(value, TYPES[name]):
        return False
    if isinstance(value, dict):
        of_entry = ENTRIES[name]
        return of_entry is Any or all(
            _is_number(entry) if of_entry is float else isinstance(entry, of_entry)
            for entry in value.values()
        )
    # For isinstance True is an int; rows hold no truth value in place of a number.
    if value is None or isinstance(value, bool | str):
        return not isinstance(value, bool) or FIELDS[name].type in (bool, bool | None)
    if name == "value" and value is math.nan:
        return True
    return _is_number(value, *RANGES.get(name, ()))


def _is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a number that floats and pandas hold, from `least` to `most`."""
    holds = abs(value) < 2**63 if type(value) is int else type(value) is float and math.isfinite(value)
    return holds and least <= value <= most


def _shown(value: Any) -> str:
    return reprlib.repr(value)


def _depth(value: Any) -> int:
    """Levels of objects and lists."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, parts), default=0) if isinstance(value, dict | list) else 0


def decoded(line: bytes) -> Any:
    """The content of a line. Raises ValueError, UnicodeError included, for what no row holds."""
    content = DECODER.decode(line.decode())
    # A line with few brackets is not deep; the count is 50 times faster than the walk.
    if line.count(b"{") + line.count(b"[") > MOST_NESTED and _depth(content) > MOST_NESTED:
        raise ValueError(f"more than {MOST_NESTED} objects within each other")
    if b"\\ud" in line or b"\\uD" in line:
        # Half of a character, which no file and no terminal takes.
        json.dumps(content, ensure_ascii=False).encode()
    return content


def dump_line(plain: object) -> str:
    """One line of JSON; equal content gives equal bytes."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":")) + "\n"


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a JSON-lines file, whole or not at all, one process at a time. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / f".{path.name}.lock"):
        # All is written again: a file that is appended to could end in half a line.
        before = path.read_bytes() if path.exists() else b""
        if before and not before.endswith(b"\n"):  # as an editor may leave it
            before += b"\n"
        write_whole(path, before + "".join(dump_line(as_json(row)) for row in rows).encode())


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, the line's content) of a JSON-lines file.

    Raises:
        InputError: the file cannot be read, or a line is not JSON; it names the file and the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES // 1_000_000_000} GB; split the file")
    try:
        # No splitlines: captions may hold other line separators.
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as rows ({error.strerror})") from error
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            yield number, decoded(line)
        except UnicodeError as error:
            raise InputError(f"{path}, line {number}: cannot be read as text ({error})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not a row ({error}); delete it, or the file to score again"
            ) from error


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON lines, in order.

    Raises:
        InputError: the file is corrupted; the error names the file and the line.
    """
    for number, plain in read_lines(path):
        try:
            if not isinstance(plain, dict):
                raise InputError(f"a row is a JSON object, not {type(plain).__name__}")
            yield Row(**checked_fields(plain))
        except (InputError, TypeError) as error:  # a TypeError names the fields that are missing
            raise InputError(f"{path}, line {number}: not a row ({error})") from error


def read_rows(
    paths: str | Path | Iterable[Path], select: Mapping[str, str] = MappingProxyType({})
) -> list[Row]:
    """The rows of files, and of all cells in folders. Of rows of one score id the last counts.

    Args:
        paths: files of rows, Parquet or JSON lines, and folders.
        select: {field, stratum or setting: values with `|` between them}, as of a layout; empty: all rows.

    Raises:
        InputError: a path does not exist, or a file is corrupted; the error names the file and the line.
    """
    from motionexp.results.columns import Columns, read_columns
    from motionexp.results.compaction import read_parts

    rows: dict[Hashable, Row] = {}
    for path in [Path(paths)] if isinstance(paths, str | Path) else paths:
        if not path.exists():
            raise InputError(f"{path}: no such rows file or folder; a finished run has rows in outputs/")
        parts: Iterable[Columns | Path] = [path]
        if path.is_dir():
            parts = read_parts(path)
        elif path.suffix == ".parquet":
            parts = [Columns(read_columns(path), str(path))]
        for part in parts:
            if isinstance(part, Columns):
                source = part.source
                chosen: Iterable[Row] = part.rows(part.where(select) if select else None)
            else:
                source, chosen = str(part), read_file(part)
            for number, row in enumerate(chosen, start=1):
                key = row.score_id or (source, number)
                if (before := rows.get(key)) is not None:
                    _check_again(before, row, f"{source}, line {number}")
                rows[key] = row
    if select:
        return [row for row in rows.values() if row.matches(select)]
    return list(rows.values())


def _check_again(before: Row, row: Row, where: str) -> None:
    """Raises InputError where a row has the score id of another score. A score may be written again."""
    for name in ("metric", "metric_version"):  # a score of a set of samples may be of a larger set now
        first, second = before.get(name), row.get(name)
        if first != second:
            raise InputError(
                f"{where}: not a row (its score_id {_shown(row.score_id)} is that of a row with {name}"
                f" {_shown(first)}, not {_shown(second)})"
            )


def to_frame(rows: Iterable[Row]) -> "DataFrame":
    """A pandas frame with one line for each row; strata and settings are columns, as `strata.contrast`."""
    import pandas as pd  # only here: the import takes half a second, and every command reads rows

    return pd.json_normalize([as_json(row) for row in rows])
