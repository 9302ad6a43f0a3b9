"""What a study can show: the finished samples of methods that are compared, by reference and edit."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from motionexp.config.command_line import override_key
from motionexp.errors import InputError
from motionexp.jobs.finished import path_below
from motionexp.jobs.results_folder import ResultsFolder
from motionexp.results.rows import Row
from motionexp.results.selection import no_such_name, selected, setting_of
from motionexp.results.settings_table import EXTERNAL, TUNING, differing_names
from motionexp.results.versions import of_newest_version

BASE = "base model"
MOST_METHODS = 8
"""Columns of a page."""
FEWEST_METHODS = 2


class Pair(NamedTuple):
    """A reference with one of its edits: what a page of a questionnaire is about."""

    suite: str
    reference: str
    edit_kind: str
    caption: str


@dataclass
class Shown:
    """The samples of a method for a pair, and their scores.

    Attributes:
        samples: a row of each sample, by the index of its noise.
        scores: {index of the noise: {metric: value}}; None: of all samples together.
    """

    samples: dict[int, Row] = field(default_factory=dict)
    scores: dict[int | None, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def mean_scores(self, seeds: Collection[int]) -> dict[str, float]:
        """{metric: its mean over samples}, without metrics that abstained on one of them."""
        of_samples = [self.scores.get(seed, {}) for seed in seeds]
        shared = set(of_samples[0]).intersection(*of_samples[1:])
        means = {name: float(np.mean([scores[name] for scores in of_samples])) for name in shared}
        return dict(sorted({**self.scores.get(None, {}), **means}.items()))


@dataclass(frozen=True)
class Candidates:
    """All that a study can draw from.

    Attributes:
        output: the folder that the files of rows are relative to.
        methods: their labels, in order.
        shown: {pair: {method: its samples}}, of pairs that all methods have enough samples of.
        directions: {metric: whether higher is better}; None: neither.
    """

    output: Path
    methods: tuple[str, ...]
    shown: Mapping[Pair, Mapping[str, Shown]]
    directions: Mapping[str, bool | None]

    def seeds(self, pair: Pair) -> list[int]:
        """The indices of the noise of which every method has a sample."""
        of_methods = [set(shown.samples) for shown in self.shown[pair].values()]
        return sorted(set.intersection(*of_methods))


def find_candidates(
    output: Path, select: Mapping[str, str], by: str | None, *, base_model: bool, outputs: int
) -> Candidates:
    """The samples that a study can show.

    Args:
        output: folder of finished samples, or of a sweep.
        select: {a setting, a field or a stratum of rows: its values with commas between}.
        by: the settings that tell methods apart, with commas between; None: those in which rows differ.
        base_model: whether the base model is one of the methods.
        outputs: samples of each method for a pair.

    Raises:
        InputError: nothing is selected, there are too few or too many methods, two samples belong to one
            method and seed, or no pair has enough samples of all methods.
    """
    rows = _selected(output, select, base_model)
    names = [override_key(name.strip()) for name in by.split(",")] if by else _differing(rows)
    if problem := next(filter(None, (no_such_name(name, rows) for name in names)), None):
        raise InputError(f"by={by}: {problem}")
    shown: dict[Pair, dict[str, Shown]] = defaultdict(lambda: defaultdict(Shown))
    directions: dict[str, bool | None] = {}
    for row in rows:
        label = _label(row, names)
        entry = shown[Pair(row.suite, row.reference, row.edit_kind, row.edit_caption)][label]
        if not math.isnan(row.value):
            directions[row.metric] = row.higher_is_better
            entry.scores[row.seed][row.metric] = row.value
        if row.seed is not None:
            before = entry.samples.setdefault(row.seed, row)
            if before.sample_id != row.sample_id:
                raise InputError(_two(before, row, label, names))
    methods = _methods(shown)
    whole = _whole(shown, methods, outputs)
    return Candidates(ResultsFolder(output).output, methods, whole, directions)


def _selected(output: Path, select: Mapping[str, str], base_model: bool) -> list[Row]:
    """The rows of samples of jobs, of the newest versions, that have the selected values."""
    rows = [
        row
        for row in of_newest_version(ResultsFolder(output).rows())
        if not (row.sanity_baseline or row.tau_start or row.method == EXTERNAL)
        and (row.sample_file or row.seed is None)
        and (base_model or row.method != "base")
    ]
    for name, values in select.items():
        rows = selected(rows, name, values, output)
    if not any(row.seed is not None for row in rows):
        raise InputError(f"output={output}: there are no finished samples of jobs")
    # Of several training seeds the first one: an edit's samples are then told apart by their noise.
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.training_seed is not None:
            key = row.model, row.reference
            first[key] = min(first.get(key, row.training_seed), row.training_seed)
    return [row for row in rows if row.training_seed in (None, first.get((row.model, row.reference)))]


def _differing(rows: Sequence[Row]) -> list[str]:
    """The settings that tell methods apart: of the model too where there are several."""
    models = ["model"] if len({row.model for row in rows}) > 1 else []
    return [*models, *differing_names(rows)] or ["tau"]


def _label(row: Row, names: Iterable[str]) -> str:
    is_base = row.method == "base"
    shown = [name for name in names if not (is_base and name.partition(".")[0] in TUNING)]
    words = [f"{name}={setting_of(row, name).replace('None', 'null')}" for name in shown]
    return " ".join([BASE] * is_base + words)


def _two(first: Row, second: Row, label: str, names: Collection[str]) -> str:
    """An error's text for two samples of one method, pair and seed."""
    differ = [name for name in differing_names([first, second]) if name not in names]
    which = f"they differ in {', '.join(differ)}: add it to by=, or choose {differ[0]}=" if differ else (
        "their settings are equal: name a folder with the results of one command (output=)"
    )  # fmt: skip
    return f"two samples of {label}, {first.reference}, {first.edit_kind}, seed {first.seed}: {which}"


