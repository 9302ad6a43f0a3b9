"""What the plots of a report show: scores over tau, and motion against leakage, with intervals."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from motionexp.jobs.pages.report.samples import LEAKAGE, MOTION, Score, ShownSample
from motionexp.results.intervals import Interval, mean_interval

Point = dict[str, Any]
Line = tuple[str, ...]
"""What all points of a curve have in common, in words."""
MOST_LINES = 8
"""As many as there are colours: of more, intervals would hide each other."""


def plot_groups(samples: Sequence[ShownSample], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Groups of plots with the same lines, as JSON values: one for each suite.

    Where a suite has more lines than colours and more than one backbone, each backbone has a group of its
    own. A group has a title, the names of its lines, and plots. A plot has a title, headings of its axes,
    and lines with points; a point has x and y, the ends of their intervals where they have one, its words
    and the query of the page of samples that shows its samples.
    """
    groups: dict[str, list[ShownSample]] = defaultdict(list)
    for sample in samples:
        groups[sample.row.suite].append(sample)
    for suite in [*groups]:
        if (
            len(_lines(groups[suite])) > MOST_LINES
            and len({sample.row.model for sample in groups[suite]}) > 1
        ):
            for sample in groups.pop(suite):
                groups[f"{suite}, {sample.row.model}"].append(sample)
    return [_group(title, of_group, scores) for title, of_group in sorted(groups.items())]


def _group(title: str, samples: Sequence[ShownSample], scores: Sequence[Score]) -> dict[str, Any]:
    lines = _lines(samples)
    present = [score for score in scores if any(score.name in sample.values for sample in samples)]
    of_name = {score.name: score for score in present}
    leakage, motion = (
        [of_name[name] for name in names if name in of_name][:1] for names in (LEAKAGE, MOTION)
    )
    plots = [_plane(title, lines, x, y) for x, y in zip(leakage, motion, strict=False)]
    plots += [_curves(title, lines, score) for score in present if score.is_main]
    return {"title": title, "names": [" ".join(line) for line in lines], "plots": plots}


def _lines(samples: Sequence[ShownSample]) -> dict[Line, dict[float, list[ShownSample]]]:
    """{line: {tau: samples}}: a line for all that differs beside tau, the base model's first."""
    several = len({sample.row.model for sample in samples}) > 1
    lines: dict[Line, dict[float, list[ShownSample]]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.row.method != "base", sample.settings[1:])):
        row = sample.row
        first, *changed = sample.settings
        name = first if row.method == "base" or "=" not in first else row.method
        words = [*([sample.source] if sample.source else []), *([row.model] if several else []), name]
        words += [word for word in changed if word != f"method={name}"]
        lines.setdefault(tuple(words), {}).setdefault(row.tau, []).append(sample)
    return lines


def _curves(group: str, lines: dict[Line, dict[float, list[ShownSample]]], score: Score) -> dict[str, Any]:
    return {
        "kind": "curves",
        "title": f"{score.heading} over τ, {group}",
        "x": "τ, lower end of the window",
        "y": f"{score.heading}{score.arrow}",
        "lines": [
            {
                "name": " ".join(line),
                "points": [
                    _point(samples, Interval(tau, math.nan, math.nan, 1, 1), _interval(samples, score))
                    for tau, samples in sorted(by_tau.items())
                ],
            }
            for line, by_tau in lines.items()
        ],
    }


def _plane(
    group: str, lines: dict[Line, dict[float, list[ShownSample]]], x: Score, y: Score
) -> dict[str, Any]:
    return {
        "kind": "plane",
        "title": f"{y.heading} against {x.heading}, {group}",
        "x": f"{x.heading}{x.arrow}",
        "y": f"{y.heading}{y.arrow}",
        "lines": [
            {
                "name": " ".join(line),
                "points": [
                    _point(samples, _interval(samples, x), _interval(samples, y))
                    for _, samples in sorted(by_tau.items())
                ],
            }
            for line, by_tau in lines.items()
        ],
    }


def _interval(samples: Sequence[ShownSample], score: Score) -> Interval:
    return mean_interval(
        [sample.score(score) for sample in samples], [sample.row.reference for sample in samples]
    )


def _point(samples: Sequence[ShownSample], x: Interval, y: Interval) -> Point:
    first = samples[0]
    query = {"setting": " ".join(first.settings), "model": first.row.model, "source": first.source}
    return {
        "words": " ".join(first.settings),
        "count": len(samples),
        "references": y.clusters,
        "query": urlencode({name: value for name, value in query.items() if value}),
        **{f"x_{name}": value for name, value in _ends(x).items()},
        **{f"y_{name}": value for name, value in _ends(y).items()},
    }


def _ends(interval: Interval) -> dict[str, float | None]:
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: None if math.isnan(value) else round(value, 6) for name, value in ends.items()}
