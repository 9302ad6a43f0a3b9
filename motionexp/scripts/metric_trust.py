"""Can a metric be trusted? `python run.py -m experiment=metric-trust`, or this module on its published rows.

One line a metric: how it answers to changes of a right sample whose size is known (`dose_response`), how it
ranks real samples beside their true error of motion and their true leakage, and what it is blind to.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.data.base import Edit, Reference
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.errors import InputError
from motionexp.jobs import provenance
from motionexp.jobs.scoring import rows_of
from motionexp.metrics.base import Measurement
from motionexp.metrics.scorer import Scorer
from motionexp.probes.analysis.comparisons import rank_correlation
from motionexp.results.formats import Block, Cell, Line, Table, to_markdown
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.published import is_published, read_published
from motionexp.results.rows import ROWS_NAME, Row, append_rows, read_rows
from motionexp.results.tables import write_formats
from motionexp.scripts.perturbations import PERTURBATIONS, count_videos, dosed

EXPERIMENT = Path("experiments/metric-trust.yaml")
DOSE = "dose"
CHANGES = ("path bent", "frames shuffled", "frozen", "hue turned", "identity swapped", "blurred")
# What the world knows of a sample: (value, its sign, what is subtracted).
TRUTHS = {
    "ρ with the true motion error": ("velocity_similarity_counted", -1, ""),
    "ρ with the true leakage": ("nuisance_similarity", 1, "nuisance_chance"),
}
REFERENCES = 12
"""Of the tuning split: those of them that show one object are changed, the others serve for chance."""
BLIND = 0.05
"""Share of a metric's largest answer to any change below which it is blind to a change."""
LEAST_SAMPLES = 4
"""Samples of a reference below which they are not ranked."""
NOTES = [
    "Changes: the value at the largest dose less the value at none, as a share of the metric's largest such"
    " difference; a right sample, rendered with the edit's looks, is what is changed.",
    "ρ: Spearman's rank correlation over the samples of one reference (methods, τ, edits), mean over"
    " references. True motion error: 1 less the similarity of the object's velocities to the reference's true"
    " ones, 1 where no object can be followed. True leakage: the similarity of the ground's nuisances, less"
    " chance.",
    f"Blind to: under {BLIND:.0%} of the largest answer. An en dash: the metric abstains there."
    " motion_diversity is of several samples at once, and has no line.",
]


def dose_rows(references: Sequence[Reference], scorer: Scorer) -> list[Row]:
    """Rows of every metric on every dose of `CHANGES`, on renders of the references' edits of all looks."""
    rows: list[Row] = []
    commit, dirty = provenance.commit()
    bar = tqdm(total=count_videos(references, CHANGES), desc="dose response", unit="video", leave=False)
    metric_of = {value: name for name, each in scorer.metrics.items() for value in each.values}

    def score(frames: np.ndarray, reference: Reference, edit: Edit) -> Mapping[str, Measurement]:
        bar.update()
        measured = scorer.score(frames, reference, edit)
        return {name: value for values in measured.values() for name, value in values.items()}

    with bar:
        for change, dose, reference, measured in dosed(references, score, CHANGES):
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
            for value, each in measured.items():
                rows += rows_of(scorer, metric_of[value], {value: each}, fields)
    return rows


