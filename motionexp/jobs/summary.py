"""What a job shows when it is done: a table of means, paths, and a grid of videos side by side."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from motionexp.config.metrics import SET_VALUES, MetricSpec, chosen_metrics
from motionexp.config.scoring import PAIRS
from motionexp.data.base import Reference
from motionexp.data.videos import side_by_side, write_mp4
from motionexp.jobs.scoring import Samples, Wanted
from motionexp.results.rows import SANITY_BASELINES, Row

WIDEST_NUMBER = 6  # -17.88, as bundled scorers give
MOST_PATHS = 8
EXTERNAL = "external"
"""Method of rows whose videos another system made."""


def print_summary(
    console: Console,
    every: Sequence[Row],
    folders: Sequence[Path],
    grids: Sequence[Path],
    pairs: str = "consecutive",
    metrics: Sequence[str] | None = None,
) -> None:
    """Print means over references and seeds, one line an edit and one an anchor, and where everything lies.

    Args:
        console: prints.
        every: the rows.
        folders: of rows and media.
        grids: videos of samples side by side.
        pairs: which of the two frame consistencies is shown.
        metrics: those that the job named; plugins' metrics among them have their headings too.
    """
    rows = [row for row in every if not row.sanity_baseline]
    hidden = {f"frame_consistency_{each}" for each in PAIRS if each != pairs}
    there = {row.metric for row in rows} - hidden
    alone = len({row.reference for row in rows}) == 1
    console.print(_title(rows), markup=False, highlight=False, soft_wrap=True)
    edits = _by_edit(rows, alone)
    if alone:
        for label, (caption, _) in edits.items():
            console.print(f"  {label}: {caption}", markup=False, highlight=False, soft_wrap=True)
    lines = {label: own for label, (_, own) in edits.items()}
    for anchor in dict.fromkeys(row.sanity_baseline for row in every if row.sanity_baseline):
        lines[SANITY_BASELINES[anchor]] = [row for row in every if row.sanity_baseline == anchor]
    specs = {spec.name: spec for spec in [*chosen_metrics(None), *chosen_metrics(metrics)]}.values()
    # Metrics of tracks have a table of their own: beside each stands its level of chance.
    of_tracks = [spec for spec in specs if "tracks" in spec.needs and not spec.of_sets]
    for shown in ([spec for spec in specs if spec not in of_tracks], of_tracks):
        if columns := {name: column for name, column in headings(shown).items() if name in there}:
            console.print(_table(lines, columns))
    print_paths(console, "rows and media", folders)
    print_paths(console, "side by side", grids)


def headings(specs: Sequence[MetricSpec]) -> dict[str, tuple[str, str]]:
    """{value: (its heading, what is subtracted from it)}."""
    return {
        value: (heading, spec.subtracted(value)) for spec in specs for value, heading in spec.summary.items()
    }


def print_paths(console: Console, label: str, paths: Sequence[Path]) -> None:
    """Print a line for each of the first few paths, and how many more there are."""
    for path in paths[:MOST_PATHS]:
        console.print(f"{label}: {path}", markup=False, highlight=False, soft_wrap=True)
    if len(paths) > MOST_PATHS:
        console.print(f"{label}: and {len(paths) - MOST_PATHS} more beside it")


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "no rows"
    first, count = rows[0], len({row.reference for row in rows})
    if first.method == EXTERNAL:
        return f"{first.model}, {count} reference{'s' if count > 1 else ''}"
    about = f"{first.model}, {first.method}, τ = {first.tau:g}, {first.precision}"
    on = f"adapter on in {first.adapter_steps} of {first.steps} steps"
    return f"{about}, {on}, {count} reference{'s' if count > 1 else ''}"


def _table(lines: Mapping[str, Sequence[Row]], shown: Mapping[str, tuple[str, str]]) -> Table:
    """Means of each line's rows, by what is shown: {metric: (heading, what is subtracted)}."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("edit")
    for heading, _ in shown.values():
        table.add_column(heading, justify="right", max_width=max(WIDEST_NUMBER, *map(len, heading.split())))
    table.add_column("n", justify="right")
    for label, own in lines.items():
        means = (_mean(own, name, minus) for name, (_, minus) in shown.items())
        videos = {row.sample_id for row in own if row.metric not in SET_VALUES}
        table.add_row(escape(label), *means, str(len(videos)))
    return table


def _by_edit(rows: Sequence[Row], alone: bool) -> dict[str, tuple[str, list[Row]]]:
    """{label: (caption, rows)}: each edit of one reference by itself, of several together by kind."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.edit_kind, row.edit_caption if alone else ""].append(row)
    kinds = Counter(kind for kind, _ in grouped)
    seen: Counter[str] = Counter()
    labelled = {}
    for (kind, caption), own in grouped.items():
        seen[kind] += 1
        labelled[f"{kind} {seen[kind]}" if kinds[kind] > 1 else kind] = (caption, own)
    return labelled


def _mean(rows: Sequence[Row], metric: str, minus: str) -> str:
    less = {row.sample_id: row.value for row in rows if row.metric == minus}
    values = [row.value - less.get(row.sample_id, 0.0) for row in rows if row.metric == metric]
    values = [value for value in values if not math.isnan(value)]
    return f"{np.mean(values) + 0.0:.2f}" if values else "–"


def write_grid(
    path: Path, reference: Reference, columns: Sequence[tuple[str, Samples, Sequence[Wanted]]]
) -> bool:
    """Write a video of the reference and the columns' samples side by side, a row for each edit.

    Args:
        path: of the mp4.
        reference: fills the first column.
        columns: label, samples of a cell, and which of them: one of each edit of the reference, in order. A
            column that lacks one is left out.

    Returns:
        Whether anything was written: some column must be whole.
    """
    whole = [
        (label, [samples.read(each)[0] for each in wanted])
        for label, samples, wanted in columns
        if all(samples.cell.has_sample(each.edit, each.index, each.sample_id) for each in wanted)
    ]
    if not whole:
        return False
    rows = [
        (edit.caption, [reference.frames, *(videos[number] for _, videos in whole)])
        for number, edit in enumerate(reference.edits)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, side_by_side(rows, ["reference", *(label for label, _ in whole)]), reference.fps)
    return True
