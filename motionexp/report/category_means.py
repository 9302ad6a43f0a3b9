"""Scores averaged as the TGVE benchmark does: `python -m motionexp.report.category_means [OUTPUTS]`.

The benchmark's order: over frames, then one value a video and edit, then one flat mean over all of these, in
which every video and edit weighs the same. The means of each kind of edit stand beside; they are ours.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from motionexp.config import InputError
from motionexp.results import Row, of_newest_version, read_rows


@dataclass(frozen=True)
class Means:
    """Of one metric under one setting.

    Attributes:
        flat: over all pairs of a reference and an edit.
        kinds: {kind of edit: over its pairs}.
        pairs: how many have a value; those on which the metric abstained do not.
    """

    flat: float
    kinds: dict[str, float]
    pairs: int


def flat_means(rows: Iterable[Row]) -> dict[str, Means]:
    """Return {metric: means} of one setting's rows; seeds of one reference and edit are averaged first."""
    values: dict[str, dict[tuple[str, str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not math.isnan(row.value):
            values[row.metric][row.reference, row.edit_kind, row.edit_caption].append(row.value)
    means = {}
    for metric, pairs in values.items():
        each = {key: float(np.mean(seeds)) for key, seeds in pairs.items()}
        kinds: dict[str, list[float]] = defaultdict(list)
        for (_, kind, _), value in each.items():
            kinds[kind].append(value)
        by_kind = {kind: float(np.mean(found)) for kind, found in kinds.items()}
        means[metric] = Means(float(np.mean(list(each.values()))), by_kind, len(each))
    return means


def settings_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """{what a reader calls a setting: its rows}; anchors are a setting each, probes are left out."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.tau_start:
            continue
        tuned = f"τ = {row.tau:g}, {row.train_steps} steps, scale {row.adapter_scale:g}"
        words = f"anchor: {row.anchor}" if row.anchor else f"{row.method}, {tuned}"
        found[f"{row.suite}, {row.model}, {words}"].append(row)
    return found


def main(arguments: Sequence[str]) -> int:
    """Print a table for each setting below OUTPUTS (default: outputs); returns the exit code."""
    try:
        rows = of_newest_version(read_rows(Path(*arguments[:1]) if arguments else Path("outputs")))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, own in settings_of(rows).items():
        means = flat_means(own)
        kinds = list(dict.fromkeys(kind for each in means.values() for kind in each.kinds))
        table = Table("metric", "flat mean", *kinds, "videos and edits", title=name, title_justify="left")
        for metric, each in means.items():
            cells = [f"{each.kinds[kind]:.3f}" if kind in each.kinds else "–" for kind in kinds]
            table.add_row(metric, f"{each.flat:.3f}", *cells, str(each.pairs))
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
