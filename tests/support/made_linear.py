"""Rows of a linear probe with known accuracies."""

from itertools import product

import numpy as np

from motionexp.probes.analysis.linear_rows import (
    ACCURACY,
    BLOCKS,
    METRICS,
    OBSERVER,
    TIMESTEPS,
    X_T,
    X_T_CLEAN,
)
from motionexp.results.rows import Row
from tests.support.made_probes import COMMON, schedule_rows

GROUPS = 6
ENDS = {"motion": 900.0, "colour": 500.0, "surface": 400.0, "shape": 650.0, "background": 700.0}
"""The t at which each accuracy falls to chance; below half of it the accuracy is 1."""
BLOCK_NAMES = dict(zip(BLOCKS, ("blocks.0", "blocks.4", "blocks.7"), strict=True))
COUNTS = {"train": "480", "test": "60", "pairs": "60", "draws": "1"}
LATER = {OBSERVER: 80.0, X_T_CLEAN: 0.0, X_T: -150.0, **dict.fromkeys(BLOCKS, -50.0)}


def share(features: str, target: str, t: int, group: int) -> float:
    """Falls along a line from 1 to 0.5; groups lie up to 0.05 about it."""
    end = ENDS[target] + LATER[features]
    level = float(np.clip(1.5 - t / end, 0.5, 1))
    return level + 0.05 * (2 * group / (GROUPS - 1) - 1) * (features != OBSERVER)


def linear_rows(models=("tiny_latte",), contrasts=("motion-dominant",)) -> list[Row]:
    rows = []
    for model in models:
        common = {**COMMON, "model": model, "weights_hash": model, "tau": 1000.0, "steps": 0}
        rows += schedule_rows(common)
        path = {"path": f"bundled:{model}", "revision": None}
        common |= {"method": "linear_probe", "settings": {"model": path, "blocks": BLOCK_NAMES}}
        for contrast, metric, t, group in product(contrasts, METRICS, TIMESTEPS, range(GROUPS)):
            kind, features, target = METRICS[metric]
            if (features, kind) != (OBSERVER, ACCURACY):
                value = share(features, target, t, group)
                reference = f"{'pairs' if features == OBSERVER else 'test'} {group}"
                strata = {"contrast": contrast, "t": str(t), **COUNTS}
                rows.append(Row(**common, metric=metric, value=value, reference=reference, strata=strata))
    return rows
