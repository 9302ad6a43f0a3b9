"""Rows: one value of one metric on one subject, kept as JSON lines, and what is computed from many of them.

A rows file is replaced as a whole under a lock, so that a reader, a second writer or a full disk never finds
half a line. Intervals are bootstrapped over references: samples of one reference are not independent.
"""

import contextlib
import fcntl
import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config import InputError

ROWS_NAME = "rows.jsonl"
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of one metric on one subject, with all that identifies it.

    `value` is NaN where the metric abstained, and `reason` then says why. `tau` is a timestep in 0..1000;
    `adapter_steps` is how many of the `steps` sampling steps had the adapter on. `strata` are the reference's
    groups, under which scores are reported apart. `seconds` holds wall time by stage (fit, sample, score) and
    `peak_memory` bytes. `reference_hash` is the reference's content hash.
    """

    metric: str
    metric_version: int
    value: float
    reason: str = ""
    higher_is_better: bool | None = None
    score_id: str = ""

    suite: str
    reference: str
    reference_hash: str = ""
    strata: dict[str, str] = field(default_factory=dict)
    edit_kind: str = ""
    edit_caption: str = ""
    seed: int | None = None
    sample_file: str = ""
    adapter_id: str = ""
    sample_id: str = ""
    adapter_steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0

    model: str
    method: str
    tau: float
    steps: int
    train_steps: int = 0
    adapter_scale: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    packages: dict[str, str] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    weights_hash: str = ""

    @property
    def subject(self) -> tuple[str, str, int | None]:
        """(reference, edit kind, seed): what two settings share when they are compared."""
        return self.reference, self.edit_kind, self.seed

    def stratum(self, name: str) -> str:
        """The value of a field, or else of a stratum, as text: what layouts filter and group by."""
        if name in FIELDS:
            value = getattr(self, name)
            return f"{value:g}" if isinstance(value, float) else str(value)
        return self.strata.get(name, "")


FIELDS = {each.name: each for each in fields(Row)}
VALUE_FIELDS = ("metric", "metric_version", "value", "reason", "higher_is_better", "score_id")
SUBJECT_FIELDS = (
    "reference",
    "reference_hash",
    "strata",
    "edit_kind",
    "edit_caption",
    "seed",
    "sample_file",
    "adapter_id",
    "sample_id",
    "adapter_steps",
    "seconds",
    "peak_memory",
)
RUN_FIELDS = tuple(name for name in FIELDS if name not in VALUE_FIELDS + SUBJECT_FIELDS)
TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    int | None: (int, type(None)),
    bool | None: (bool, type(None)),
    dict[str, str]: (dict,),
    dict[str, float]: (dict,),
    dict[str, Any]: (dict,),
}


def as_json(row: Row) -> dict[str, Any]:
    """The row as what JSON holds; NaN becomes null, since JSON has no NaN."""
    plain = {name: getattr(row, name) for name in FIELDS}
    if not math.isfinite(row.value):
        plain["value"] = None
    return plain


def from_json(plain: object) -> Row:
    """The row that `as_json` wrote.

    Raises:
        InputError: not an object, a field unknown or missing, or a value of the wrong type.
    """
    if not isinstance(plain, dict):
        raise InputError(f"a row is a JSON object, not {type(plain).__name__}")
    unknown = sorted(set(plain) - set(FIELDS))
    missing = [name for name, each in FIELDS.items() if _required(each) and name not in plain]
    if unknown or missing:
        raise InputError(f"unknown fields {unknown}, missing fields {missing}")
    values = dict(plain)
    if values["value"] is None:
        values["value"] = math.nan
    for name, value in values.items():
        allowed = TYPES[FIELDS[name].type]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise InputError(f"field {name} is {value!r}; it should be {FIELDS[name].type}")
    return Row(**values)


def _required(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file: one process at a time. The system drops it when the process ends."""
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: a reader finds the old one or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def dump_line(plain: object) -> str:
    """One line of JSON, the same bytes for the same content."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":")) + "\n"


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a JSON-lines file, whole or not at all, one process at a time. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / f".{path.name}.lock"):
        before = path.read_bytes() if path.exists() else b""
        write_whole(path, before + "".join(dump_line(as_json(row)) for row in rows).encode())


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, what the line holds) of a JSON-lines file.

    Raises:
        InputError: the file cannot be read, or a line is not JSON; it names the file and the line.
    """
    try:
        lines = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as rows ({error})") from error
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not a row ({error.msg}); delete it, or the file to score again"
            ) from error


def read_rows(paths: Path | Iterable[Path]) -> list[Row]:
    """The rows of files, and of every `rows.jsonl` in folders. Of rows of one score id the last counts.

    Raises:
        InputError: a path does not exist, or a file is corrupted (its name and line are said).
    """
    found: dict[Hashable, Row] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        for file in _row_files(path):
            for number, plain in read_lines(file):
                try:
                    row = from_json(plain)
                except InputError as error:
                    raise InputError(f"{file}, line {number}: not a row ({error})") from error
                found[row.score_id or (file, number)] = row
    return list(found.values())


def _row_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob(ROWS_NAME))
    if path.exists():
        return [path]
    raise InputError(f"{path}: no such rows file or folder; a finished run has rows in outputs/")


