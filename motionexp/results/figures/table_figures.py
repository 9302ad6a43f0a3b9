"""The figures of tables of tuning (`make figures`).

Drawn from the published rows alone, as .svg and .png, where an experiment's file says; settings.md beside
them holds their captions.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

from motionexp.errors import InputError
from motionexp.results.comparisons import Measured
from motionexp.results.figures.curves import draw_curves, x_label
from motionexp.results.figures.panels import panels_of, table_of
from motionexp.results.figures.points import draw_points
from motionexp.results.figures.style import SETTINGS, save
from motionexp.results.layout import FigureLayout, Layout
from motionexp.results.layout_file import read_layout
from motionexp.results.published import is_published, read_published

CAPTIONS = "settings.md"


def write_figures(
    root: Path, layout: Layout, measured: Measured
) -> Iterator[tuple[FigureLayout, list[Path]]]:
    """Write a layout's figures under `root`; gives each with its files; one without rows is removed."""
    with matplotlib.rc_context(SETTINGS):
        for wanted in layout.figures:
            panels, file = panels_of(measured, wanted), root / wanted.file
            if not panels:
                for suffix in (".svg", ".png"):
                    file.with_name(file.name + suffix).unlink(missing_ok=True)
            else:
                draw = draw_points if wanted.x in layout.columns else draw_curves
                file.parent.mkdir(parents=True, exist_ok=True)
                yield wanted, save(draw(measured, wanted, panels), file)


def caption(wanted: FigureLayout, layout: Layout) -> str:
    """The figure and what stands beside it, as Markdown."""
    name, columns = Path(wanted.file).name, layout.columns
    table = os.path.relpath(table_of(layout, wanted).file, Path(wanted.file).parent)
    shown = ", ".join(columns[key].label for key in wanted.columns)
    of_points = wanted.x in columns
    over = columns[wanted.x].label if of_points else x_label(wanted)
    each = " Each point is a setting; its number is explained below the panels." if of_points else ""
    return (
        f"![{name}]({name}.png)\n\n"
        f"**{name}**: {wanted.title}. {shown} against {over}.{each} Bars: 95% bootstrap intervals"
        f" over references, whose number stands above (of five or fewer their"
        f" range). Table: [{wanted.panels}.md]({table}.md)"
    )


def main(arguments: Sequence[str]) -> int:
    """Draw the figures of the named experiments, or of all with published rows; returns the exit code."""
    captions: dict[Path, list[str]] = {}
    try:
        for path in map(Path, arguments or sorted(map(str, Path("experiments").glob("*.yaml")))):
            root, layout = path.resolve().parent.parent, read_layout(path)
            if not layout.figures or not (arguments or is_published(path, layout)):
                continue
            measured = Measured(layout, read_published(root / layout.rows))
            for wanted, written in write_figures(root, layout, measured):
                print(*map(os.path.relpath, written), sep="\n")
                captions.setdefault(written[0].parent, []).append(caption(wanted, layout))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for folder, lines in captions.items() if not arguments else ():
        (folder / CAPTIONS).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
