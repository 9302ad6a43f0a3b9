"""What rows of the linear probe say: how often each attribute is read right at each timestep."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from motionexp.data.shapes import grammar
from motionexp.errors import InputError
from motionexp.probes.analysis.rows import Key, draw, means
from motionexp.probes.linear_probe import OBSERVER, TARGETS, TIMESTEPS, X_T, X_T_CLEAN
from motionexp.results.intervals import Replicates
from motionexp.results.rows import Row, key_order

TWO_ALTERNATIVE, ACCURACY = "two_alternative_accuracy", "accuracy"
BLOCKS = ("early block", "middle block", "late block")
FEATURES = (OBSERVER, X_T_CLEAN, X_T, *BLOCKS)
LOOKS = tuple(grammar.ATTRIBUTES)


def metric_of(kind: str, features: str, target: str) -> str:
    """The metric of a row: `TWO_ALTERNATIVE` or `ACCURACY` of one target, read from one kind of features.

    All that is read of one group of videos at one timestep so shares everything but the metric, and is
    published in one line: tens of thousands of numbers in two megabytes.
    """
    return f"{kind}: {target} from {features}"


METRICS = {
    metric_of(kind, features, target): (kind, features, target)
    for kind in (TWO_ALTERNATIVE, ACCURACY)
    for features in FEATURES
    for target in TARGETS
}

Curve = tuple[str, str]
"""(features, target)"""


@dataclass(frozen=True, eq=False)
class Reading:
    """All that was read of one model's test videos of one contrast.

    Attributes:
        timesteps: (T,), ascending.
        values: {(features, target): (G, T)}, means of G groups of test videos, or of pairs for the observer.
        counts: {features: how many test videos, or pairs}.
        blocks: {early block, ...: its name in the network}.
    """

    timesteps: np.ndarray
    values: Mapping[Curve, np.ndarray]
    counts: Mapping[str, int]
    blocks: Mapping[str, str]

    @property
    def features(self) -> list[str]:
        """What was read from, in the order in which it is shown."""
        there = {features for features, _ in self.values}
        return [each for each in FEATURES if each in there]

    def draws(self, features: str, target: str) -> Replicates:
        """(1 + RESAMPLES, T) means over the groups, and over draws of them."""
        values = self.values[features, target]
        return means(values, draw(len(values)))

    def looks(self, features: str) -> Replicates:
        """The mean over all attributes of the looks; draws take the same groups for each."""
        return np.mean([self.draws(features, target) for target in LOOKS], axis=0)

    def groups(self, features: str) -> int:
        """Over how many groups intervals are drawn."""
        return len(self.values[features, "motion"])


def read(rows: Iterable[Row], kind: str = TWO_ALTERNATIVE) -> dict[Key, Reading]:
    """{(model, contrast): what was read}, right of two classes or of all.

    Raises:
        InputError: rows of a run that was cut off, or of two runs.
    """
    grouped: dict[Key, list[Row]] = {}
    for row in rows:
        if row.metric in METRICS and METRICS[row.metric][0] == kind:
            grouped.setdefault((row.model, row.stratum("contrast")), []).append(row)
    return {
        key: _reading(key, own) for key, own in sorted(grouped.items(), key=lambda item: key_order(item[0]))
    }


def _reading(key: Key, rows: Iterable[Row]) -> Reading:
    found: dict[Curve, dict[tuple[str, int], float]] = {}
    counts: dict[str, int] = {}
    blocks: Mapping[str, str] = {}
    for row in rows:
        _, features, target = METRICS[row.metric]
        own, place = found.setdefault((features, target), {}), (row.reference, int(row.stratum("t")))
        if place in own:
            raise InputError(
                f"linear probe of {', '.join(key)}: two rows of {target} from {features} at t = {place[1]}:"
                " they are of two runs; select one by train, test, pairs and draws"
            )
        own[place] = row.value
        counts[features] = int(row.stratum("pairs" if features == OBSERVER else "test"))
        blocks = row.settings["blocks"]
    values = {}
    for (features, target), own in found.items():
        groups = sorted({group for group, _ in own})
        if missing := sorted({t for group in groups for t in TIMESTEPS if (group, t) not in own}):
            raise InputError(
                f"linear probe of {', '.join(key)}: no rows of {target} from {features} at t = {missing[0]}:"
                " the run was cut off; the same command goes on"
            )
        values[features, target] = np.array([[own[group, t] for t in TIMESTEPS] for group in groups])
    return Reading(np.array(TIMESTEPS), values, counts, blocks)
