"""Which rows belong in one table, and which of them newer versions have replaced."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

from motionexp.config.schema import INVERSION_PROMPTS
from motionexp.errors import InputError
from motionexp.results.rows import Row, dump_line

MOST_NAMED = 3
"""Metrics, models or videos that an error names."""
STAGES = ("training", "sampling", "probe")
SETTING_FIELDS = (
    *("suite", "reference", "reference_hash", "edit_kind", "edit_caption", "seed", "tau_start", "tau_end"),
    "edit_image",
    *("model", "method", "tau", "steps", "train_steps", "adapter_scale", "precision", "weights_hash"),
    *("metric", "metric_model"),
)
"""What identifies a score beside the settings and the versions of the stages."""


def of_newest_version(rows: Iterable[Row]) -> list[Row]:
    """The rows that no newer version of the same metric, training, sampling or probe has replaced."""
    keyed = [((row.sample_id, row.metric, row.metric_model), row) for row in rows]
    newest: dict[Hashable, int] = {}
    for key, row in keyed:
        newest[key] = max(newest.get(key, 0), row.metric_version)
    return _of_newest_stages(
        [row for key, row in keyed if not row.sample_id or row.metric_version == newest[key]]
    )


def _of_newest_stages(rows: list[Row]) -> list[Row]:
    """The rows whose setting and sample no other row has of newer versions of the stages."""
    if len({tuple(_versions(row)) for row in rows if row.adapter_id}) < 2:
        return rows
    # 1. Settings that were added later are missing in older rows: only shared ones can be compared.
    shared: dict[str, set[str]] = {}
    for row in rows:
        shared[row.model] = shared.get(row.model, set(row.settings)) & row.settings.keys()

    def sample_of(row: Row) -> Hashable:
        settings = {name: row.settings[name] for name in shared[row.model] - {"model", "tau_from"}}
        about = [getattr(row, name) for name in SETTING_FIELDS]
        return dump_line([about, dict(sorted(settings.items()))])

    # 2. The newest versions of each sample.
    keyed = [(sample_of(row) if row.adapter_id else None, row) for row in rows]
    newest: dict[Hashable, list[int]] = {}
    for key, row in keyed:
        newest[key] = max(newest.get(key, []), _versions(row))
    return [row for key, row in keyed if key is None or _versions(row) == newest[key]]


def _versions(row: Row) -> list[int]:
    return [row.versions.get(stage, 1) for stage in STAGES]


def version_of(row: Row, stage: str) -> str:
    """The version of a stage that made the row's sample; empty where the stage had no part in it."""
    if row.versions:
        return str(row.versions.get(stage, ""))
    is_probe = bool(row.tau_start) or row.method in INVERSION_PROMPTS
    has_stage = {"training": row.train_steps > 0, "sampling": not is_probe, "probe": is_probe}[stage]
    return "1" if row.adapter_id and has_stage else ""


def check_comparable(rows: Iterable[Row], allow: Collection[str] = ()) -> None:
    """Refuses rows that do not belong in one table.

    Args:
        rows: all rows of one table.
        allow: what may differ nevertheless: `precision`, `weights_hash`, `metric_version`, `metric_model`,
            `reference_hash`, and the versions of stages, as `training_version`.

    Raises:
        InputError: two precisions, two weights of one model, two versions of one metric, of the training, of
            the sampling or of a probe, or two videos of one name, length and size.
    """
    if mixed := mixed_kinds(rows, allow):
        raise InputError(
            f"rows that do not belong in one table: {'; '.join(mixed)}. Select rows of one kind; or, in an"
            " experiment's file, name the kind under `allow_mixed`"
        )


def mixed_kinds(rows: Iterable[Row], allow: Collection[str] = ()) -> list[str]:
    """What `check_comparable` refuses, in words: the kind, its subject, and the values."""
    kinds: dict[str, Callable[[Row], str]] = {
        "precision": lambda row: "",
        "weights_hash": lambda row: row.model,
        "metric_version": lambda row: row.metric,
        "metric_model": lambda row: row.metric,
        "reference_hash": _video_of,
    }
    values_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    # Rows that were read share their objects: few of a million differ in what is looked at.
    distinct = {
        (id(row.settings), id(row.strata), id(row.versions), row.metric, row.metric_version, row.metric_model,
         row.precision, row.weights_hash, row.reference_hash, row.reference, row.suite, row.model, row.method,
         row.train_steps, row.tau_start, row.adapter_id): row
        for row in rows
    }  # fmt: skip
    for row in distinct.values():
        for kind, subject_of in kinds.items():
            # Another system's videos come without a precision or weights, and compare with any.
            values_of[kind, subject_of(row)] |= {str(getattr(row, kind))} - {""}
        for stage in STAGES:
            values_of[f"{stage}_version", ""] |= {version_of(row, stage)} - {""}
    subjects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (kind, subject), values in sorted(values_of.items()):
        if len(values) > 1 and kind not in allow:
            subjects[kind, ", ".join(sorted(values))] += [subject] if subject else []
    return [
        f"{kind}{f' of {_listed(of_kind)}' if of_kind else ''}: {values}"
        for (kind, values), of_kind in subjects.items()
    ]


def _listed(subjects: Sequence[str]) -> str:
    """The first ones by name, and how many others there are."""
    count = len(subjects) - MOST_NAMED
    return ", ".join(subjects[:MOST_NAMED]) + (f" and {count} more" if count > 0 else "")


def dirty_note(rows: Collection[Row]) -> list[str]:
    """The note of a table with rows of a working tree with uncommitted changes; none without such rows."""
    dirty = [row for row in rows if row.dirty]
    if not dirty:
        return []
    commits = ", ".join(sorted({row.commit[:7] for row in dirty if row.commit}))
    after = f" after {commits}" if commits else ""
    return [f"{len(dirty)} of {len(rows)} rows are of a working tree with uncommitted changes{after}."]


def _video_of(row: Row) -> str:
    """What identifies a reference's video: suite, split (names recur in other splits), name, length, size."""
    model = row.settings.get("model", row.settings)  # another system's rows have no model's settings
    size = (row.settings.get("frames"), model.get("height"), model.get("width"))
    parts = (row.suite, row.strata.get("split"), row.reference, *size)
    return " ".join(str(part) for part in parts if part is not None)
