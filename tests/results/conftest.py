"""Layouts of `tests.support.made_rows` as files, in the folder of an experiment."""

from pathlib import Path

import pytest

from motionexp.results.layout import Layout
from motionexp.results.layout_file import read_layout
from tests.support.made_rows import SUPPORT, TOY_LAYOUT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the toy experiment, experiments/toy.yaml."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "toy.yaml").write_text(TOY_LAYOUT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def toy() -> Layout:
    """The toy experiment: three windows, with a table at equal leakage."""
    return read_layout(SUPPORT / "toy.yaml")


@pytest.fixture
def ranks() -> Layout:
    """The experiment of ranks: four settings, rank 4 the default row."""
    return read_layout(SUPPORT / "ranks.yaml")
