"""What the tables and figures of single reports share: their published rows, and captions beside figures."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.probes.analysis.figures import Captioned
from motionexp.results.figures.style import SETTINGS, save
from motionexp.results.layout_file import read_layout
from motionexp.results.published import is_published, read_published
from motionexp.results.rows import Row, check_comparable


def write_published(
    arguments: Sequence[str], experiment: Path, write: Callable[[Path, list[Row]], list[Path]]
) -> int:
    """A command that makes files of an experiment's published rows and prints their names.

    Args:
        arguments: layouts, which have to be published; by default `experiment`, which may not be yet.
        experiment: a layout.
        write: makes files of rows. Their place is the rows' own, without its suffix.

    Returns:
        The exit code.
    """
    try:
        for path in [Path(each) for each in arguments] or [experiment]:
            layout = read_layout(path)
            if not arguments and not is_published(path, layout):
                continue
            file = path.resolve().parent.parent / layout.rows
            rows = read_published(file)
            check_comparable(rows, layout.allow_mixed)
            for written in write(file.with_suffix(""), rows):
                print(os.path.relpath(written))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def write_captioned(folder: Path, heading: str, figures: Iterable[Captioned], more: str = "") -> list[Path]:
    """Write figures into a folder, and a README.md with their captions and, below, `more`; returns all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    text = [heading]
    with matplotlib.rc_context(SETTINGS):
        for name, figure, caption in figures:
            paths += save(figure, folder / name)
            text.append(f"![{name}]({name}.png)\n\n**{name}.** {caption}")
    readme = folder / "README.md"
    write_whole(readme, ("\n\n".join([*text, *filter(None, [more])]) + "\n").encode())
    return [*paths, readme]
