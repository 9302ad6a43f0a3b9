import re
from pathlib import Path

import pytest

from motionexp.config.metrics import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "scores.md").read_text(encoding="utf-8")
BETTER = {True: "higher", False: "lower", None: ""}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The lines of the table of scores, and of that of further values."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *lines = map(cells_of, block.splitlines())
        if "rows" in head:
            found.append([dict(zip(head, cells, strict=True)) for cells in lines])
    scores, values = found
    return scores, values


SCORES, VALUES = tables()
BY_VALUE = [(name, line) for line in SCORES + VALUES for name in re.findall(r"`(\w+)`", line["rows"])]


def test_the_page_has_every_value_of_every_metric_once():
    assert sorted(name for name, _ in BY_VALUE) == sorted(
        value for spec in METRICS.values() for value in spec.values
    )


@pytest.mark.parametrize("spec", METRICS.values(), ids=lambda spec: spec.name)
def test_its_names_directions_and_headings_are_those_of_the_code(spec):
    lines = dict(BY_VALUE)
    for value, is_better in spec.values.items():
        line = lines[value]
        assert line["`metrics=`"] == f"`{spec.name}`"
        keys = [f"`{key}`" for key, column in spec.columns.items() if column["metric"] == value]
        assert line["`columns:`"] == ", ".join(keys)
        assert line["better"] == BETTER[is_better]
    for column in spec.columns.values():
        line, label = lines[column["metric"]], column["label"].strip(" ↑↓")
        assert label in line.get("score", line["rows"])
    for value, heading in spec.summary.items():
        assert heading in lines[value].get("score", heading)