@dataclass(frozen=True)
class Interval:
    """A mean over references with its 95% bootstrap interval (NaN below two references).

    `n` values of `clusters` references entered; `missing` were NaN and did not.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    missing: int = 0


def resampled_indices(clusters: int) -> np.ndarray:
    """(RESAMPLES, clusters) indices drawn with replacement: the same on every machine and numpy version."""
    # RandomState's stream is frozen by numpy's policy; Generator's may change between versions.
    return np.random.RandomState(0).randint(0, clusters, size=(RESAMPLES, clusters))


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of bootstrap replicates, NaN replicates left out."""
    low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Mean of the clusters' means, and its percentile bootstrap interval over clusters.

    Args:
        values: one number a sample; NaN is left out and counted as missing.
        clusters: the reference of each value.

    Raises:
        ValueError: of different lengths.
    """
    grouped: dict[Hashable, list[float]] = defaultdict(list)
    missing = 0
    for value, cluster in zip(values, clusters, strict=True):
        if math.isnan(value):
            missing += 1
        else:
            grouped[cluster].append(value)
    n = len(values) - missing
    if not grouped:
        return Interval(math.nan, math.nan, math.nan, 0, 0, missing)
    # Sorted, so that the interval does not depend on the order in which rows were written.
    means = np.array([np.mean(grouped[cluster]) for cluster in sorted(grouped, key=str)])
    if len(means) < 2:
        return Interval(float(means[0]), math.nan, math.nan, n, 1, missing)
    low, high = percentile_interval(means[resampled_indices(len(means))].mean(axis=1))
    return Interval(float(means.mean()), low, high, n, len(means), missing)


def by_subject(rows: Iterable[Row]) -> dict[tuple[str, str, int | None], float]:
    """Value of each subject. Rows must be of one metric and one setting.

    Raises:
        InputError: two different rows of one subject: the selection is not one setting.
    """
    values: dict[tuple[str, str, int | None], float] = {}
    for row in rows:
        if row.subject in values:
            raise InputError(
                f"two rows of {row.metric} for {row.reference}, edit {row.edit_kind!r}, seed {row.seed} at "
                f"tau {row.tau:g}: they differ in a setting that the layout does not select by"
            )
        values[row.subject] = row.value
    return values


def paired_difference(
    ours: Mapping[tuple[str, str, int | None], float], theirs: Mapping[tuple[str, str, int | None], float]
) -> Interval:
    """Mean of ours - theirs over the subjects that both have, with its bootstrap interval over references."""
    shared = sorted(set(ours) & set(theirs), key=str)
    return mean_interval([ours[key] - theirs[key] for key in shared], [key[0] for key in shared])


def check_comparable(rows: Iterable[Row], allow: Collection[str] = ()) -> None:
    """Refuses rows that do not belong in one table.

    Args:
        rows: all rows of one table.
        allow: what may differ all the same: `precision`, `weights_hash`, `metric_version`.

    Raises:
        InputError: two precisions, two weights of one model or two versions of one metric.
    """
    kinds: dict[str, Callable[[Row], str]] = {
        "precision": lambda row: "",
        "weights_hash": lambda row: row.model,
        "metric_version": lambda row: row.metric,
    }
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for kind, of in kinds.items():
            seen[kind, of(row)].add(str(getattr(row, kind)))
    mixed = [
        f"{kind}{f' of {of}' if of else ''}: {', '.join(sorted(values))}"
        for (kind, of), values in sorted(seen.items())
        if len(values) > 1 and kind not in allow
    ]
    if mixed:
        raise InputError(
            "rows that do not belong in one table: "
            + "; ".join(mixed)
            + ". Select rows of one kind, or name the kind under `allow_mixed` in the layout"
        )


def motion_at_leakage(motion: np.ndarray, leakage: np.ndarray, level: float) -> np.ndarray:
    """The most motion on a curve of adapter scales where leakage is at most a level.

    Between two neighbouring scales both are taken as linear.

    Args:
        motion: (S, N), N curves over S scales in ascending order, the first one the base model (scale 0).
        leakage: (S, N), in the same order.
        level: the leakage that is allowed.

    Returns:
        (N,) motion, NaN where the whole curve leaks more.
    """
    best = np.where(leakage <= level, motion, -np.inf).max(axis=0)
    before, after = leakage[:-1], leakage[1:]
    crosses = (before - level) * (after - level) < 0
    share = (level - before) / np.where(crosses, after - before, 1.0)
    crossing = np.where(crosses, motion[:-1] + share * (motion[1:] - motion[:-1]), -np.inf)
    best = np.maximum(best, crossing.max(axis=0, initial=-np.inf))
    return np.where(np.isfinite(best), best, np.nan)


@dataclass(frozen=True)
class Curve:
    """Motion and leakage, (S, R) means of R references at S ascending adapter scales, scale 0 first."""

    motion: np.ndarray
    leakage: np.ndarray

    def at(self, level: float, references: np.ndarray) -> np.ndarray:
        """(N,) motion at a level, of the mean curves of N draws (N, R) of references."""
        return motion_at_leakage(
            self.motion[:, references].mean(axis=2), self.leakage[:, references].mean(axis=2), level
        )


def motion_at_equal_leakage(ours: Curve, level: float, theirs: Curve | None = None) -> Interval:
    """Motion of the mean curve at a level of leakage, or the difference of two curves, over R references.

    The same draw of references enters both curves, so the difference is paired by reference.
    """
    clusters = ours.motion.shape[1]
    everyone = np.arange(clusters)[None]
    value, draws = ours.at(level, everyone), ours.at(level, resampled_indices(clusters))
    if theirs is not None:
        value = value - theirs.at(level, everyone)
        draws = draws - theirs.at(level, resampled_indices(clusters))
    low, high = percentile_interval(draws) if clusters > 1 else (math.nan, math.nan)
    return Interval(float(value[0]), low, high, clusters, clusters)
