"""Rows of a cell's samples: what is scored already is read back, the rest is measured."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.data.base import Edit, Reference
from motionexp.jobs.cell import Cell, Kept
from motionexp.metrics.base import Measurement
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import Row, score_id_of


@dataclass(frozen=True)
class Wanted:
    """One sample of a cell that should have rows."""

    edit: Edit
    index: int
    sample_id: str


class Samples:
    """A cell's samples, each decoded when it is first asked for, and once while it is kept."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._read: dict[str, tuple[np.ndarray, Kept]] = {}

    def read(self, wanted: Wanted) -> tuple[np.ndarray, Kept]:
        """See `Cell.read_sample`."""
        if wanted.sample_id not in self._read:
            kept = self.cell.read_sample(wanted.edit, wanted.index, wanted.sample_id)
            self._read[wanted.sample_id] = kept
        return self._read[wanted.sample_id]

    def drop(self, wanted: Sequence[Wanted]) -> None:
        """Keep these no longer."""
        for each in wanted:
            self._read.pop(each.sample_id, None)


def score_cell(
    samples: Samples,
    reference: Reference,
    wanted: Sequence[Wanted],
    scorer: Scorer,
    common: Mapping[str, Any],
) -> list[Row]:
    """Score samples that lie in a cell, and append what is new to its rows, sample by sample.

    Each sample is decoded once at most, however many metrics, of one sample or of a set, it enters. The first
    of each edit stays decoded, for grids show it.

    Args:
        samples: of a cell that has all `wanted`.
        reference: of the cell.
        wanted: samples to score, those of one edit together.
        scorer: the metrics.
        common: fields that all rows of the cell share.

    Returns:
        The rows of the wanted samples, those that were there before included. Where tau came from is no part
        of what is scored: rows that say otherwise than `common` are kept again, and say it from then on.
    """
    cell = samples.cell
    known = {row.score_id: row for row in cell.rows()}
    rows = []
    with tqdm(total=len(wanted), desc="score", unit="video", leave=False) as bar:
        for _, group in groupby(wanted, key=lambda each: each.edit):
            of_edit = list(group)
            for each in of_edit:
                ids = score_ids(scorer, reference, each)
                missing = {metric for metric, score in ids if score not in known}
                if missing:
                    new = _measure(samples, reference, each, scorer, missing, common)
                    cell.add_rows(new)
                    known |= {row.score_id: row for row in new}
                rows += [known[score] for _, score in ids]
                bar.update()
            rows += _score_set(samples, of_edit, reference, scorer, common, known)
            samples.drop(of_edit[1:])
    labelled = [_labelled(row, common["settings"]) for row in rows]
    if changed := [new for new, row in zip(labelled, rows, strict=True) if new is not row]:
        cell.add_rows(changed)
    return labelled


def _labelled(row: Row, settings: Mapping[str, Any]) -> Row:
    """The row, saying of tau what the job's settings say; the id of its score is the same."""
    if row.settings.get("tau_from", "given") == settings["tau_from"]:
        return row
    own = {name: settings[name] for name in ("tau_from", "model")}
    return replace(row, settings={**row.settings, **own})


def _set_id(wanted: Sequence[Wanted]) -> str:
    joined = " ".join(sorted(each.sample_id for each in wanted))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def _score_set(
    samples: Samples,
    wanted: Sequence[Wanted],
    reference: Reference,
    scorer: Scorer,
    common: Mapping[str, Any],
    known: Mapping[str, Row],
) -> list[Row]:
    """Rows of the metrics of all samples of an edit; those of a smaller or larger set are replaced."""
    if not scorer.of_sets or len(wanted) < 2:
        return []
    first, set_id = wanted[0], _set_id(wanted)
    ids = {
        value: score_id_of(first.sample_id, value, metric.version, scorer.model_of(name))
        for name, metric in scorer.of_sets.items()
        for value in metric.values
    }
    there = [known[score] for score in ids.values() if score in known]
    if len(there) == len(ids) and all(row.sample_id == set_id for row in there):
        return there
    scores = scorer.score_set([samples.read(each)[0] for each in wanted], reference)
    fields = {
        **common,
        "edit_kind": first.edit.kind,
        "edit_caption": first.edit.caption,
        "sample_id": set_id,
        "adapter_steps": samples.read(first)[1].adapter_steps,
    }
    found = [row for name, values in scores.items() for row in rows_of(scorer, name, values, fields)]
    # Known by the first sample, so that the row of another number of samples takes this one's place.
    new = [replace(row, score_id=ids[row.metric]) for row in found]
    samples.cell.add_rows(new)
    return new


def score_ids(scorer: Scorer, reference: Reference, wanted: Wanted) -> list[tuple[str, str]]:
    """(metric, score id) of every row that a sample should have."""
    return [
        (name, score_id_of(wanted.sample_id, value, metric.version, scorer.model_of(name)))
        for name in scorer.applicable(reference, wanted.edit)
        for metric in [scorer.metrics[name]]
        for value in metric.values
    ]


def _measure(
    samples: Samples,
    reference: Reference,
    wanted: Wanted,
    scorer: Scorer,
    metrics: set[str],
    common: Mapping[str, Any],
) -> list[Row]:
    cell, (frames, kept) = samples.cell, samples.read(wanted)
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
    """The rows of one metric's values on one sample, or on a set of them.

    Args:
        scorer: measured them.
        name: of the metric.
        values: {name of a value: measurement}.
        fields: all else that the rows say, the sample's id included.
    """
    metric, model = scorer.metric(name), scorer.model_of(name)
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