def _methods(shown: Mapping[Pair, Mapping[str, Shown]]) -> tuple[str, ...]:
    labels = sorted({label for of_pair in shown.values() for label in of_pair})
    if not FEWEST_METHODS <= len(labels) <= MOST_METHODS:
        listed = "; ".join(labels[:20])
        raise InputError(
            f"study: {len(labels)} methods ({listed}); a page compares {FEWEST_METHODS} to {MOST_METHODS}:"
            " choose with words such as tau=0,700 or method=lora,ditflow; base_model=true adds the base model"
        )
    return tuple(labels)


def _whole(
    shown: Mapping[Pair, Mapping[str, Shown]], methods: Sequence[str], outputs: int
) -> dict[Pair, Mapping[str, Shown]]:
    """The pairs of which all methods have so many samples of the same noise, in order."""
    whole: dict[Pair, Mapping[str, Shown]] = {}
    for pair, of_pair in sorted(shown.items()):
        seeds = [set(of_pair[method].samples) if method in of_pair else set() for method in methods]
        if len(set.intersection(*seeds)) >= outputs:
            whole[pair] = {method: of_pair[method] for method in methods}
    if whole:
        return whole
    counts = []
    for method in methods:
        of_edits = [len(of_pair[method].samples) for of_pair in shown.values() if method in of_pair]
        counts.append(f"{method}: {len(of_edits)} edits with at most {max(of_edits)}")
    raise InputError(
        f"study: no edit of a reference has {outputs} samples of every method ({'; '.join(counts)} samples):"
        f" run the jobs with seeds={outputs} and the same references"
    )


def sample_video(candidates: Candidates, row: Row) -> Path:
    """The mp4 of a sample. Raises InputError where it is missing, or its name leads elsewhere."""
    try:
        path = path_below(candidates.output, row.sample_file)
    except ValueError as error:
        raise InputError(f"output={candidates.output}: a row's sample_file: {error}") from error
    if not path.is_file():
        raise InputError(
            f"output={candidates.output}: {row.sample_file} is not there: name the folder that the jobs wrote"
            " to, with its videos"
        )
    return path
