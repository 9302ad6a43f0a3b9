"""The scores of a card: the adapter's samples beside the base model and known videos. No torch."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from motionexp.errors import InputError
from motionexp.jobs.cell import Cell
from motionexp.jobs.finished import path_below
from motionexp.results.layout import Column
from motionexp.results.rows import SANITY_BASELINES, Row, read_rows
from motionexp.results.runs import settings_in_words
from motionexp.results.selection import SAMPLED, selected
from motionexp.results.settings_table import score_columns
from motionexp.results.versions import of_newest_version

ADAPTER, BASE = "this adapter", "base model"
MOST_VIDEOS = 4


class Mean(NamedTuple):
    """A mean over `values` of `videos` videos; the others have no value."""

    value: float
    values: int
    videos: int


@dataclass(frozen=True)
class Scores:
    """The scores of samples of one adapter with one setting of the sampling.

    Attributes:
        rows: of these samples.
        settings: with which they were made, as on a command line.
        alternatives: other settings with which the cell has samples.
        columns: of standard tables, by their keys.
        means: {what was scored: {key of a column: Mean}}: the adapter, the base model, and the sanity
            baselines that there are.
    """

    rows: Sequence[Row]
    settings: tuple[str, ...]
    alternatives: Sequence[tuple[str, ...]]
    columns: Mapping[str, Column]
    means: Mapping[str, Mapping[str, Mean]]

    @property
    def steps(self) -> int:
        """Sampling steps."""
        return self.rows[0].steps


def read_scores(cell: Cell, select: Mapping[str, str]) -> Scores | None:
    """The scores of a cell's samples; None: it has no samples of an adapter.

    Of samples with several settings those that differ in the fewest from the defaults are taken.

    Raises:
        InputError: no sample has what is selected; rows are damaged.
    """
    rows = [
        row
        for row in of_newest_version(cell.rows())
        if not row.sanity_baseline and not row.tau_start and row.method != "base"
    ]
    for name, values in select.items():
        rows = selected(rows, name, values, cell.folder)
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[settings_in_words(row.settings, row.method, row.tau)].append(row)
    groups = {words: group for words, group in groups.items() if any(row.seed is not None for row in group)}
    if not groups:
        return None
    first = min(groups, key=lambda words: (len(words), words))
    shown = groups[first]
    neighbours = of_newest_version(read_rows(cell.folder.parent))
    scored = {
        ADAPTER: _by_metric(shown),
        BASE: _by_metric([row for row in neighbours if _is_base_of(row, shown[0])]),
        **{
            name: _by_metric([row for row in neighbours if _is_known_video(row, shown[0], name)])
            for name in SANITY_BASELINES
        },
    }
    columns = score_columns(shown)
    means = {name: _means(columns, values, scored[BASE]) for name, values in scored.items()}
    alternatives = [words for words in sorted(groups) if words != first]
    return Scores(
        shown, first, alternatives, columns, {name: table for name, table in means.items() if table}
    )


def _is_base_of(row: Row, shown: Row) -> bool:
    """Whether a row is of the base model on the same reference, sampled like the samples that are shown."""
    if row.method != "base" or row.sanity_baseline or row.tau_start or not _is_beside(row, shown):
        return False
    return row.precision == shown.precision and all(
        row.settings[name] == shown.settings[name]
        for name in (*SAMPLED, "seed")
        if name in row.settings and name in shown.settings
    )


def _is_known_video(row: Row, shown: Row, name: str) -> bool:
    return row.sanity_baseline == name and _is_beside(row, shown)


def _is_beside(row: Row, shown: Row) -> bool:
    return (row.reference, row.reference_hash) == (shown.reference, shown.reference_hash)


def _by_metric(rows: Sequence[Row]) -> dict[str, list[float]]:
    """{metric: its values, of a known video one for each edit}."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row.metric].append(row.value)
    return values


def _means(
    columns: Mapping[str, Column],
    values: Mapping[str, Sequence[float]],
    of_base: Mapping[str, Sequence[float]],
) -> dict[str, Mean]:
    """The mean of each column that has a value, after the subtraction that the column names."""
    means = {}
    for key, column in columns.items():
        of_metric = values.get(column.metric, ())
        numbers = [value for value in of_metric if not math.isnan(value)]
        subtracted = 0.0
        if column.minus:
            minus = of_base.get(column.metric, ()) if column.minus == "base" else values.get(column.minus, ())
            subtracted = (
                float(np.nanmean(np.array(minus, float)))
                if not np.isnan(np.array(minus, float)).all()
                else math.nan
            )
        if numbers and not math.isnan(subtracted):
            means[key] = Mean(float(np.mean(numbers)) - subtracted, len(numbers), len(of_metric))
    return means


def sample_files(cell: Cell, scores: Scores) -> Iterator[tuple[Row, Path]]:
    """A row and the mp4 of at most `MOST_VIDEOS` samples: first one of each edit."""
    samples = {row.sample_id: row for row in scores.rows if row.sample_file and row.seed is not None}
    output = cell.folder.parents[2]
    paths = list[tuple[Row, Path]]()
    for row in sorted(samples.values(), key=lambda row: (row.seed or 0, row.edit_kind, row.edit_caption)):
        try:
            path = path_below(output, row.sample_file)
        except ValueError as error:
            raise InputError(f"{cell.folder}: a row's sample_file: {error}") from error
        paths += [(row, path)] if path.is_file() else []
    yield from paths[:MOST_VIDEOS]
