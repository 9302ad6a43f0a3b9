"""The committed tables in results/ follow from the published rows, byte for byte; .tex is not committed."""

import pytest

from motionexp.files import ROOT
from motionexp.results.layout_file import read_layout
from motionexp.results.published import read_published
from motionexp.results.tables import write_tables

LAID_OUT = {
    path.stem: layout
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
    if (layout := read_layout(path)).rows and layout.tables
}


@pytest.mark.parametrize("layout", LAID_OUT.values(), ids=LAID_OUT)
def test_the_published_tables_are_those_of_the_published_rows(layout, tmp_path):
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
