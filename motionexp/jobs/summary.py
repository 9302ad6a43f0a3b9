"""The end of a job: a table of means, paths, and a grid of videos side by side."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from motionexp.config.metrics import METRICS, SET_VALUES, MetricSpec, chosen_metrics, find_metric
from motionexp.config.scoring import PAIRS
from motionexp.results.formats import amount, decimal
from motionexp.results.rows import SANITY_BASELINES, Row
from motionexp.results.settings_table import EXTERNAL
from motionexp.results.subjects import reasons_by_group
from motionexp.results.terminal import print_grid

if TYPE_CHECKING:
    from pandas import DataFrame

    from motionexp.metrics.base import Measurement

Scores = Mapping[str, Mapping[str, "Measurement"]]
"""Of one video, {metric: {name of a value: measurement}}."""
MOST_PATHS = 8


def print_summary(
    console: Console,
    rows: Sequence[Row],
    folders: Sequence[Path],
    grids: Sequence[Path],
    pairs: str = "consecutive",
    metrics: Sequence[str] | None = None,
    of_base: Sequence[Row] = (),
) -> None:
    """Print a table of means over references and seeds, and the paths.

    There is a line for each score, and a column for each edit, for all edits, for the base model and for each
    sanity baseline.

    Args:
        console: prints.
        rows: of a job's samples and sanity baselines.
        folders: of the cells.
        grids: paths of videos side by side.
        pairs: of frames, of the frame consistency that is shown.
        metrics: named by the job; metrics of plugins among them have headings too.
        of_base: rows of the base model on the same references and edits.
    """
    samples: list[Row] = []
    baselines: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        (baselines[row.sanity_baseline] if row.sanity_baseline else samples).append(row)
    hidden = {f"frame_consistency_{name}" for name in PAIRS if name != pairs}
    values = {row.metric for row in samples} - hidden
    alone = len({row.reference for row in samples}) == 1
    console.print(_title(samples), markup=False, highlight=False, soft_wrap=True)
    edits = _by_edit(samples, alone)
    if alone:
        for label, (caption, _) in edits.items():
            console.print(f"  {label}: {caption}", markup=False, highlight=False, soft_wrap=True)
    lines = {label: of_edit for label, (_, of_edit) in edits.items()}
    beside = {"base model": [*of_base]} if of_base else {}
    lines |= {"all edits": samples} if of_base and len(lines) > 1 else {}
    beside |= {SANITY_BASELINES[name]: of_baseline for name, of_baseline in baselines.items()}
    lines |= beside
    specs = [*{spec.name: spec for spec in [*chosen_metrics(None), *chosen_metrics(metrics)]}.values()]
    columns = {name: heading for name, heading in headings(specs).items() if name in values}
    _print_means(console, lines, columns)
    _print_legend(console, samples, beside, {name for spec in specs for name in spec.summary} - hidden)
    print_paths(console, "rows and media", folders)
    print_paths(console, "side by side", grids)


def table(scores: Mapping[str, Sequence[Scores]]) -> "DataFrame":
    """Means of the scores of several sets of videos: a row for each value, a column for each set.

    The values are those of a job's summary, in its order. NaN: no video of the set has the value. Values that
    no video has are left out.

    Args:
        scores: by the heading of the column, one entry for each video, as `motionexp.score` returns them.
    """
    import pandas as pd  # only here: the import takes half a second, and every job prints a summary

    videos = [video for of_set in scores.values() for video in of_set]
    specs = [find_metric(name) for name in dict.fromkeys(name for video in videos for name in video)]
    columns = headings(sorted(filter(None, specs), key=lambda spec: (spec.order, spec.name)))
    means = {
        label: {value: _mean(of_set, value, minus) for value, (_, minus) in columns.items()}
        for label, of_set in scores.items()
    }
    return pd.DataFrame(means).dropna(how="all")


def _mean(videos: Sequence[Scores], name: str, minus: str) -> float:
    """The mean of a value minus another one of the same video; NaN if no video has the value."""
    flat = [
        {value: one.value for values in video.values() for value, one in values.items()} for video in videos
    ]
    differences = [values[name] - values.get(minus, 0.0) for values in flat if name in values]
    numbers = [number for number in differences if not math.isnan(number)]
    return float(np.mean(numbers)) if numbers else math.nan


def headings(specs: Sequence[MetricSpec]) -> dict[str, tuple[str, str]]:
    """{value: (its heading, the value that is subtracted)}."""
    return {
        value: (heading, spec.subtracted(value)) for spec in specs for value, heading in spec.summary.items()
    }


def print_paths(console: Console, label: str, paths: Sequence[Path]) -> None:
    """Print the first few paths, a line each, and the number of the others."""
    for path in paths[:MOST_PATHS]:
        console.print(f"{label}: {path}", markup=False, highlight=False, soft_wrap=True)
    if len(paths) > MOST_PATHS:
        console.print(f"{label}: and {len(paths) - MOST_PATHS} more beside it")


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "no rows"
    first, references = rows[0], amount(len({row.reference for row in rows}), "reference")
    if first.method == EXTERNAL:
        return f"{first.model}, {references}"
    about = f"{first.model}, {first.method}, τ = {first.tau:g}, {first.precision}"
    on = f"adapter on in {first.adapter_steps} of {first.steps} steps"
    return f"{about}, {on}, {references}"


def _print_means(
    console: Console, columns: Mapping[str, Sequence[Row]], shown: Mapping[str, tuple[str, str]]
) -> None:
    """Print the means of each column's rows. `shown` is {metric: (heading, metric that is subtracted)}."""
    videos = [{row.sample_id for row in rows if row.metric not in SET_VALUES} for rows in columns.values()]
    lines = [["samples", *(str(len(samples)) for samples in videos)]]
    lines += [
        [heading, *(mean_of(rows, name, minus) for rows in columns.values())]
        for name, (heading, minus) in shown.items()
    ]
    print_grid(console, ["means", *columns], lines)


