"""The committed tables in results/ follow from the published rows, byte for byte; .tex is not committed."""

import re

import pytest

from motionexp.files import ROOT
from motionexp.results.layout_file import read_layout
from motionexp.results.published import read_published
from motionexp.results.tables import write_tables

# As text: to read the layouts takes seconds in each process that collects tests.
LAID_OUT = [
    path
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
    if not re.search(r"^(rows: \"\"|tables: \[\])", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("path", LAID_OUT, ids=lambda path: path.stem)
def test_the_published_tables_are_those_of_the_published_rows(path, tmp_path):
    layout = read_layout(path)
    if not (ROOT / layout.rows).exists():
        pytest.skip(f"{layout.rows} is not published yet")
    written = write_tables(tmp_path, layout, read_published(ROOT / layout.rows))
    assert written
    for file in written:
        if file.suffix != ".tex":
            assert file.read_bytes() == (ROOT / file.relative_to(tmp_path)).read_bytes(), file.name
    stale = [
        ROOT / f"{table.file}.md" for table in layout.tables if tmp_path / f"{table.file}.md" not in written
    ]
    assert not any(path.exists() for path in stale)
