"""Rows of a cell's samples: what is scored already is read back, the rest is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.data.base import Edit, Reference
from motionexp.evaluation import Scorer
from motionexp.jobs.cell import Cell
from motionexp.metrics.base import Measurement
from motionexp.results import Row, score_id_of


@dataclass(frozen=True)
class Wanted:
    """One sample of a cell that should have rows."""

    edit: Edit
    index: int
    sample_id: str


def score_cell(
    cell: Cell, reference: Reference, wanted: Sequence[Wanted], scorer: Scorer, common: Mapping[str, Any]
) -> list[Row]:
    """Score samples that lie in a cell, and append what is new to its rows, sample by sample.

    Args:
        cell: with all `wanted` samples.
        reference: of the cell.
        wanted: samples to score.
        scorer: the metrics.
        common: fields that all rows of the cell share.

    Returns:
        The rows of the wanted samples, those that were there before included.
    """
    known = {row.score_id: row for row in cell.rows()}
    rows = []
    bar = tqdm(wanted, desc="score", unit="video", leave=False)
    for each in bar:
        ids = score_ids(scorer, reference, each)
        missing = {metric for metric, score in ids if score not in known}
        if missing:
            new = _measure(cell, reference, each, scorer, missing, common)
            cell.add_rows(new)
            known |= {row.score_id: row for row in new}
        rows += [known[score] for _, score in ids]
    return rows


def score_ids(scorer: Scorer, reference: Reference, wanted: Wanted) -> list[tuple[str, str]]:
    """(metric, score id) of every row that a sample should have."""
    return [
        (name, score_id_of(wanted.sample_id, value, metric.version, scorer.model_of(name)))
        for name in scorer.applicable(reference, wanted.edit)
        for metric in [scorer.metrics[name]]
        for value in metric.values
    ]


def _measure(
    cell: Cell,
    reference: Reference,
    wanted: Wanted,
    scorer: Scorer,
    metrics: set[str],
    common: Mapping[str, Any],
) -> list[Row]:
    frames, kept = cell.read_sample(wanted.edit, wanted.index, wanted.sample_id)
    start = perf_counter()
    scores = scorer.score(frames, reference, wanted.edit, metrics)
    seconds = {**common["seconds"], "sample": kept.seconds, "score": perf_counter() - start}
    fields = {
        **common,
        "edit_kind": wanted.edit.kind,
        "edit_caption": wanted.edit.caption,
        "seed": wanted.index,
        "sample_id": wanted.sample_id,
        "sample_file": kept.file.relative_to(cell.folder.parents[2]).as_posix(),
        "adapter_steps": kept.adapter_steps,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "peak_memory": kept.peak_memory,
    }
    series = {
        value: measured.series
        for values in scores.values()
        for value, measured in values.items()
        if measured.series is not None
    }
    cell.keep_series(wanted.edit, wanted.index, wanted.sample_id, series)
    return [row for name, values in scores.items() for row in rows_of(scorer, name, values, fields)]


def rows_of(
    scorer: Scorer, name: str, values: Mapping[str, Measurement], fields: Mapping[str, Any]
) -> list[Row]:
    """The rows of one metric's values on one sample.

    Args:
        scorer: measured them.
        name: of the metric.
        values: {name of a value: measurement}.
        fields: all else that the rows say, the sample's id included.
    """
    metric, model = scorer.metrics[name], scorer.model_of(name)
    return [
        Row(
            metric=value,
            metric_version=metric.version,
            metric_model=model,
            higher_is_better=metric.values[value],
            value=measured.value,
            reason=measured.reason,
            score_id=score_id_of(fields["sample_id"], value, metric.version, model),
            **fields,
        )
        for value, measured in values.items()
    ]
