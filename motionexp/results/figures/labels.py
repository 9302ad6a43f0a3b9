"""Text at points: each label beside its point, on no other label and on no point."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# adjustText: the room around a label, and how strongly labels and points push labels away. A limit on
# iterations, not on time, gives the same figure on every machine.
PLACEMENT: dict[str, Any] = {
    "expand": (1.12, 1.5), "force_text": (0.4, 0.6), "force_static": (0.4, 0.6), "force_pull": (0.005, 0.005),
    "max_move": (6, 6), "min_arrow_len": 6, "iter_lim": 600,
}  # fmt: skip


def write_labels(figure: Figure, panels: Mapping[Axes, Sequence[tuple[str, Line2D]]]) -> None:
    """Write each text beside its point, with a line to it where other points or texts are in the way.

    Call it last: the layout of the figure is fixed here, because the places of texts depend on it.

    Args:
        figure: with all that it shows.
        panels: {panel: (text, the point that it belongs to)}. A point without a text keeps others away.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, labels in panels.items():
        axis.autoscale(False)
        places = [(x, y) for _, point in labels for x, y in np.asarray(point.get_xydata())]
        texts = [
            # On a white ground, under the points: letters with an outline would be paths in the files.
            axis.text(x, y, text, ha="center", va="center", fontsize=8, zorder=2.5, bbox={
                "boxstyle": "square,pad=0", "facecolor": "white", "edgecolor": "none", "alpha": 0.8})
            for (text, _), (x, y) in zip(labels, places, strict=True) if text
        ]  # fmt: skip
        if texts:
            arrow = {"arrowstyle": "-", "linewidth": 0.5, "color": "black", "shrinkA": 0, "shrinkB": 3}
            xs, ys = zip(*places, strict=True)
            points = [point for _, point in labels]
            adjust_text(texts, xs, ys, objects=points, ax=axis, arrowprops=arrow, **PLACEMENT)
