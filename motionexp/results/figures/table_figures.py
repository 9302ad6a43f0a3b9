"""The figures of tables of tuning (`make figures`).

Drawn from the published rows alone, as .svg and .png, where an experiment's file names them; settings.md
beside them holds their captions.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

from motionexp.errors import InputError
from motionexp.results.comparisons import Comparison
from motionexp.results.figures.curves import draw_curves, x_label
from motionexp.results.figures.panels import FigureData, table_of
from motionexp.results.figures.points import draw_points
from motionexp.results.figures.style import SETTINGS, save
from motionexp.results.layout import FigureLayout, Layout
from motionexp.results.published import published_layouts, read_published, root_of

CAPTIONS = "settings.md"


def write_figures(
    root: Path, layout: Layout, comparison: Comparison
) -> Iterator[tuple[FigureLayout, list[Path]]]:
    """Writes a layout's figures under `root`; yields each with its files. Removes a figure without rows."""
    with matplotlib.rc_context(SETTINGS):
        for figure in layout.figures:
            data, file = FigureData(comparison, figure), root / figure.file
            if not (panels := data.panels()):
                for suffix in (".svg", ".png"):
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
            else:
                draw = draw_points if figure.x in layout.columns else draw_curves
                file.parent.mkdir(parents=True, exist_ok=True)
                yield figure, save(draw(data, panels), file)


def caption(figure: FigureLayout, layout: Layout) -> str:
    """The figure and its caption, as Markdown."""
    name, columns = Path(figure.file).name, layout.columns
    table = os.path.relpath(table_of(layout, figure).file, Path(figure.file).parent)
    y = ", ".join(columns[key].label for key in figure.columns)
    x, points = x_label(figure), ""
    if figure.x in columns:
        x = columns[figure.x].label
        points = " Each point is a setting; the key below the panels explains its number."
    return (
        f"![{name}]({name}.png)\n\n"
        f"**{name}**: {figure.title}. {y} against {x}.{points} Bars: 95% bootstrap intervals over references,"
        " whose number is in the title (the range of five references or fewer)."
        f" Table: [{figure.panels}.md]({table}.md)"
    )


def main(arguments: Sequence[str]) -> int:
    """Draws the figures of the named experiments, or of all with published rows; returns the exit code."""
    captions: dict[Path, list[str]] = {}
    try:
        for path, layout in published_layouts(arguments):
            if not layout.figures:
                continue
            root = root_of(path)
            comparison = Comparison(layout, read_published(root / layout.rows))
            for figure, files in write_figures(root, layout, comparison):
                print(*map(os.path.relpath, files), sep="\n")
                captions.setdefault(files[0].parent, []).append(caption(figure, layout))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for folder, lines in captions.items() if not arguments else ():
        (folder / CAPTIONS).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
