"""From outputs/ into the repository: the rows from which every table is built again, and pictures.

`python -m motionexp.results.publish experiments/NAME.yaml [outputs/] [--dirty] [--keep]` takes the rows that
the layout selects from the runs' folders and writes them where the layout says, below `results/`; pictures
that it names, beside them. No other command copies from there into `results/`. Rows of a working tree with
uncommitted changes are refused without `--dirty`; with it, a note in the tables says so. With `--keep`,
models of which there is no run keep their published rows: an experiment can be published model by model.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.comparisons import Comparison
from motionexp.results.designs import DESIGNS, read_designs, record_design
from motionexp.results.layout import named_references, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.published import read_published, root_of, write_published
from motionexp.results.tables import build
from motionexp.results.versions import dirty_note

DIRTY, KEEP = "--dirty", "--keep"


def publish(layout_path: Path, outputs: Path, *, dirty: bool = False, keep: bool = False) -> tuple[Path, int]:
    """Writes the rows of `outputs` that a layout selects to the file it names; returns both file and count.

    Args:
        layout_path: of the experiment's file.
        outputs: the runs' folder.
        dirty: whether rows of a working tree with uncommitted changes may be published.
        keep: whether models of which `outputs` has no rows keep those that were published.

    Raises:
        InputError: nothing to publish, rows of a working tree with uncommitted changes or of two versions,
            references that the layout names and no run has, or rows from which its tables cannot be built.
            What was published before then remains.
    """
    layout = read_layout(layout_path)
    # 1. The rows, with those of every reference that the layout names of a model.
    if not layout.rows:
        raise InputError(f"{layout_path}: its rows are not published: `rows` names no file")
    if not layout.rows.endswith(".parquet"):
        raise InputError(
            f"{layout_path}: rows: {layout.rows} must end in .parquet, the form of published rows"
        )
    rows = selected_rows(layout, outputs)
    if not rows:
        raise InputError(f"no rows in {outputs} match {dict(layout.select)}; run the layout's sweep first")
    path = root_of(layout_path) / layout.rows
    if keep and path.exists():
        models = {row.model for row in rows}
        rows += [row for row in read_published(path) if row.model not in models]
    if not dirty and (notes := dirty_note(rows)):
        raise InputError(
            f"{outputs}: {notes[0].rstrip('.')}: no commit has their code. Commit and run them again, or"
            " publish with --dirty; the tables then say so"
        )
    for model in sorted({row.model for row in rows if row.reference_hash}):
        references = {row.reference for row in rows if row.model == model and row.reference_hash}
        if missing := sorted(named_references(layout, model) - references):
            raise InputError(
                f"{layout_path}: no rows of {model} for {len(missing)} of the references that it names"
                f" ({', '.join(missing)}); run the sweep to its end, or name those that ran"
            )
    # 2. What cannot be read or built raises before the published rows are replaced.
    read_designs(root_of(layout_path) / DESIGNS)
    comparison = Comparison(layout, rows)
    for table in layout.tables:
        build(comparison, table)
    write_published(path, rows)
    record_design(layout_path, layout)
    return path, len(rows)


def publish_pictures(layout_path: Path, outputs: Path) -> list[Path]:
    """Copies the pictures that a layout names, and says on stderr which are not there; returns the copies."""
    layout = read_layout(layout_path)
    folder = (root_of(layout_path) / layout.rows).with_suffix("")
    copies = []
    for picture in (outputs / name for name in layout.pictures):
        if not picture.is_file():
            # Pictures illustrate; rows are published without them.
            print(f"{picture}: no such picture; left out", file=sys.stderr)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        copies.append(folder / picture.name)
        write_whole(copies[-1], picture.read_bytes())
    return copies


def main(arguments: Sequence[str]) -> int:
    """`python -m motionexp.results.publish` with its arguments; returns the exit code."""
    words = [word for word in arguments if word not in (DIRTY, KEEP)]
    if len(words) not in (1, 2) or words[0].startswith("-"):
        usage = f"python -m motionexp.results.publish experiments/NAME.yaml [outputs/] [{DIRTY}] [{KEEP}]"
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    try:
        layout, outputs = Path(words[0]), Path(words[1] if len(words) == 2 else "outputs")
        path, count = publish(layout, outputs, dirty=DIRTY in arguments, keep=KEEP in arguments)
        print(f"{count} rows published in {path}")
        for picture in publish_pictures(layout, outputs):
            print(f"picture published in {picture}")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
