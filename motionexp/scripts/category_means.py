"""Scores averaged as the TGVE benchmark does: `python -m motionexp.scripts.category_means [OUTPUTS]`.

The benchmark averages over frames, then over one value for each video and edit with equal weights (the flat
mean). The means of each kind of edit are an addition of this project. Rows of one setting are averaged, over
seeds first; every other setting gets another table.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from motionexp.errors import InputError
from motionexp.results.rows import Row, read_rows, to_frame
from motionexp.results.selection import OCCASIONAL, SAMPLED, STRATA, TRAINED, default_of
from motionexp.results.terminal import print_grid
from motionexp.results.versions import mixed_kinds, of_newest_version
from motionexp.scripts.programs import exit_code

NAMED = ("train_steps", "adapter_scale")  # already part of the name of every setting
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Means:
    """Means of one metric under one setting.

    Attributes:
        flat: over all pairs of a reference and an edit.
        kinds: {kind of edit: mean over its pairs}.
        pairs: number of pairs with a value, that is, on which the metric did not abstain.
    """

    flat: float
    kinds: dict[str, float]
    pairs: int


def flat_means(rows: Iterable[Row]) -> dict[str, Means]:
    """Return {metric: means} of one setting's rows; seeds of one reference and edit are averaged first."""
    frame = to_frame(rows).dropna(subset="value")
    pair = ["metric", "reference", "edit_kind", "edit_caption"]
    pairs = frame.groupby(pair, sort=False)["value"].mean().reset_index()
    return {
        str(metric): Means(
            float(of_metric["value"].mean()),
            of_metric.groupby("edit_kind", sort=False)["value"].mean().to_dict(),
            len(of_metric),
        )
        for metric, of_metric in pairs.groupby("metric", sort=False)
    }


def settings_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return {name of a setting: its rows}; the name includes all settings in which the rows differ.

    Anchors are a setting each; probes, and rows that are of no edit, are left out.
    """
    by_name: dict[str, dict[Settings, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.tau_start or not row.edit_caption:
            continue
        tuned = f"τ = {row.tau:g}, {row.train_steps} steps, scale {row.adapter_scale:g}"
        words = f"anchor: {row.sanity_baseline}" if row.sanity_baseline else f"{row.method}, {tuned}"
        by_name[f"{row.suite}, {row.model}, {words}"][_further(row)].append(row)
    named = {}
    for name, by_setting in by_name.items():
        shared = set.intersection(*map(set, by_setting))
        for setting, members in by_setting.items():
            differing = [f"{key}={value}" for key, value in setting if (key, value) not in shared]
            named[", ".join([name, *differing])] = members
    return named


def _further(row: Row) -> Settings:
    """The settings of a video that its name lacks; of sanity baselines and external systems only its size."""
    sampled = row.steps > 0 and not row.sanity_baseline
    names = [*(*SAMPLED, *OCCASIONAL)] if sampled else ["frames"]
    if sampled and row.method != "base":
        names += [name for name in TRAINED if name not in NAMED]
    values: dict[str, Any] = {name: row.settings.get(name, default_of(name, row)) for name in names}
    if sampled:
        values |= {"steps": row.steps, "precision": row.precision, "weights": row.weights_hash[:12]}
    size = row.settings.get("model", row.settings)
    values |= {name: size.get(name) for name in ("height", "width")}
    values |= {name: row.strata.get(name) for name in ("split", *STRATA)}
    return tuple((name, _text(value)) for name, value in values.items())


def _text(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def check_one_setting(name: str, rows: Sequence[Row]) -> None:
    """Refuses rows of one setting that are more than seeds of each other.

    Raises:
        InputError: a metric of two versions or through two models, two videos of one reference, or two rows
            for one sample.
    """
    if mixed := mixed_kinds(
        rows, allow=("precision", "weights_hash")
    ):  # sanity baselines have those of any job
        raise InputError(
            f"{name}: rows of which there is no mean: {'; '.join(mixed)}. Name a folder with rows of one kind"
        )
    samples = Counter(
        (row.metric, row.reference, row.edit_kind, row.edit_caption, row.seed, row.settings.get("seed"))
        for row in rows
    )
    for (metric, reference, kind, _, seed, _), count in samples.items():
        if count > 1:
            raise InputError(
                f"{name}: {count} rows of {metric} for {reference}, edit {kind!r}, seed {seed}: other videos,"
                " of another adapter= or made anew. Name a folder with rows of one kind"
            )


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Print a table for each setting below OUTPUTS (default: outputs)."""
    settings = settings_of(of_newest_version(read_rows(Path(*arguments[:1] or ["outputs"]))))
    for name, members in settings.items():
        check_one_setting(name, members)
    for name, members in settings.items():
        means = flat_means(members)
        kinds = list(dict.fromkeys(kind for mean in means.values() for kind in mean.kinds))
        lines = []
        for metric, mean in means.items():
            cells = [f"{mean.kinds[kind]:.3f}" if kind in mean.kinds else "–" for kind in kinds]
            lines.append([metric, f"{mean.flat:.3f}", *cells, str(mean.pairs)])
        header = ["metric", "flat mean", *kinds, "videos and edits"]
        print_grid(Console(), header, lines, title=name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