def answers(rows: Iterable[Row]) -> dict[str, dict[str, Interval]]:
    """{metric: {change: its answer to the largest dose, as a share of its largest to any}}, from doses."""
    values = {
        (row.metric, row.strata["change"], row.strata["dose"], row.reference): row.value
        for row in rows
        if row.method == DOSE
    }
    metrics = list(dict.fromkeys(metric for metric, *_ in values))
    references = sorted({key[3] for key in values})
    found: dict[str, dict[str, Interval]] = {}
    for metric in metrics:
        differences = {}
        for change in CHANGES:
            none, *_, most = (f"{dose:g}" for dose in PERTURBATIONS[change].doses)
            differences[change] = [
                values.get((metric, change, most, each), np.nan)
                - values.get((metric, change, none, each), np.nan)
                for each in references
            ]
        means = [abs(float(np.nanmean(each))) for each in differences.values() if not np.isnan(each).all()]
        largest = max(means, default=0.0) or 1.0
        found[metric] = {
            change: mean_interval([value / largest for value in each], references)
            for change, each in differences.items()
        }
    return found


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Rank correlation of the pairs without NaN, ties in the middle; NaN for too few or constant ones."""
    pairs = np.array([ours, theirs], float)
    pairs = pairs[:, ~np.isnan(pairs).any(0)]
    if pairs.shape[1] < LEAST_SAMPLES:
        return float("nan")
    return float(rank_correlation(pairs[:1], pairs[1])[0])


def correlations(rows: Iterable[Row], truth: str) -> dict[str, Interval]:
    """{metric: its rank correlation with one of `TRUTHS`}, over real samples within each reference."""
    samples: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in _of_samples(rows):
        samples[row.reference][row.sample_id][row.metric] = row.value
    name, sign, minus = TRUTHS[truth]
    metrics = {metric for own in samples.values() for each in own.values() for metric in each}
    found = {}
    for metric in metrics - {name}:
        ranked = {}
        for reference, own in samples.items():
            known = [
                sign * (each.get(name, np.nan) - (each.get(minus, np.nan) if minus else 0))
                for each in own.values()
            ]
            ranked[reference] = spearman([each.get(metric, np.nan) for each in own.values()], known)
        found[metric] = mean_interval(list(ranked.values()), list(ranked))
    return found


def trust_table(rows: Sequence[Row]) -> Table:
    """The table, from rows of samples and of doses.

    Raises:
        InputError: no rows of doses.
    """
    answered = answers(rows)
    if not answered:
        raise InputError(
            "metric-trust: no rows of doses; run `python run.py -m experiment=metric-trust` first"
        )
    ranked = {truth: correlations(rows, truth) for truth in TRUTHS}
    samples: dict[str, set[str]] = defaultdict(set)
    for row in _of_samples(rows):
        samples[row.metric].add(row.sample_id)
    lines = []
    for metric, changes in answered.items():
        cells: list[Cell | None] = [Cell(change, each, 2) for change, each in changes.items()]
        cells += [Cell(truth, each[metric], 2) if metric in each else None for truth, each in ranked.items()]
        n = max((each[metric].n for each in ranked.values() if metric in each), default=0)
        lines.append(Line([metric, _blind_to(changes)], cells, f"{len(samples[metric])} ({n})", ""))
    columns = [*CHANGES, *TRUTHS]
    block = Block("bundled world", lines)
    return Table("Can a metric be trusted?", ["metric", "blind to"], columns, [block], NOTES, "references")


def _blind_to(changes: Mapping[str, Interval]) -> str:
    if all(np.isnan(each.mean) for each in changes.values()):
        return "all: it abstains"
    return ", ".join(change for change, each in changes.items() if abs(each.mean) < BLIND) or "none of these"


def _of_samples(rows: Iterable[Row]) -> list[Row]:
    """Those of real samples, one by one."""
    return [row for row in rows if row.method != DOSE and not row.sanity_baseline and row.seed is not None]


def run(layout: Layout, output: Path) -> None:
    """Score the doses where that is not done; print the table of the rows in `output`, and write it there."""
    path = output / "shapes" / "render" / DOSE / ROWS_NAME
    reader = ShapesReferences("tuning")
    everything = [reader.read(name) for name in reader.names()[:REFERENCES]]
    scorer = Scorer(chance_references=everything)
    wanted = {
        (value, metric.version, scorer.model_of(name))
        for name, metric in scorer.metrics.items()
        for value in metric.values
    }
    known = read_rows(path) if path.exists() else []
    if not wanted <= {(row.metric, row.metric_version, row.metric_model) for row in known}:
        path.unlink(missing_ok=True)
        single = [each for each in everything if each.truth is not None and len(each.truth.things) == 1]
        append_rows(path, dose_rows(single, scorer))
    table = trust_table(selected_rows(layout, output))
    write_formats(output / "metric-trust", [table])
    print(to_markdown(table))


def main(arguments: Sequence[str]) -> int:
    """Write the table beside the published rows of the experiment; returns the exit code."""
    try:
        path = Path(*arguments[:1]) if arguments else EXPERIMENT
        layout = read_layout(path)
        if not (arguments or is_published(path, layout)):
            return 0
        root = path.resolve().parent.parent
        table = trust_table(read_published(root / layout.rows))
        for written in write_formats((root / layout.rows).with_suffix(""), [table]):
            print(os.path.relpath(written))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
