"""What a job shows when it is done: a table of means, paths, and a grid of videos side by side."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from motionexp.data.base import Reference
from motionexp.jobs.cell import Cell
from motionexp.jobs.scoring import Wanted
from motionexp.results import Row
from motionexp.videos import side_by_side, write_mp4

# Values that the summary shows, each with its heading and what is subtracted from it.
SHOWN = {
    "text_alignment": ("text", ""),
    "frame_consistency_consecutive": ("consistency", ""),
    "pick_score": ("pick", ""),
    "velocity_similarity": ("motion", ""),
    "flow_similarity": ("flow", ""),
    "attribute_accuracy": ("attributes", ""),
    "replaced_attributes": ("replaced looks", ""),
    "nuisance_similarity": ("leakage: ground", "nuisance_chance"),
    "appearance_leakage": ("leakage: CLIP", ""),
}
LONGEST_CAPTION = 60
MOST_PATHS = 8


def print_summary(
    console: Console, rows: Sequence[Row], folders: Sequence[Path], grids: Sequence[Path]
) -> None:
    """Print means over references and seeds, one line an edit, and where everything lies."""
    metrics = [name for name in SHOWN if any(row.metric == name for row in rows)]
    references = {row.reference for row in rows}
    alone = len(references) == 1
    table = Table()
    for heading in ("edit", *(["caption"] if alone else []), *(SHOWN[name][0] for name in metrics), "n"):
        table.add_column(heading, justify="left" if heading in ("edit", "caption") else "right")
    for (kind, caption), own in _by_edit(rows, alone).items():
        samples = {(row.reference, row.edit_caption, row.seed) for row in own}
        captions = [caption] if alone else []
        means = (_mean(own, name) for name in metrics)
        table.add_row(*map(escape, (kind, *captions)), *means, str(len(samples)))
    console.print(_title(rows, references), markup=False, highlight=False)
    console.print(table)
    for label, paths in (("rows and media", folders), ("side by side", grids)):
        for path in paths[:MOST_PATHS]:
            console.print(f"{label}: {path}", soft_wrap=True, highlight=False, markup=False)
        if len(paths) > MOST_PATHS:
            console.print(f"{label}: and {len(paths) - MOST_PATHS} more beside it")


def _title(rows: Sequence[Row], references: set[str]) -> str:
    if not rows:
        return "no rows"
    first = rows[0]
    about = f"{first.model}, {first.method}, τ = {first.tau:g}, {first.precision}"
    on = f"adapter on in {first.adapter_steps} of {first.steps} steps"
    return f"{about}, {on}, {len(references)} reference{'s' if len(references) > 1 else ''}"


def _by_edit(rows: Sequence[Row], alone: bool) -> dict[tuple[str, str], list[Row]]:
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        caption = row.edit_caption if alone else ""
        short = caption if len(caption) <= LONGEST_CAPTION else caption[: LONGEST_CAPTION - 1] + "…"
        grouped[row.edit_kind, short].append(row)
    return grouped


def _mean(rows: Sequence[Row], metric: str) -> str:
    minus = {row.sample_id: row.value for row in rows if row.metric == SHOWN[metric][1]}
    values = [row.value - minus.get(row.sample_id, 0.0) for row in rows if row.metric == metric]
    values = [value for value in values if not math.isnan(value)]
    return f"{np.mean(values) + 0.0:.2f}" if values else "–"


def write_grid(
    path: Path,
    reference: Reference,
    wanted: Sequence[Wanted],
    columns: Sequence[tuple[str, Cell, Sequence[str]]],
) -> bool:
    """Write a video of the reference and the columns' samples side by side, a row for each edit.

    Args:
        path: of the mp4.
        reference: fills the first column.
        wanted: one sample of each edit.
        columns: label, cell and the ids of its samples for `wanted`; a column that lacks one is left out.

    Returns:
        Whether anything was written: some column must be whole.
    """
    whole = [
        (label, [cell.read_sample(each.edit, each.index, sample_id)[0] for each, sample_id in pairs])
        for label, cell, ids in columns
        for pairs in [list(zip(wanted, ids, strict=True))]
        if all(cell.has_sample(each.edit, each.index, sample_id) for each, sample_id in pairs)
    ]
    if not whole:
        return False
    rows = [
        (each.edit.caption, [reference.frames, *(videos[number] for _, videos in whole)])
        for number, each in enumerate(wanted)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, side_by_side(rows, ["reference", *(label for label, _ in whole)]), reference.fps)
    return True
