"""The figures of tables of tuning (`make figures`).

Drawn from the published rows alone, as .svg, .pdf and .png, where an experiment's file names them;
settings.md beside them holds their captions.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from motionexp.files import write_whole
from motionexp.results.comparisons import Comparison
from motionexp.results.figures.drawing import FigureData, draw_curves, table_of, x_label
from motionexp.results.figures.points import draw_points, draw_rows
from motionexp.results.figures.style import FORMATS, SETTINGS, save
from motionexp.results.layout import FigureLayout, Group, Layout
from motionexp.results.published import print_files, published_layouts, read_published, root_of

CAPTIONS = "settings.md"


def write_figures(
    root: Path, layout: Layout, comparison: Comparison
) -> Iterator[tuple[FigureLayout, list[Path]]]:
    """Writes a layout's figures under `root`; yields each with its files. Removes a figure without rows."""
    with matplotlib.rc_context(SETTINGS):
        for figure in layout.figures:
            data, file = FigureData(comparison, figure), root / figure.file
            if not (panels := data.panels()):
                for suffix in FORMATS:
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                yield figure, save(_draw(data, panels), file)


def _draw(data: FigureData, panels: Sequence[Group]) -> Figure:
    if data.figure.x == "setting":
        return draw_rows(data, panels)
    return (draw_points if data.figure.x in data.columns else draw_curves)(data, panels)


def caption(figure: FigureLayout, layout: Layout) -> str:
    """The figure and its caption, as Markdown."""
    name, columns = Path(figure.file).name, layout.columns
    # Relative to the page, so that the links work in any checkout.
    table = os.path.relpath(table_of(layout, figure).file, Path(figure.file).parent)
    y = ", ".join(columns[key].label for key in figure.columns)
    x, points = x_label(figure), ""
    if figure.x in columns:
        x = columns[figure.x].label
        points = " Each point is a setting, whose name stands beside it."
    shown = f"{y} of each setting, which has a row" if figure.x == "setting" else f"{y} against {x}"
    return (
        f"![{name}]({name}.png)\n\n"
        f"**{name}**: {figure.title}. {shown}.{points} Bars: 95% bootstrap intervals over references,"
        " whose number is in the title (the range of five references or fewer)."
        f" Table: [{figure.panels}.md]({table}.md)"
    )


def all_figures(names: Sequence[str]) -> Iterator[Path]:
    """Draws the figures of the named experiments, or of all with published rows; yields the files.

    The captions are written only without names: they are of all figures of their folder.
    """
    captions: dict[Path, list[str]] = {}
    for path, layout in published_layouts(names):
        if layout.figures:
            root = root_of(path)
            comparison = Comparison(layout, read_published(root / layout.rows))
            for figure, files in write_figures(root, layout, comparison):
                yield from files
                captions.setdefault((root / figure.file).parent, []).append(caption(figure, layout))
    for folder, lines in captions.items() if not names else ():
        write_whole(folder / CAPTIONS, ("\n\n".join(lines) + "\n").encode())


def main(arguments: Sequence[str]) -> int:
    """Draws the figures of the named experiments, or of all with published rows; returns the exit code."""
    return print_files(all_figures(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
