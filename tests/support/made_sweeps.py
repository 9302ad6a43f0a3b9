"""Folders of sweeps as a launcher and its workers leave them."""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def at(seconds_ago: float) -> str:
    """A time so many seconds ago, as files have it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def planned(
    number: int, task: int, seconds: float | None = 10.0, *, is_base: bool = False, **settings: str
) -> dict[str, Any]:
    """A cell of a plan; its folder is `cell-NUMBER`."""
    return {
        "cell": f"shapes/tiny_latte/cell-{number}",
        "model": "tiny_latte",
        "reference": f"reference-{number}",
        "training_seed": 0,
        "base_model": is_base,
        "settings": {"tau": "1000" if is_base else "700", **settings},
        "task": task,
        "seconds": seconds,
    }


def write_plan(
    output: Path, cells: list[dict[str, Any]], /, name: str = "0a1b2c3d4e5f", **changes: Any
) -> Path:
    """Write the plan of a sweep; returns its path."""
    tasks = sorted({cell["task"] for cell in cells})
    plan = {
        "version": 1,
        "command": ["-m", "model=tiny_latte", "tau=0,700"],
        "launcher": "joblib",
        "written": at(3600),
        "tasks": [{"number": task, "commands": [["-m", "tau=700"]], "seconds": None} for task in tasks],
        "cells": cells,
    }
    path = output / "sweeps" / name / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(plan | changes))
    return path


def write_cell(output: Path, number: int, state: str, since: float = 60, **about: Any) -> Path:
    """Write the status of the cell `cell-NUMBER`; returns its folder."""
    folder = output / "shapes" / "tiny_latte" / f"cell-{number}"
    folder.mkdir(parents=True)
    status = {"state": state, "reference": f"reference-{number}", "tau": 700.0, "since": at(since)}
    process = {"host": socket.gethostname(), "pid": 4321}
    (folder / "status.json").write_text(json.dumps(status | process | about))
    return folder


def write_progress(cell: Path, seconds: float, written: float = 5, **changes: Any) -> None:
    """Write the progress of a cell that was worked on for so many seconds, `written` seconds ago."""
    progress = {"stage": "fit", "step": 57, "steps": 100, "loss": 0.0213, "time": at(written)}
    (cell / "progress.json").write_text(json.dumps(progress | {"seconds": seconds} | changes))
