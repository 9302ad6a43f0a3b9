"""A table of any rows by some of their settings, without a layout: a block for each suite and model."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from motionexp.config.metrics import METRICS
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError, nearest
from motionexp.results.comparisons import count_of, mean_of
from motionexp.results.formats import Block, Cell, Line, Table
from motionexp.results.layout import Column, standard_columns
from motionexp.results.rows import SANITY_BASELINES, Row, Subject
from motionexp.results.selection import SAMPLED, TRAINED, distinct_settings, setting_of, settings_key
from motionexp.results.subjects import Values, over_training_seeds, paired_difference, reasons_in
from motionexp.results.versions import check_comparable, of_newest_version

MOST_NOTES = 5  # on lines that lack samples; of more lines one note has the number
EXTERNAL = "external"
"""The method in rows of videos that another system made."""
BASE_LABEL = "base model"
BUNDLED_WORLD = "shapes"  # the suite that has ground truth
NOT_MEASURED = "\N{EN DASH}"
# The words of README, where those of the published tables are shorter.
LABELS = {
    "motion": "motion similarity ↑",
    "nuisances": "background leakage ↓",
    "replaced": "edited-attribute leakage ↓",
    "text": "text alignment ↑",
    "consistency": "frame consistency ↑",
    "pick": "pick score ↑",
    "flow": "flow similarity ↑",
}
MAIN = ("motion", "nuisances", "replaced", "text", "consistency", "pick")
"""Columns of the first table: motion and leakage beside the three scores that papers report."""
# Where there is no ground truth, what CLIP sees of the reference's appearance stands for leakage.
OF_REAL_CLIPS = {"clip_leakage": Column("CLIP leakage ↓", "appearance_leakage")}
MAIN_OF_REAL_CLIPS = ("flow", "fidelity", "clip_leakage", "text", "consistency", "pick")
SAMPLING = (*SAMPLED, "seed", "precision")
"""Settings that the base model's samples depend on."""
TUNING = ("method", "tau", *TRAINED, "adapter")
PER_BLOCK = ("suite", "data", "model")
"""Settings that have a block for each value."""
# Settings that rows do not hold, and the field that differs with them; without one they only change n.
FIELD_OF = dict.fromkeys(("references", "seeds", "training_seeds", "metrics", "edit_kinds", "scoring"), "")
FIELD_OF |= {"video": "reference", "caption": "reference_hash", "edits": "edit_caption"}
FIELD_OF |= {"image": "edit_image"}


@dataclass
class _Line:
    """The rows of one setting, whose `values` are its texts by name."""

    values: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    is_base: bool = False
    sanity_baseline: str = ""
    _values: dict[str, Values] = field(default_factory=dict)

    @cached_property
    def by_metric(self) -> dict[str, list[Row]]:
        """The rows of each metric; the line has all its rows."""
        by_metric: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            by_metric[row.metric].append(row)
        return by_metric

    def of_metric(self, metric: str) -> Values:
        """Means over training seeds by subject; of two rows of one sample the later one counts."""
        if metric not in self._values:
            rows = self.by_metric.get(metric, [])
            self._values[metric] = over_training_seeds(
                {(_subject(row), row.training_seed): row.value for row in rows}
            )
        return self._values[metric]


def _subject(row: Row) -> Subject:
    # The edits of a clip are all of one kind, and several images may have one caption.
    image = f" ({row.edit_image})" if row.edit_image else ""
    return row.reference, f"{row.edit_kind}: {row.edit_caption}{image}", row.seed


def names_in_rows(names: Iterable[str]) -> list[str]:
    """The names of settings as rows have them: `video` is the reference there, `references` is none."""
    return list(dict.fromkeys(new for name in names if (new := FIELD_OF.get(name, name))))


