"""What a job left, in a form that compares."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from motionexp.config.schema import JobConfig, method_name
from motionexp.results.rows import Row, as_json


def cells(cfg: JobConfig) -> list[Path]:
    return sorted(path.parent for path in Path(cfg.output).rglob("status.json"))


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by its name, status and locks left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "status.json" and not path.name.endswith(".lock")
    }


def plain(rows: list[Row]) -> list[dict]:
    """Rows in which NaN equals NaN."""
    return [as_json(row) for row in rows]


def scores(row: Row) -> tuple[str, str]:
    return row.score_id, f"{row.value:.6g}"


def job_row(cfg: JobConfig, **changes: Any) -> Row:
    """One of the rows that a job on the bundled world leaves."""
    base = cfg.tau == 1000
    row = Row(
        metric="text_alignment",
        metric_version=1,
        value=1.0,
        suite="shapes",
        reference="01-wander-cyan-square",
        reference_hash="hash",
        strata={"split": "benchmark", "contrast": "motion-dominant", "motion": "uncaptioned"},
        edit_kind="style",
        seed=0,
        model=cfg.model.name,
        method="base" if base else method_name(cfg.method),
        tau=cfg.tau,
        steps=cfg.steps,
        train_steps=0 if base else cfg.train_steps,
        adapter_scale=cfg.adapter_scale,
        settings=json.loads(json.dumps(asdict(cfg))),
        precision=cfg.precision,
        weights_hash=cfg.model.name,
    )
    return replace(row, **changes)