def _print_legend(
    console: Console, samples: Sequence[Row], beside: Mapping[str, Sequence[Row]], shown: Collection[str]
) -> None:
    """Print where the scores are explained, and why samples have no value.

    Args:
        console: prints.
        samples: the rows of the job's own samples.
        beside: {heading: rows} of the base model and of sanity baselines.
        shown: the scores that the table may show.
    """
    headed = {name: heading for spec in METRICS.values() for name, heading in spec.summary.items()}
    console.print("docs/scores.md explains the scores", highlight=False)
    groups = {"": samples, **beside}
    # A score and its level of chance lack values for one reason.
    lacking: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in dict.fromkeys(row.metric for of_group in groups.values() for row in of_group):
        if name not in shown:
            continue
        of_metric = {
            label: [row for row in of_group if row.metric == name] for label, of_group in groups.items()
        }
        for reason, counts in reasons_by_group(of_metric).items():
            texts = [
                f"{count} of {len(of_metric[label])} {f'in the column {label!r}' if label else 'samples'}"
                for label, count in counts.items()
            ]
            lacking[reason, " and for ".join(texts)].append(headed.get(name, name))
    for (reason, counted), names in lacking.items():
        text = f"{', '.join(names)}: no value for {counted} ({reason})"
        console.print(text, markup=False, highlight=False)


def _by_edit(rows: Sequence[Row], alone: bool) -> dict[str, tuple[str, list[Row]]]:
    """{label: (caption, rows)} of the edits of one reference, or of the kinds of edits of several."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.edit_kind, row.edit_caption if alone else ""].append(row)
    kinds = Counter(kind for kind, _ in grouped)
    seen: Counter[str] = Counter()
    labelled = {}
    for (kind, caption), of_edit in grouped.items():
        seen[kind] += 1
        labelled[f"{kind} {seen[kind]}" if kinds[kind] > 1 else kind] = (caption, of_edit)
    return labelled


def mean_of(rows: Sequence[Row], metric: str, minus: str = "") -> str:
    """The mean of a metric minus another one of the same samples; a dash if no sample has a value."""
    subtracted = {row.sample_id: row.value for row in rows if row.metric == minus}
    values = [row.value - subtracted.get(row.sample_id, 0.0) for row in rows if row.metric == metric]
    values = [value for value in values if not math.isnan(value)]
    return decimal(float(np.mean(values)) if values else math.nan)
