"""Values of samples by their subjects: means over training seeds, and paired differences."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from motionexp.errors import InputError
from motionexp.results.intervals import Interval, mean_interval
from motionexp.results.rows import Row, Subject

Values = dict[Subject, float]


def by_subject(rows: Iterable[Row]) -> Values:
    """Value of each subject: the mean over its training seeds. Rows must be of one metric and one setting.

    Raises:
        InputError: two different rows of one subject and training seed, so that the selection is not one
            setting; or as `over_training_seeds`.
    """
    values: dict[tuple[Subject, int | None], float] = {}
    for row in rows:
        if (row.subject, row.training_seed) in values:
            raise InputError(
                f"two rows of {row.metric} for {row.reference}, edit {row.edit_kind!r}, seed {row.seed} at "
                f"tau {row.tau:g}: they differ in a setting that the layout does not select by"
            )
        values[row.subject, row.training_seed] = row.value
    return over_training_seeds(values)


def over_training_seeds(values: Mapping[tuple[Subject, int | None], float]) -> Values:
    """Means over the training seeds of each subject, NaN left out, of {(subject, training seed): value}.

    The training seeds of a reference are nested in it: with references as the units of the bootstrap, the
    interval of the means contains the spread over training seeds too.

    Raises:
        InputError: a subject lacks a training seed, so that the means would be of unequal spread.
    """
    by_seed: dict[Subject, dict[int | None, float]] = defaultdict(dict)
    for (subject, seed), value in values.items():
        by_seed[subject][seed] = value
    every = {seed for _, seed in values}
    for subject, of_seeds in by_seed.items():
        if missing := sorted(str(seed) for seed in every - of_seeds.keys()):
            raise InputError(
                f"training_seed: {subject[0]} has no rows of {', '.join(missing)}, which another reference"
                " has; run the sweep to its end, or select training seeds that all references have"
            )
    return {subject: _mean(of_seeds.values()) for subject, of_seeds in by_seed.items()}


def _mean(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def paired_difference(ours: Values, theirs: Values) -> Interval:
    """Mean of ours - theirs over the subjects in both, with its bootstrap interval over references."""
    shared = sorted(set(ours) & set(theirs), key=str)
    return mean_interval([ours[key] - theirs[key] for key in shared], [key[0] for key in shared])


def reasons_in(rows: Iterable[Row]) -> dict[str, int]:
    """As `reasons_by_group`, of one group: {reason: rows}."""
    return {reason: counts.total() for reason, counts in reasons_by_group({"": rows}).items()}


def reasons_by_group(groups: Mapping[str, Iterable[Row]]) -> dict[str, Counter[str]]:
    """Why rows of some groups have no value; reasons that differ in a percentage count as one.

    Returns:
        {reason: {group: how many of its rows}}, without groups of which no row has the reason.
    """
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    shown: dict[str, str] = {}
    for group, rows in groups.items():
        for row in rows:
            if math.isnan(row.value):
                kind = re.sub(r"\d+%", "%", row.reason)
                reasons[kind][group] += 1
                shown.setdefault(kind, row.reason or "no reason is stored")
    return {shown[kind]: counts for kind, counts in reasons.items()}
