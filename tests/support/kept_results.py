"""What a job left, in a form that compares."""

import hashlib
from pathlib import Path

from motionexp.config.schema import JobConfig
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
