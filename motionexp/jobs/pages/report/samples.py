"""The samples of a report: rows of one sample together, with its files and what its cards show."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from motionexp.config.metrics import measurable
from motionexp.files import file_name
from motionexp.jobs.finished import path_below
from motionexp.jobs.summary import headings
from motionexp.results.layout import standard_columns
from motionexp.results.rows import Row
from motionexp.results.runs import settings_in_words
from motionexp.results.settings_table import LABELS, OF_REAL_CLIPS

MOTION = ("velocity_similarity", "flow_similarity")
LEAKAGE = ("nuisance_similarity", "appearance_leakage")
"""The scores of a plane of motion and leakage: of the bundled world, and else of real clips."""


@dataclass(frozen=True)
class Score:
    """What the scores of one name are.

    Attributes:
        name: of the value in rows.
        heading: in words.
        minus: the value that is subtracted; empty: none.
        higher_is_better: None where neither is.
        is_main: whether every card shows it.
    """

    name: str
    heading: str
    minus: str
    higher_is_better: bool | None
    is_main: bool

    @property
    def arrow(self) -> str:
        """Points to what is better."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]


@dataclass(frozen=True)
class ShownSample:
    """A sample of a report.

    Attributes:
        rows: all of its scores.
        output: the folder of results that its paths start from.
        source: which of two compared sweeps it is of; empty: there is one.
    """

    rows: Sequence[Row]
    output: Path
    source: str = ""

    @property
    def row(self) -> Row:
        """One of its rows, for what all have in common."""
        return self.rows[0]

    @property
    def key(self) -> str:
        """Its id after its source, as the name of a file."""
        return file_name(f"{self.source}{self.row.sample_id}")

    @cached_property
    def video(self) -> Path | None:
        """The path of the stored mp4; None: its row names no file below the output."""
        try:
            return path_below(self.output, self.row.sample_file) if self.row.sample_file else None
        except ValueError:
            return None

    @property
    def cell(self) -> Path | None:
        """The folder of its cell."""
        return self.video.parents[1] if self.video else None

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """Tau or what made it, then what differs from the defaults, as on a command line."""
        row = self.row
        words = settings_in_words(row.settings, row.method, row.tau)
        is_first = row.training_seed in (None, row.settings.get("seed", 0)) or row.method == "base"
        return words if is_first else (*words, f"training_seeds=[{row.training_seed}]")

    @cached_property
    def values(self) -> dict[str, float]:
        """{metric: value}, NaN where the metric abstained."""
        return {row.metric: row.value for row in self.rows}

    def score(self, score: Score) -> float:
        """A score as cards and plots show it; NaN where it has no value."""
        value = self.values.get(score.name, math.nan)
        return value - (self.values.get(score.minus, math.nan) if score.minus else 0.0)


def samples_of(rows: Iterable[Row], output: Path, source: str = "") -> list[ShownSample]:
    """The samples that rows are scores of, by reference, edit and settings; no probes or sanity baselines."""
    by_sample: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.seed is not None and not row.tau_start and not row.sanity_baseline:
            by_sample[row.sample_id].append(row)
    samples = [ShownSample(of_sample, output, source) for of_sample in by_sample.values()]
    return sorted(samples, key=sample_order)


def sample_order(sample: ShownSample) -> tuple[Any, ...]:
    """Sorts samples by reference, edit and settings: those of two sweeps beside each other."""
    row = sample.row
    changed = sample.settings[1:]
    return (
        *(row.suite, row.reference, row.edit_kind, row.edit_caption, row.edit_image, row.model),
        *(row.method != "base", row.method, changed, row.tau, row.seed, sample.source),
    )


def _labels() -> dict[str, str]:
    """{metric: its heading in tables} of the main scores."""
    columns = {**standard_columns(), **OF_REAL_CLIPS}
    return {columns[key].metric: label.rstrip(" ↑↓") for key, label in LABELS.items()}


def score_words() -> dict[str, tuple[str, str]]:
    """{metric: its heading, and the metric that is subtracted, empty: none}, in the words of the tables."""
    labels = _labels()
    words = {
        name: (labels.get(name, heading), minus) for name, (heading, minus) in headings(measurable()).items()
    }
    # Two ways to pair frames share a heading.
    if "frame_consistency_pairs" in words:
        words["frame_consistency_pairs"] = "frame consistency, all pairs", ""
    return words


def scores_of(samples: Iterable[ShownSample]) -> list[Score]:
    """The scores that samples have, in the words of the tables: motion and leakage first."""
    rows = {row.metric: row for sample in samples for row in sample.rows}
    main = [*_labels(), *(["appearance_leakage"] if LEAKAGE[0] not in rows else [])]
    words = score_words()
    scores = [
        Score(name, heading, minus, rows[name].higher_is_better, name in main)
        for name, (heading, minus) in words.items()
        if name in rows
    ]
    # Values that stand in no summary can be sorted by too.
    scores += [
        Score(name, name.replace("_", " "), "", row.higher_is_better, False)
        for name, row in sorted(rows.items())
        if name not in words and row.higher_is_better is not None
    ]
    return sorted(scores, key=lambda score: main.index(score.name) if score.is_main else len(main))
