"""Published rows of probes: they are read here, and tables and figures of them are written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from motionexp.errors import InputError
from motionexp.files import file_name, write_whole
from motionexp.probes.analysis.probe_analysis import Analysis
from motionexp.results.figures.style import SETTINGS, save
from motionexp.results.layout_file import read_layout
from motionexp.results.published import is_published, print_files, read_published, root_of
from motionexp.results.rows import Row
from motionexp.results.versions import check_comparable

EXPERIMENTS = "experiments/probe-*.yaml"
SWEEP = Path("experiments/tau_selection.yaml")
"""The sweep over tau on the tuning split, to compare boundaries with."""

Captioned = tuple[str, Figure, str]
"""A file name without suffix, its figure, and its caption."""


def read_analysis(arguments: Sequence[str]) -> tuple[Path, Analysis] | None:
    """Read the folder of the published rows and their analysis; None if none is published yet.

    Args:
        arguments: layouts of experiments. By default all of `EXPERIMENTS` whose rows are published, and
            `SWEEP`.

    Raises:
        InputError: no such layouts or rows, or rows that do not belong together.
    """
    paths = [Path(name) for name in arguments] or sorted(Path().glob(EXPERIMENTS))
    layouts = {path: layout for path in paths if (layout := read_layout(path)).rows}
    if not arguments and layouts:
        layouts = {path: layout for path, layout in layouts.items() if is_published(path, layout)}
        if not layouts:
            return None
        if SWEEP.exists() and is_published(SWEEP, sweep := read_layout(SWEEP)):
            layouts[SWEEP] = sweep
    # Tables and figures are written beside the rows, so these must lie in one folder.
    files = [root_of(path) / layout.rows for path, layout in layouts.items()]
    folders = {file.parent for file in files}
    if len(folders) != 1:
        raise InputError(
            f"{' '.join(map(str, paths)) or EXPERIMENTS}: rows in {len(folders)} folders; name experiments"
            " whose rows are published in one"
        )
    rows = [row for file in files for row in read_published(file)]
    check_comparable(rows, {kind for layout in layouts.values() for kind in layout.allow_mixed})
    return folders.pop(), Analysis.of_rows(rows)


def write_analysis(arguments: Sequence[str], write: Callable[[Path, Analysis], Iterable[Path]]) -> int:
    """Run a command that writes files from `read_analysis(arguments)`; returns the exit code.

    Args:
        arguments: layouts of experiments.
        write: makes files in the folder of the rows.
    """

    def paths() -> Iterator[Path]:
        if published := read_analysis(arguments):
            yield from write(*published)

    return print_files(paths())


def write_published(
    arguments: Sequence[str], experiment: Path, write: Callable[[Path, list[Row]], Iterable[Path]]
) -> int:
    """Run a command that writes files from the published rows of an experiment; returns the exit code.

    Args:
        arguments: layouts, which have to be published; by default `experiment`, if it is published.
        experiment: a layout.
        write: makes files from rows; its first argument is the file of the rows without suffix.
    """

    def paths() -> Iterator[Path]:
        for path in [Path(name) for name in arguments] or [experiment]:
            layout = read_layout(path)
            if arguments or is_published(path, layout):
                file = root_of(path) / layout.rows
                rows = read_published(file)
                check_comparable(rows, layout.allow_mixed)
                yield from write(file.with_suffix(""), rows)

    return print_files(paths())


def write_captioned(folder: Path, heading: str, figures: Iterable[Captioned], more: str = "") -> list[Path]:
    """Write figures into a folder, and a README.md with their captions and, below, `more`.

    Returns:
        All files; without figures none, and no folder is made.
    """
    paths: list[Path] = []
    text = [heading]
    with matplotlib.rc_context(SETTINGS):
        for name, figure, caption in figures:
            folder.mkdir(parents=True, exist_ok=True)
            stem = file_name(name)
            paths += save(figure, folder / stem)
            text.append(f"![{name}]({stem}.png)\n\n**{name}.** {caption}")
    if not paths:
        return []
    readme = folder / "README.md"
    write_whole(readme, ("\n\n".join([*text, *filter(None, [more])]) + "\n").encode())
    return [*paths, readme]
