"""The run of a whole sweep in Weights & Biases: its tables, its figure and its failures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from motionexp.jobs.failures import Failure
from motionexp.jobs.wandb_run import begin
from motionexp.results.figures.style import DPI
from motionexp.results.figures.sweep_figures import draw_sweep
from motionexp.results.formats import Table

MEANS = ("block", *("setting", "score"), *("mean", "low", "high", "n", "references"))
FAILURES = ("cell", "reference", "error", "log")


def log_sweep(output: Path, sweep: str, tables: Sequence[Table], failures: Sequence[Failure]) -> None:
    """Write the run of a sweep, in the group of its cells.

    Args:
        output: the folder of results.
        sweep: the sweep's id, which is the run's id and its group.
        tables: of the sweep, the main one first.
        failures: of its cells.
    """
    title = tables[0].title if tables else sweep
    run = begin(output, sweep, name=f"sweep: {title}", group=sweep, kind="sweep", config={"sweep": sweep})
    logged: dict[str, Any] = {
        "means": _means(tables),
        "failures": wandb.Table(
            columns=list(FAILURES),
            data=[[failure.cell, failure.reference, failure.error, failure.log] for failure in failures],
        ),
    }
    for number, table in enumerate(tables):
        data = [[block.title, *table.texts(line)] for block in table.blocks for line in block.lines]
        name = "table" if number == 0 else "further scores" if number == 1 else f"table {number + 1}"
        logged[name] = wandb.Table(columns=["block", *table.header], data=data)
    if tables and (figure := draw_sweep(tables[0])) is not None:
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI)
        logged["figure"] = wandb.Image(Image.open(content), caption=title)
    run.log(logged)
    run.summary["failed"] = len(failures)
    run.finish()


def _means(tables: Sequence[Table]) -> Any:
    """Every mean with its interval, a line each: what a chart needs."""
    data = []
    for table in tables:
        for block in table.blocks:
            for line in block.lines:
                setting = ", ".join(filter(None, line.labels))
                intervals = [None if cell is None else cell.interval for cell in line.cells]
                data += [
                    [block.title, setting, name, *map(_number, (mean.mean, mean.low, mean.high)),
                     mean.n, mean.clusters]
                    for name, mean in zip(table.columns, intervals, strict=True)
                    if mean is not None and mean.n
                ]  # fmt: skip
    return wandb.Table(columns=list(MEANS), data=data, allow_mixed_types=True)


def _number(value: float) -> float | None:
    return None if value != value else float(value)
