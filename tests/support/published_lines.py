"""Published rows in the form of the first release, JSON lines, which stay readable."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from motionexp.results.published import SHARED
from motionexp.results.rows import SAMPLE_FIELDS, Row, as_json, dump_line


def to_published(rows: Iterable[Row]) -> str:
    """JSON lines: each metric, run and edit once, then each sample with its values by the metric's number.

    Values have six significant digits; NaN is written `[null, reason]`. Score ids are left out, because they
    follow from the other fields. The order is fixed: the same rows give the same bytes.
    """
    # 1. The parts that rows share, as text, and their numbers.
    plain_rows = [as_json(row) for row in rows]
    parts = [{kind: _part(plain, names) for kind, names in SHARED.items()} for plain in plain_rows]
    numbers = {
        kind: {text: number for number, text in enumerate(sorted({part[kind] for part in parts}))}
        for kind in SHARED
    }
    # 2. The values of each sample by metric.
    values: dict[tuple[int, int, str], dict[int, Any]] = {}
    for plain, part in zip(plain_rows, parts, strict=True):
        metric, run, edit = (numbers[kind][part[kind]] for kind in SHARED)
        value, reason = plain["value"], plain["reason"]
        if value is not None:
            value = float(f"{value:.6g}")  # shorter than the 17 digits of a float, and enough for every table
        scores = values.setdefault((run, edit, _part(plain, SAMPLE_FIELDS)), {})
        scores[metric] = [value, reason] if reason or value is None else value
    lines = [dump_line({kind: json.loads(text)}) for kind in SHARED for text in numbers[kind]]
    for (run, edit, sample), scores in sorted(values.items()):
        ordered = {str(metric): scores[metric] for metric in sorted(scores)}
        lines.append(dump_line({"sample": json.loads(sample), "run": run, "edit": edit, "values": ordered}))
    return "".join(lines)


def _part(plain: dict[str, Any], names: Sequence[str]) -> str:
    return dump_line({name: plain[name] for name in names if plain[name] not in ("", {}, None)})
