"""README's table of the two claims: each cell, with its sign and its bold, is that of its model's table."""

from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {"tiny_latte": "tau", "tiny_cogvideox": "tau_tiny_cogvideox", "tiny_unet3d": "tau_tiny_unet3d"}
MOTION, GROUND = "motion ↑", "leakage: ground ↓"
LESS = {
    "the base model: motion ↑": ("base model", MOTION),
    "best nameable caption: motion ↑": ("best nameable caption", MOTION),
    "all timesteps, same steps: motion ↑": ("all timesteps", MOTION),
    "all timesteps, same steps: ground ↓": ("all timesteps", GROUND),
    "all timesteps, same exposure: motion ↑": ("same exposure", MOTION),
    "all timesteps, same exposure: ground ↓": ("same exposure", GROUND),
}
AT_EQUAL_LEAKAGE = {
    "all timesteps, same steps: motion, where 0.2 of the ground may leak ↑": 1,
    "all timesteps, same exposure: the same ↑": 2,
}
MINUS = "\N{MINUS SIGN}"


def lines_below(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below what begins with the heading, its own heading first."""
    found = []
    for line in text[text.index(heading) :].splitlines():
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
        elif found:
            break
    return [found[0], *found[2:]]


def negative(cell: str) -> str:
    """A printed mean and its interval, subtracted the other way round."""
    bold = "**" * cell.startswith("**")
    mean, low, high = (
        _negated(each) for each in cell.split(" (")[0].strip("*[] ").replace(",", " [").split(" [")
    )
    return f"{bold}{mean} [{high}, {low}]{bold}"


def _negated(number: str) -> str:
    number = number.strip()
    if float(number.replace(MINUS, "-")) == 0:
        return number
    return number.removeprefix(MINUS) if number.startswith(MINUS) else MINUS + number


def without_missing(cell: str) -> str:
    return cell.split(" (")[0] + "**" * (cell.startswith("**") and " (" in cell)


@pytest.fixture(scope="module")
def readme() -> dict[str, Sequence[str]]:
    heading, *lines = lines_below((ROOT / "README.md").read_text(encoding="utf-8"), "| the window, less")
    assert [each.split("`")[1] for each in heading[1:]] == list(TABLES)
    return {label: cells for label, *cells in lines}


@pytest.mark.parametrize("number", range(3), ids=list(TABLES))
def test_each_difference_is_its_table_s(number, readme):
    text = (ROOT / f"results/shapes/{list(TABLES.values())[number]}.md").read_text(encoding="utf-8")
    heading, *lines = lines_below(text, "### natural: each less")
    rows = {cells[1]: cells for cells in lines if cells[1] != "window"}
    for label, (row, column) in LESS.items():
        assert readme[label][number] == negative(rows[row][heading.index(column)]), label


@pytest.mark.parametrize(("number", "tau"), enumerate((700, 400, 600)), ids=list(TABLES))
def test_motion_at_equal_leakage_is_its_table_s(number, tau, readme):
    text = (ROOT / f"results/shapes/{list(TABLES.values())[number]}.md").read_text(encoding="utf-8")
    heading, *lines = lines_below(text, "### natural; leakage: ground")
    (row,) = [cells for cells in lines if cells[:2] == [str(tau), "window"]]
    for label, after in AT_EQUAL_LEAKAGE.items():
        said = readme[label][number].replace(" (no interval)", "")
        assert said == without_missing(row[heading.index("motion at leakage 0.2") + after]), label


def test_no_line_of_the_table_is_left_unchecked(readme):
    assert {*readme} == {"references; seeds", *LESS, *AT_EQUAL_LEAKAGE}
