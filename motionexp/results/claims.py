"""README's claims: what each of them says of published rows, tested, and corrected for their number by Holm.

A claim is one sentence in an experiment's file. It may say several things, of which all have to hold: its
p-value is then the largest of theirs (an intersection-union test). Claims on four references or fewer are
refused.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.formats import FEWEST
from motionexp.results.intervals import Interval
from motionexp.results.layout import EQUAL, LESS, MORE, UNTESTED, Claim, ClaimedDifference
from motionexp.results.rows import Row
from motionexp.results.significance import LEVEL, MeasuredDifference, equal_interval, equal_p, holm, more_p

MOST_CLAIMS = 8
"""In README: Holm's correction, and a reader, have room for few."""


@dataclass(frozen=True)
class Measure:
    """One thing that a claim says, or shows beside it.

    Attributes:
        name: which difference it is, in README.
        compared: the model and the two settings, in full.
        of: the column's label without its arrow.
        expected: one of `layout.EXPECTATIONS`.
        p: NaN where it is untested.
        commits: of its rows, with a star where the working tree had changes.
        equal_interval: the ends of the 90% interval that decides an equality; None of anything else.
    """

    name: str
    compared: str
    of: str
    expected: str
    interval: Interval
    digits: int
    p: float
    commits: frozenset[str]
    equal_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Finding:
    """A claim with its measures; `margin` is that of its experiment, `n` the references that it asks for.

    Raises:
        InputError: a tested measure has fewer than `n` references, or than a claim needs.
    """

    claim: Claim
    experiment: str
    measures: Sequence[Measure]
    margin: float = 0.0
    n: int = 0

    def __post_init__(self) -> None:
        least = max(self.n, FEWEST)
        if self.references < least:
            raise InputError(
                f"{self.place}: {self.references} of the {least} references that it needs; leave it out,"
                " or run more references"
            )

    @property
    def statement(self) -> str:
        """The claim's sentence on one line."""
        return " ".join(self.claim.statement.split())

    @property
    def place(self) -> str:
        """The claim's name in errors."""
        return place_of(self.claim, self.experiment)

    @property
    def p(self) -> float:
        """The claim's p-value: all of it holds only if its weakest part does."""
        return max(measure.p for measure in self.measures if measure.expected != UNTESTED)

    @property
    def references(self) -> int:
        """The number of references of the tested measure with fewest."""
        return min(measure.interval.clusters for measure in self.measures if measure.expected != UNTESTED)

    def verdict(self, adjusted: float) -> str:
        """The claim's outcome in words, by its p-value after Holm's correction."""
        if adjusted > LEVEL:
            return "not after Holm's correction" if self.p <= LEVEL else "not shown"
        tested = {measure.expected for measure in self.measures} - {UNTESTED}
        if EQUAL not in tested:
            return "shown"
        equal = f"equivalent within {self.margin:g}"
        return equal if tested == {EQUAL} else f"shown; {equal}"


def finding_of(claim: Claim, experiment: str, comparison: Comparison) -> Finding:
    """What the rows of an experiment say of a claim of differences.

    Raises:
        InputError: names the claim, and the setting without rows, or how many references are too few.
    """
    layout, place = comparison.layout, place_of(claim, experiment)
    measures = [
        measure for difference in claim.differences for measure in _measures(difference, comparison, place)
    ]
    return Finding(claim, experiment, measures, layout.margin, layout.n)


def place_of(claim: Claim, experiment: str) -> str:
    """The claim's name in errors."""
    return f"{experiment}: claim {' '.join(claim.statement.split())!r:.70}"


def _measures(difference: ClaimedDifference, comparison: Comparison, place: str) -> Iterable[Measure]:
    layout = comparison.layout
    # 1. The two settings, at their scales, in the group of the table.
    table = next(table for table in layout.tables if Path(table.file).name == difference.table)
    group = next(group for group in table.groups if group.title == difference.group)
    names = (difference.ours, difference.theirs)
    settings = [layout.settings[name] for name in names]
    labels = [", ".join(filter(None, setting.labels)) for setting in settings]
    if scales := [f"{scale:g}" for scale in difference.scales]:
        settings = [setting.at_scale(scale) for setting, scale in zip(settings, scales, strict=True)]
        labels = [f"{label}, scale {scale}" for label, scale in zip(labels, scales, strict=True)]
    # 2. The difference of each column, and whether it is as the claim says.
    for key, expected in difference.expected.items():
        column = layout.columns[key]
        ours, theirs = (comparison.values(column, setting, group.select) for setting in settings)
        for name, values in zip(names, (ours, theirs), strict=True):
            if not values:
                raise InputError(f"{place}: {name} has no rows of {column.metric} in {group.title}; run it")
        if ours.keys() != theirs.keys():
            raise InputError(
                f"{place}: {' and '.join(names)} do not have the same samples of {column.metric} in"
                f" {group.title}; run the sweep to its end"
            )
        measured = MeasuredDifference.of(ours, theirs)
        if measured.interval.clusters < 2:
            raise InputError(f"{place}: {len(measured.means)} of the {FEWEST} references that it needs")
        rows = [row for setting in settings for row in comparison.rows(column.metric, setting, group.select)]
        p = {
            MORE: lambda means: more_p(means),
            LESS: lambda means: more_p(-means),
            EQUAL: lambda means: equal_p(means, layout.margin),
            UNTESTED: lambda means: math.nan,
        }[expected](measured.means)
        of = column.label.rstrip(" ↑↓")
        models = ", ".join(sorted({row.model for row in rows}))
        compared = f"{models}: {' minus '.join(labels)}"
        yield Measure(
            *(difference.name, compared, of, expected, measured.interval, column.digits, p, commits_of(rows)),
            equal_interval=equal_interval(measured.means) if expected == EQUAL else None,
        )


def commits_of(rows: Iterable[Row]) -> frozenset[str]:
    """The commits of rows, seven digits each, with a star where the working tree had changes."""
    return frozenset(row.commit[:7] + "*" * row.dirty for row in rows if row.commit)


def adjusted_p(findings: Sequence[Finding]) -> list[float]:
    """The p-values of README's claims after Holm's correction.

    Raises:
        InputError: more claims than README has room for.
    """
    if len(findings) > MOST_CLAIMS:
        raise InputError(
            f"experiments/ makes {len(findings)} claims; README has at most {MOST_CLAIMS}: take some out of"
            " `claims`"
        )
    return holm([finding.p for finding in findings])