def settings_tables(rows: Iterable[Row], by: Sequence[str], title: str) -> list[Table]:
    """Tables of the main scores and of all others: means of each setting, and paired differences below.

    The baseline of a line is the line of all timesteps (tau = 0) with the same other settings, and where the
    block has none the base model. Rows of probes are left out.

    Args:
        rows: of one experiment or several; the newest version of each metric counts.
        by: settings, fields or strata, a column each. Of all else the lines of a block have one value.
        title: of the table.

    Raises:
        InputError: no rows; a name that no row has; or rows that differ in a setting that is not in `by`, or
            that cannot be compared for another reason, which it names.
    """
    shown = of_newest_version(row for row in rows if not row.tau_start)
    if not shown:
        raise InputError(f"{title}: there are no scores of samples")
    by = names_in_rows(by)
    _check_names(by, shown)
    labels = [name for name in by if name not in PER_BLOCK]
    labels = ["tau", *(name for name in labels if name != "tau")]
    by_block: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in shown:
        by_block[row.suite, row.model].append(row)
    for (suite, model), of_block in by_block.items():
        _check_block(f"{model} on {suite}", of_block, by)
    # Each suite has tables of its own: real clips have other scores than the bundled world.
    tables = []
    for suite in dict.fromkeys(suite for suite, _ in by_block):
        blocks = {place: rows for place, rows in by_block.items() if place[0] == suite}
        columns = score_columns([row for rows in blocks.values() for row in rows])
        main = MAIN if "motion" in columns else MAIN_OF_REAL_CLIPS
        parts = {
            title: {key: columns[key] for key in main if key in columns},
            f"{title}: further scores": {key: columns[key] for key in columns if key not in main},
        }
        tables += [_table(part, labels, of_part, blocks) for part, of_part in parts.items() if of_part]
    return tables


def _table(
    title: str,
    labels: list[str],
    columns: dict[str, Column],
    by_block: dict[tuple[str, str], list[Row]],
) -> Table:
    blocks, notes = [], []
    for (suite, model), rows in by_block.items():
        block, place = _BlockOf(rows, labels, columns), f"{model} on {suite}"
        blocks += block.blocks(place)
        notes += block.notes(place if len(by_block) > 1 else "")
    texts = [column.label for column in columns.values()]
    return Table(title, labels, texts, [block for block in blocks if block.lines], notes, "references")


def _check_names(by: Sequence[str], rows: Sequence[Row]) -> None:
    for name in by:
        if name.partition(".")[0] not in JobConfig.__dataclass_fields__ and not any(
            setting_of(row, name) for row in rows
        ):
            names = sorted({key for row in rows for key in row.strata} | {"reference", "edit_kind"})
            near = nearest(name, [*names, *JobConfig.__dataclass_fields__])
            hint = f"did you mean {near}? It is " if near else ""
            raise InputError(f"by={name}: no row has it; {hint}a setting, or one of {', '.join(names)}")


def _check_block(place: str, rows: Sequence[Row], by: Sequence[str]) -> None:
    """Refuse rows of one suite and model that differ in what is not in `by`."""
    allowed = [name for name in ("precision", "reference_hash") if name in by]
    allowed += ["weights_hash"] * any(name.startswith("model.") for name in by)
    allowed += ["metric_model"] * any(name.startswith("scoring.") for name in by)
    try:
        check_comparable(rows, allowed)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    tuned = [row for row in rows if not row.sanity_baseline and row.method not in ("base", EXTERNAL)]
    base = [row for row in rows if row.method == "base" and not row.sanity_baseline]
    problems = []
    for choices, all_rows in ((TUNING, tuned), (SAMPLING, [*tuned, *base])):
        of_kind = distinct_settings(all_rows)
        for name in (name for name in choices if name not in by):
            # A setting that a row lacks is newer than the row, and has its default there.
            values = {setting_of(row, name) for row in of_kind if name in row.settings or name in TUNING[:2]}
            if len(values) > 1:
                problems.append(f"{name} ({', '.join(sorted(values, key=_natural))})")
    if problems:
        names = " and ".join(dict.fromkeys(problems))
        raise InputError(
            f"{place}: its rows differ in {names}: add the name to by=, or choose one value, as"
            f" {problems[0].partition(' ')[0]}=VALUE"
        )


def score_columns(rows: Sequence[Row]) -> dict[str, Column]:
    """The columns with rows: motion and leakage, the published three, then further scores."""
    metrics = {row.metric for row in rows}
    standard = standard_columns()
    columns = {key: standard[key] for key in LABELS} | standard
    pairs = {row.settings.get("scoring", {}).get("pairs", "consecutive") for row in distinct_settings(rows)}
    if len(pairs) == 1:
        columns["consistency"] = Column("", f"frame_consistency_{pairs.pop()}")
    if columns["nuisances"].metric not in metrics:
        columns |= OF_REAL_CLIPS
    return {
        key: Column(LABELS.get(key, column.label), column.metric, column.minus, column.digits)
        for key, column in columns.items()
        if column.metric in metrics
    }


