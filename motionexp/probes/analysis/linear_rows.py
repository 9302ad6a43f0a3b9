"""What rows of the linear probe say: how accurately each attribute is read at each timestep. No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from motionexp.data.shapes import grammar
from motionexp.errors import InputError
from motionexp.probes.analysis.rows import Key, bootstrap_weights, means
from motionexp.results.intervals import Replicates
from motionexp.results.rows import Row, key_order

TARGETS: Mapping[str, tuple[str, ...]] = {"motion": grammar.CAPTIONED, **grammar.ATTRIBUTES}
"""{attribute that the probe reads: its classes}"""
APPEARANCE = tuple(grammar.ATTRIBUTES)
# 999 and not 1000: the network of a discrete schedule takes no t above 999.
TIMESTEPS = (*range(0, 1000, 100), 999)
X_T = "x_t"
X_T_CLEAN = "x_t, learnt from x_0"
OBSERVER = "ideal observer"
BLOCKS = ("early block", "middle block", "late block")
FEATURES = (OBSERVER, X_T_CLEAN, X_T, *BLOCKS)
TWO_ALTERNATIVE, ACCURACY = "two_alternative_accuracy", "accuracy"


def metric_of(kind: str, features: str, target: str) -> str:
    """The metric of a row: `TWO_ALTERNATIVE` or `ACCURACY` of one target, read from one kind of features.

    Rows of one group of test videos at one timestep differ only in the metric, so they are published in one
    line: tens of thousands of numbers in two megabytes.
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
class ProbeAccuracy:
    """Accuracies of the linear probe on the test videos of one model and contrast.

    Attributes:
        timesteps: (T,), ascending.
        values: {(features, target): (G, T)}, means of G groups of test videos, or of pairs for the observer.
        counts: {features: number of test videos, or of pairs}.
        blocks: {early block, ...: its name in the network}.
    """

    timesteps: np.ndarray
    values: Mapping[Curve, np.ndarray]
    counts: Mapping[str, int]
    blocks: Mapping[str, str]

    @property
    def features(self) -> list[str]:
        """The kinds of features, in the order of tables and figures."""
        available = {features for features, _ in self.values}
        return [features for features in FEATURES if features in available]

    def draws(self, features: str, target: str) -> Replicates:
        """(1 + RESAMPLES, T) means over the groups."""
        values = self.values[features, target]
        return means(values, bootstrap_weights(len(values)))

    def appearance(self, features: str) -> Replicates:
        """(1 + RESAMPLES, T) mean over the appearance attributes, with the same replicates of groups."""
        return np.mean([self.draws(features, target) for target in APPEARANCE], axis=0)

    def groups(self, features: str) -> int:
        """Number of groups that are resampled."""
        return len(self.values[features, "motion"])


def read_accuracies(rows: Iterable[Row], kind: str = TWO_ALTERNATIVE) -> dict[Key, ProbeAccuracy]:
    """Return {(model, contrast): accuracies} of one kind, `TWO_ALTERNATIVE` or `ACCURACY`.

    Raises:
        InputError: rows of an interrupted run, or of two runs.
    """
    grouped: dict[Key, list[Row]] = {}
    for row in rows:
        if row.metric in METRICS and METRICS[row.metric][0] == kind:
            grouped.setdefault((row.sampled_model, row.stratum("contrast")), []).append(row)
    return {key: _accuracy(key, grouped[key]) for key in sorted(grouped, key=key_order)}


def _accuracy(key: Key, rows: Iterable[Row]) -> ProbeAccuracy:
    # 1. {(features, target): {(group, t): value}}
    curves: dict[Curve, dict[tuple[str, int], float]] = {}
    counts: dict[str, int] = {}
    blocks: Mapping[str, str] = {}
    for row in rows:
        _, features, target = METRICS[row.metric]
        curve, place = curves.setdefault((features, target), {}), (row.reference, int(row.stratum("t")))
        if place in curve:
            raise InputError(
                f"linear probe of {', '.join(key)}: two rows of {target} from {features} at t = {place[1]}:"
                " they are of two runs; select one by train, test, pairs and draws"
            )
        curve[place] = row.value
        counts[features] = int(row.stratum("pairs" if features == OBSERVER else "test"))
        blocks = row.settings["blocks"]
    # 2. (G, T) arrays; observers and probes have different groups.
    values = {}
    for (features, target), curve in curves.items():
        groups = sorted({group for group, _ in curve})
        if missing := sorted({t for group in groups for t in TIMESTEPS if (group, t) not in curve}):
            raise InputError(
                f"linear probe of {', '.join(key)}: no rows of {target} from {features} at t = {missing[0]}:"
                " the run was interrupted; the same command continues it"
            )
        values[features, target] = np.array([[curve[group, t] for t in TIMESTEPS] for group in groups])
    return ProbeAccuracy(np.array(TIMESTEPS), values, counts, blocks)
