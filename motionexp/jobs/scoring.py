"""Scores of videos as rows of a cell: stored rows are read back, and only missing ones are measured."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from motionexp.config.metrics import find_metric
from motionexp.config.scoring_models import BUNDLED_CAPTION_TOKENS, ScoringModels
from motionexp.data.base import Edit, Reference
from motionexp.diffusion.progress import Progress, progress_bar
from motionexp.jobs.cell import Cell, SampleRequest, Samples
from motionexp.jobs.evaluation import Sample
from motionexp.metrics.base import Measurement
from motionexp.results.rows import Row, score_id_of

if TYPE_CHECKING:
    from motionexp.metrics.scorer import Scorer

Scores = Mapping[str, Mapping[str, Measurement]]
"""{metric: {name of a value: measurement}}, as a Scorer returns them."""


def are_bundled_and_enough(
    metrics: Sequence[str] | None, models: ScoringModels, references: Sequence[Reference]
) -> bool:
    """Whether no model behind the metrics can fail: bundled ones, and captions that they can read whole."""
    # What is measured only where it is named has a model that is not bundled.
    specs = map(find_metric, metrics or ())
    is_other = any("." in name for name in metrics or ()) or any(spec and spec.only_named for spec in specs)
    if is_other or models != ScoringModels():
        return False
    captions = [reference.caption for reference in references]
    captions += [edit.caption for reference in references for edit in reference.edits]
    # The bundled models have a token for every word, and two around the caption.
    return max(len(caption.split()) for caption in captions) + 2 <= BUNDLED_CAPTION_TOKENS


class CellScores:
    """The scores of one reference's videos, stored as rows of a cell.

    Args:
        cell: its folder holds the rows.
        reference: the videos are compared with it.
        scorer: measures the values that have no row yet.
    """

    def __init__(self, cell: Cell, reference: Reference, scorer: "Scorer") -> None:
        self.cell, self.reference, self.scorer = cell, reference, scorer
        self._stored = {row.score_id: row for row in cell.rows()}

    def of_video(
        self,
        edit: Edit,
        sample_id: str,
        read: Callable[[], tuple[np.ndarray, Mapping[str, Any]]],
        *,
        index: int | None = None,
        values: Collection[str] | None = None,
    ) -> list[Row]:
        """The rows of one video, one for each value of every metric that the data allow.

        Args:
            edit: its caption is what the video should show.
            sample_id: identifies the video.
            read: returns the (F, H, W, 3) frames and the other fields of the rows; called only if a row is
                missing.
            index: of the sample; values per frame are stored under it. None: they are not stored.
            values: the values that have rows; None: all.

        Raises:
            InputError: the cell's rows or the video are damaged, or a metric lacks its ground truth.
        """
        scorer = self.scorer
        metric_of = {
            value: name
            for name in scorer.applicable(self.reference, edit)
            for value in scorer.metrics[name].values
            if values is None or value in values
        }

        def measure(missing: Collection[str]) -> list[Row]:
            start = perf_counter()
            frames, fields = read()
            scores = scorer.score(frames, self.reference, edit, {metric_of[value] for value in missing})
            seconds = {**fields.get("seconds", {}), "score": perf_counter() - start}
            fields = {
                **fields,
                "edit_kind": edit.kind,
                "edit_caption": edit.caption,
                "edit_image": str(edit.image or ""),
                "sample_id": sample_id,
                "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            }
            if index is not None:
                self._add_series(SampleRequest(edit, index, sample_id), scores)
            rows = [row for name in scores for row in rows_of(scorer, name, scores[name], fields)]
            return [row for row in rows if row.metric in metric_of]

        return self._rows(sample_id, self._score_ids(sample_id, metric_of), measure)

    def of_set(
        self,
        requests: Sequence[SampleRequest],
        read: Callable[[SampleRequest], Sample],
        fields: Mapping[str, Any],
    ) -> list[Row]:
        """The rows of the metrics of all samples of one edit as a set; a single sample has none.

        Their score ids are those of the first sample: the rows of a smaller or larger set are replaced.
        """
        if not self.scorer.of_sets or len(requests) < 2:
            return []
        # The set's id does not depend on the order of its samples.
        first = requests[0]
        joined = " ".join(sorted(request.sample_id for request in requests))
        set_id = hashlib.sha256(joined.encode()).hexdigest()[:12]
        metric_of = {value: name for name, metric in self.scorer.of_sets.items() for value in metric.values}
        score_ids = self._score_ids(first.sample_id, metric_of)

        def measure(missing: Collection[str]) -> list[Row]:
            samples = [read(request) for request in requests]
            scores = self.scorer.score_set([sample.frames for sample in samples], self.reference)
            set_fields = {
                **fields,
                "edit_kind": first.edit.kind,
                "edit_caption": first.edit.caption,
                "edit_image": str(first.edit.image or ""),
                "sample_id": set_id,
                "adapter_steps": samples[0].adapter_steps,
            }
            rows = [row for name in scores for row in rows_of(self.scorer, name, scores[name], set_fields)]
            return [replace(row, score_id=score_ids[row.metric]) for row in rows]

        return self._rows(set_id, score_ids, measure)

    def _score_ids(self, sample_id: str, metric_of: Mapping[str, str]) -> dict[str, str]:
        """{value: score id}."""
        return {
            value: score_id_of(sample_id, value, self.scorer.metric(name).version, self.scorer.model_of(name))
            for value, name in metric_of.items()
        }

    def _rows(
        self, sample_id: str, score_ids: Mapping[str, str], measure: Callable[[Collection[str]], list[Row]]
    ) -> list[Row]:
        """The rows with these score ids. The values without a row of this sample are measured and stored."""
        missing = {
            value
            for value, score_id in score_ids.items()
            if score_id not in self._stored or self._stored[score_id].sample_id != sample_id
        }
        # Stored before they are returned: an interrupt loses the values of one video at most.
        if missing:
            new = measure(missing)
            self.cell.add_rows(new)
            self._stored |= {row.score_id: row for row in new}
        return [self._stored[score_id] for score_id in score_ids.values()]

    def _add_series(self, request: SampleRequest, scores: Scores) -> None:
        series = {
            value: measurement.series
            for values in scores.values()
            for value, measurement in values.items()
            if measurement.series is not None
        }
        self.cell.add_series(request, series)


def score_cell(
    samples: Samples,
    reference: Reference,
    requests: Sequence[SampleRequest],
    scorer: "Scorer",
    fields: Mapping[str, Any],
    progress: Progress | None = None,
) -> list[Row]:
    """Score samples of a cell, and append the new rows to the cell's file sample by sample.

    A sample is decoded once at most, however many metrics of one sample or of a set it enters. The first
    sample of each edit stays decoded, for grids show it.

    Args:
        samples: of a cell that has all `requests`.
        reference: the cell's.
        requests: the samples to score; those of one edit follow each other.
        scorer: the metrics.
        fields: all rows of the cell share them.
        progress: called before a sample is measured with the samples before it and all samples.

    Returns:
        The rows of all requests, stored ones included. A score does not depend on where tau came from: if
        stored rows name another source of tau than `fields`, they are stored again with the new one.
    """
    scores = CellScores(samples.cell, reference, scorer)
    rows = []
    with progress_bar(len(requests), "score", "video") as bar:
        for edit, group in groupby(requests, key=lambda request: request.edit):
            of_edit = list(group)
            for request in of_edit:

                def read(request: SampleRequest = request) -> tuple[np.ndarray, dict[str, Any]]:
                    if progress is not None:
                        progress(bar.n, len(requests))
                    sample = samples.read(request)
                    return sample.frames, _sample_fields(samples.cell, request, sample, fields)

                rows += scores.of_video(edit, request.sample_id, read, index=request.index)
                bar.update()
            rows += scores.of_set(of_edit, samples.read, fields)
            samples.drop(of_edit[1:])  # frees all samples but the one that the grid shows
    labelled = [_labelled(row, fields["settings"]) for row in rows]
    if changed := [new for new, row in zip(labelled, rows, strict=True) if new is not row]:
        samples.cell.add_rows(changed)
    return labelled


def _sample_fields(
    cell: Cell, request: SampleRequest, sample: Sample, fields: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        **fields,
        "seed": request.index,
        "sample_file": cell.sample_path(request, ".mp4").relative_to(cell.folder.parents[2]).as_posix(),
        "adapter_steps": sample.adapter_steps,
        "seconds": {**fields["seconds"], "sample": sample.seconds},
        "peak_memory": sample.peak_memory,
    }


def _labelled(row: Row, settings: Mapping[str, Any]) -> Row:
    """The row with the source of tau that the job's settings name; its score id does not change."""
    if row.settings.get("tau_from", "given") == settings["tau_from"]:
        return row
    source = {name: settings[name] for name in ("tau_from", "model")}
    return replace(row, settings={**row.settings, **source})


def rows_of(
    scorer: "Scorer", name: str, values: Mapping[str, Measurement], fields: Mapping[str, Any]
) -> list[Row]:
    """The rows of one metric's values on one video, or on a set of them.

    Args:
        scorer: measured the values.
        name: of the metric.
        values: {name of a value: measurement}.
        fields: all other fields of the rows, `sample_id` included.
    """
    metric, model = scorer.metric(name), scorer.model_of(name)
    return [
        Row(
            metric=value,
            metric_version=metric.version,
            metric_model=model,
            higher_is_better=metric.values[value],
            value=measurement.value,
            reason=measurement.reason,
            score_id=score_id_of(fields["sample_id"], value, metric.version, model),
            **fields,
        )
        for value, measurement in values.items()
    ]