class _BlockOf:
    """The lines of one suite and model."""

    def __init__(self, rows: Sequence[Row], labels: Sequence[str], columns: dict[str, Column]) -> None:
        self.labels, self.columns = labels, columns
        lines: dict[tuple[Any, ...], _Line] = {}
        line_of: dict[tuple[Any, ...], _Line] = {}
        # Other names than those of settings tell apart rows that share their settings.
        is_shared = all(name in (*TUNING, *SAMPLING) for name in labels)
        for row in rows:
            about = (*settings_key(row), id(row.strata) if is_shared else id(row))
            if about not in line_of:
                is_base = row.method == "base" and not row.sanity_baseline
                line = _Line(self._values(row), [], is_base, row.sanity_baseline)
                key = (not is_base, row.sanity_baseline, *line.values.items())
                line_of[about] = lines.setdefault(key, line)
            line_of[about].rows.append(row)
        order = sorted(lines.values(), key=self._order)
        self.lines = [line for line in order if not line.sanity_baseline]
        self.sanity_baselines = [line for line in order if line.sanity_baseline]

    def _values(self, row: Row) -> dict[str, str]:
        if row.sanity_baseline:
            return {}
        if row.method == EXTERNAL:
            return {"tau": "another system"}
        of_base = [name for name in self.labels if name.partition(".")[0] not in TUNING]
        names = of_base if row.method == "base" else self.labels
        return {name: setting_of(row, name) for name in names}

    def _order(self, line: _Line) -> tuple[Any, ...]:
        baselines = [*SANITY_BASELINES]
        place = baselines.index(line.sanity_baseline) if line.sanity_baseline else 0
        return (not line.is_base, place, [_natural(line.values.get(name, "")) for name in self.labels])

    def base_of(self, line: _Line) -> _Line | None:
        """The base model with the line's settings of sampling."""
        candidates = [
            base for base in self.lines if base.is_base and base.values.items() <= line.values.items()
        ]
        if line.sanity_baseline:
            candidates = [base for base in self.lines if base.is_base]
        return candidates[0] if candidates else None

    def baseline_of(self, line: _Line) -> _Line | None:
        """The line that a line is compared with; see `settings_table`."""
        untimed = [candidate for candidate in self.lines if candidate.values.get("tau") == "0"]
        if not untimed:
            return None if line.is_base else self.base_of(line)
        if line.is_base:
            untimed = [candidate for candidate in untimed if self.base_of(candidate) is line]
            return untimed[0] if len(untimed) == 1 else None
        same = [candidate for candidate in untimed if candidate.values == {**line.values, "tau": "0"}]
        return same[0] if same and same[0] is not line else None

    def values(self, line: _Line, column: Column) -> Values:
        """The column's value of each sample, after the subtraction that the column names."""
        values = line.of_metric(column.metric)
        if not column.minus:
            return values
        if column.minus != "base":
            subtracted: dict[Any, float] = dict(line.of_metric(column.minus))
            return {subject: value - subtracted.get(subject, math.nan) for subject, value in values.items()}
        base = self.base_of(line)
        of_base = base.of_metric(column.metric) if base else {}
        # A sanity baseline has no seed: the mean of the base model over its seeds is subtracted.
        of_edit: dict[Any, list[float]] = defaultdict(list)
        for subject, value in of_base.items():
            of_edit[subject[:2]].append(value)
        means = {edit: float(np.mean(seeds)) for edit, seeds in of_edit.items()}
        return {
            subject: value - (of_base.get(subject, math.nan) if subject[2] is not None
                              else means.get(subject[:2], math.nan))
            for subject, value in values.items()
        }  # fmt: skip

    def blocks(self, place: str) -> list[Block]:
        """The means, then the differences to each kind of baseline."""
        means = [self._means(line) for line in [*self.lines, *self.sanity_baselines]]
        differences: dict[str, list[Line]] = {}
        for line in self.lines:
            baseline = self.baseline_of(line)
            if baseline is not None and len(self.lines) > 1:
                name = "the base model" if baseline.is_base else "all timesteps (tau=0)"
                differences.setdefault(name, []).append(self._difference(line, baseline))
        return [
            Block(place, means),
            *(Block(f"{place}: difference to {name}, paired", lines) for name, lines in differences.items()),
        ]

    def _texts(self, line: _Line) -> list[str]:
        if line.sanity_baseline:
            return [SANITY_BASELINES[line.sanity_baseline], *[""] * (len(self.labels) - 1)]
        texts = [line.values.get(name, NOT_MEASURED) for name in self.labels]
        return [BASE_LABEL, *texts[1:]] if line.is_base else texts

    def _means(self, line: _Line) -> Line:
        cells: list[Cell | None] = []
        subjects: set[Subject] = set()
        for key, column in self.columns.items():
            values = self.values(line, column)
            subjects |= values.keys()
            cells.append(Cell(key, mean_of(values), column.digits))
        source = "sanity_baseline" if line.sanity_baseline else "measured"
        return Line(self._texts(line), cells, count_of(subjects), "", source)

    def _difference(self, line: _Line, baseline: _Line) -> Line:
        cells: list[Cell | None] = []
        most = None
        for key, column in self.columns.items():
            interval = paired_difference(self.values(line, column), self.values(baseline, column))
            cells.append(Cell(key, interval, column.digits))
            most = interval if most is None or interval.n > most.n else most
        n = f"{most.n} ({most.clusters})" if most and most.n else "none"
        return Line(self._texts(line), cells, n, "", is_difference=True)

    def notes(self, place: str) -> list[str]:
        """Why there are dashes, and which lines are of fewer samples."""
        where = f"{place}: " if place else ""
        notes = []
        # 1. Main scores without a row.
        absent: dict[str, list[str]] = defaultdict(list)
        metrics = {metric for line in self.lines for metric in line.by_metric}
        suite = next((row.suite for line in self.lines for row in line.rows), "")
        standard = standard_columns()
        for key in MAIN if not {*MAIN}.isdisjoint(self.columns) else ():
            if self.columns.get(key, standard[key]).metric not in metrics:
                absent[_why_absent(standard[key].metric, suite)].append(LABELS[key].rstrip(" ↑↓"))
        notes += [f"{where}{', '.join(labels)}: {reason}." for reason, labels in absent.items()]
        of_base = [column for column in self.columns.values() if column.minus == "base"]
        if of_base and not any(line.is_base for line in self.lines):
            label = of_base[0].label.rstrip(" ↑↓")
            notes.append(f"{where}{label}: the base model's is subtracted, which has no rows.")
        # 2. Samples without a value.
        for column in self.columns.values():
            measured = [row for line in self.lines for row in line.by_metric.get(column.metric, [])]
            label = column.label.rstrip(" ↑↓")
            notes += [
                f"{where}{label}: no value for {count} of the {len(measured)} samples of all lines"
                f" ({reason})."
                for reason, count in reasons_in(measured).items()
            ]
        # 3. Lines that lack samples.
        subjects = [{_subject(row) for row in line.rows if row.seed is not None} for line in self.lines]
        every = set[Subject]().union(*subjects)
        counts = [(line, len(every - of_line)) for line, of_line in zip(self.lines, subjects, strict=True)]
        about = f"of {len(every)} samples"
        texts = [f"{' '.join(self._texts(line))}: lacks {n} {about}" for line, n in counts if n]
        if len(texts) > MOST_NOTES:
            texts = [f"{len(texts)} of {len(self.lines)} lines lack samples"]
        rest = "so that means are not of equal samples; differences are of what both lines have."
        return [*notes, *(f"{where}{text}, {rest}" for text in texts)]


def _why_absent(metric: str, suite: str) -> str:
    spec = next((spec for spec in METRICS.values() if metric in spec.values), None)
    if spec is not None and "reference_truth" in spec.needs and suite != BUNDLED_WORLD:
        return "measured from ground truth, which real clips do not have"
    return "not measured (metrics=)"


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts numbers in a text by their size."""
    parts = re.findall(r"[0-9]+\.?[0-9]*|[^0-9]+", text)
    return [(0, float(part), "") if part[0] in "0123456789" else (1, 0.0, part) for part in parts]


def differing_names(rows: Collection[Row]) -> list[str]:
    """The settings in which rows of one suite and model differ: what `by` has to name."""
    names: list[str] = []
    by_block: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not (row.sanity_baseline or row.tau_start or row.method == EXTERNAL):
            by_block[row.suite, row.model].append(row)
    for _, of_block in sorted(by_block.items()):
        tuned = [row for row in of_block if row.method != "base"]
        for of_kind, candidates in ((tuned, TUNING), (of_block, SAMPLING)):
            distinct = distinct_settings(of_kind)
            names += [
                name
                for name in candidates
                if len({setting_of(row, name) for row in distinct if name in row.settings}) > 1
            ]
    return list(dict.fromkeys(names))
