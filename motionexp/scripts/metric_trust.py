"""Can a metric be trusted? `python run.py -m experiment=metric-trust`, or this module on its published rows.

One line for a metric: its answers to known changes of a correct sample (`perturbations`), its ranks of real
samples against their true error of motion and their true leakage, and the changes that it is blind to.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from motionexp.data.base import Reference
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.errors import InputError
from motionexp.jobs import provenance
from motionexp.jobs.scoring import rows_of
from motionexp.metrics.scorer import Scorer
from motionexp.probes.analysis.comparisons import rank_correlation
from motionexp.probes.analysis.published import write_published
from motionexp.results.formats import Block, Cell, Line, Table, to_markdown
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows
from motionexp.results.tables import with_dirty_note, write_formats
from motionexp.scripts.perturbations import PERTURBATIONS, dosed

EXPERIMENT = Path("experiments/metric-trust.yaml")
DOSE = "dose"
CHANGES = ("path bent", "frames shuffled", "frozen", "hue turned", "identity swapped", "blurred")
# Ground truth of a sample: (value, its sign, the value that is subtracted).
TRUTHS = {
    "ρ with the true motion error": ("velocity_similarity_counted", -1, ""),
    "ρ with the true leakage": ("nuisance_similarity", 1, "nuisance_chance"),
}
REFERENCES = 12
"""Of the tuning split: references with one object are changed, all of them give the chance level."""
BLIND = 0.05
"""A metric is blind to a change if the answer is below this share of its largest answer."""
LEAST_SAMPLES = 4
"""Fewest samples of a reference that are ranked."""
NOTES = [
    "Changes: the value at the largest dose minus the value without a change, as a share of the metric's"
    " largest such difference. The changed sample is correct: it is rendered with the appearance of the"
    " edit.",
    "ρ: Spearman's rank correlation over the samples of one reference (methods, τ, edits), mean over"
    " references. True motion error: 1 minus the similarity of the object's velocities to the reference's"
    " true velocities; 1 if no object can be followed. True leakage: the similarity of the background texture"
    " minus chance.",
    f"Blind to: under {BLIND:.0%} of the largest answer. An en dash: the metric abstains there."
    " motion_diversity is a value of several samples, and has no line.",
]


def dose_rows(references: Sequence[Reference], scorer: Scorer) -> list[Row]:
    """Rows of every metric on every dose of `CHANGES`, on renders of edits of the whole appearance."""
    rows: list[Row] = []
    commit, dirty = provenance.commit()
    for change, dose, reference, by_metric in dosed(references, scorer, CHANGES):
        fields = {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "strata": {**reference.strata, "change": change, "dose": f"{dose:g}"},
            "edit_kind": "multiple",
            "sample_id": f"{change} {dose:g} {reference.content_hash[:12]}",
            "model": "render",
            "method": DOSE,
            "tau": 1000.0,
            "steps": 0,
            "precision": "fp32",
            "commit": commit,
            "dirty": dirty,
            "packages": provenance.packages(),
        }
        for metric, measured in by_metric.items():
            rows += rows_of(scorer, metric, measured, fields)
    return rows


def answers(rows: Iterable[Row]) -> dict[str, dict[str, Interval]]:
    """Return {metric: {change: answer to its largest dose}}, as shares of the metric's largest answer."""
    values = {
        (row.metric, row.strata["change"], row.strata["dose"], row.reference): row.value
        for row in rows
        if row.method == DOSE
    }
    references = sorted({reference for *_, reference in values})
    shares: dict[str, dict[str, Interval]] = {}
    for metric in dict.fromkeys(metric for metric, *_ in values):
        differences = {}
        for change in CHANGES:
            none, *_, most = (f"{dose:g}" for dose in PERTURBATIONS[change].doses)
            differences[change] = [
                values.get((metric, change, most, reference), np.nan)
                - values.get((metric, change, none, reference), np.nan)
                for reference in references
            ]
        means = [abs(float(np.nanmean(row))) for row in differences.values() if not np.isnan(row).all()]
        largest = max(means, default=0.0) or 1.0
        shares[metric] = {
            change: mean_interval([value / largest for value in row], references)
            for change, row in differences.items()
        }
    return shares


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of pairs without NaN; equal values share their mean rank.

    NaN for fewer than `LEAST_SAMPLES` pairs, or a constant side.
    """
    pairs = np.array([first, second], float)
    pairs = pairs[:, ~np.isnan(pairs).any(0)]
    if pairs.shape[1] < LEAST_SAMPLES:
        return float("nan")
    return float(rank_correlation(pairs[:1], pairs[1])[0])


def correlations(rows: Iterable[Row], truth: str) -> dict[str, Interval]:
    """Return {metric: rank correlation with one of `TRUTHS`}, over real samples within each reference."""
    samples: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in _of_samples(rows):
        samples[row.reference][row.sample_id][row.metric] = row.value
    name, sign, minus = TRUTHS[truth]
    metrics = {metric for by_id in samples.values() for scores in by_id.values() for metric in scores}
    intervals = {}
    for metric in metrics - {name}:
        ranked = {}
        for reference, by_id in samples.items():
            scores = by_id.values()
            truths = [
                sign * (score.get(name, np.nan) - (score.get(minus, np.nan) if minus else 0))
                for score in scores
            ]
            ranked[reference] = spearman([score.get(metric, np.nan) for score in scores], truths)
        intervals[metric] = mean_interval(list(ranked.values()), list(ranked))
    return intervals


def trust_table(rows: Sequence[Row]) -> Table:
    """The table, from rows of samples and of doses.

    Raises:
        InputError: no rows of doses.
    """
    by_metric = answers(rows)
    if not by_metric:
        raise InputError(
            "metric-trust: no rows of doses; run `python run.py -m experiment=metric-trust` first"
        )
    ranked = {truth: correlations(rows, truth) for truth in TRUTHS}
    samples: dict[str, set[str]] = defaultdict(set)
    for row in _of_samples(rows):
        samples[row.metric].add(row.sample_id)
    lines = []
    for metric, changes in by_metric.items():
        cells: list[Cell | None] = [Cell(change, answer, 2) for change, answer in changes.items()]
        cells += [Cell(truth, row[metric], 2) if metric in row else None for truth, row in ranked.items()]
        n = max((row[metric].n for row in ranked.values() if metric in row), default=0)
        blind = [change for change, answer in changes.items() if abs(answer.mean) < BLIND]
        abstains = all(np.isnan(answer.mean) for answer in changes.values())
        blind_to = "all: it abstains" if abstains else ", ".join(blind) or "none of these"
        lines.append(Line([metric, blind_to], cells, f"{len(samples[metric])} ({n})", ""))
    columns = [*CHANGES, *TRUTHS]
    block = Block("bundled world", lines)
    return Table("Can a metric be trusted?", ["metric", "blind to"], columns, [block], NOTES, "references")


def _of_samples(rows: Iterable[Row]) -> list[Row]:
    """Rows of single real samples."""
    return [row for row in rows if row.method != DOSE and not row.sanity_baseline and row.seed is not None]


def run(layout: Layout, output: Path) -> None:
    """Score the doses unless they have rows; print the table of the rows in `output`, and write it there."""
    path = output / "shapes" / "render" / DOSE / ROWS_NAME
    reader = ShapesReferences("tuning")
    references = [reader.read(name) for name in reader.names()[:REFERENCES]]
    scorer = Scorer(chance_references=references)
    current = {
        (value, metric.version, scorer.model_of(name))
        for name, metric in scorer.metrics.items()
        for value in metric.values
    }
    rows = read_rows(path) if path.exists() else []
    if not current <= {(row.metric, row.metric_version, row.metric_model) for row in rows}:
        path.unlink(missing_ok=True)
        scenes = [(reference, reference.truth) for reference in references]
        single = [reference for reference, scene in scenes if scene and len(scene.things) == 1]
        append_rows(path, dose_rows(single, scorer))
    rows = selected_rows(layout, output)
    (table,) = tables = with_dirty_note([trust_table(rows)], rows)
    write_formats(output / "metric-trust", tables)
    print(to_markdown(table))


def main(arguments: Sequence[str]) -> int:
    """Write the table beside the published rows of the experiment; returns the exit code."""
    return write_published(
        arguments,
        EXPERIMENT,
        lambda file, rows: write_formats(file, with_dirty_note([trust_table(rows)], rows)),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
