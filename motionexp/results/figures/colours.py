"""What every colour of the figures means: one colour has one meaning in all figures.

Lines that share a panel also differ in marker and in dashes, so that they can be told apart in grey. The
colours are of Okabe and Ito (settings of tuning) and of Tol (all else), chosen for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Style = Mapping[str, Any]
"""Keyword arguments of matplotlib's `Axes.plot`."""

NEUTRAL = "#B3B3B3"
"""Axes of symmetry, single references, other pairs, an ideal observer: what no model or setting has made."""
OPEN: Style = {"markerfacecolor": "white"}

WINDOW, ALL, MATCHED, DIFFERENT, UNTUNED = "#0072B2", "#D55E00", "#E69F00", "#56B4E9", "#000000"
SETTINGS: Mapping[str, Style] = {
    "window": {"color": WINDOW, "marker": "o", "linestyle": "-"},
    "window, q, k, v, o": {"color": WINDOW, "marker": "s", "linestyle": ":", **OPEN},
    "window, full rank": {"color": WINDOW, "marker": "D", "linestyle": ":", **OPEN},
    "window, soft": {"color": WINDOW, "marker": "o", "linestyle": ":", **OPEN},
    "window, always": {"color": WINDOW, "marker": "P", "linestyle": ":", **OPEN},
    "different windows": {"color": DIFFERENT, "marker": "X", "linestyle": "-."},
    "all timesteps": {"color": ALL, "marker": "s", "linestyle": "--"},
    "all timesteps, full rank": {"color": ALL, "marker": "p", "linestyle": ":", **OPEN},
    "all timesteps, in the window": {"color": ALL, "marker": "8", "linestyle": ":", **OPEN},
    "window-matched steps, in the window": {"color": MATCHED, "marker": "h", "linestyle": ":", **OPEN},
    "window-matched steps": {"color": MATCHED, "marker": "D", "linestyle": "-."},
    "base model": {"color": UNTUNED, "marker": "^", "linestyle": "--"},
    "caption-only baseline": {"color": UNTUNED, "marker": "v", "linestyle": ":", **OPEN},
}
"""Settings of tuning. Black: nothing is tuned."""

MOTION: Style = {"color": "#117733", "marker": "o", "linestyle": "-"}
APPEARANCE: Style = {"color": "#CC79A7", "marker": "s", "linestyle": "--"}

MODELS: Mapping[str, Style] = {
    "tiny_latte": {"color": "#332288", "marker": "o", "linestyle": "-"},
    "tiny_unet3d": {"color": "#999933", "marker": "s", "linestyle": "--"},
    "tiny_cogvideox": {"color": "#882255", "marker": "^", "linestyle": "-."},
}

LATENTS, EARLY, MIDDLE, LATE = "#7B5A2E", "#A5DDD3", "#44AA99", "#14614F"
"""Features that the linear probe reads: latents x_t, and the network's blocks, darker from early to late."""
PAIR_OF_THE_PAPER = "#DDCC77"
"""The pair of timesteps that the first paper calls sufficient."""

# Labels and models of a user's experiments that the tables above do not have, in the order of appearance.
SPARE: tuple[Style, ...] = (
    {"color": "#AA4499", "marker": "o", "linestyle": "-"},
    {"color": "#661100", "marker": "s", "linestyle": "--"},
    {"color": "#6699CC", "marker": "^", "linestyle": "-."},
    {"color": "#888888", "marker": "D", "linestyle": ":"},
)


def setting_styles(labels: Sequence[str]) -> dict[str, Style]:
    """{label: the style of its line}, of the longest name in `SETTINGS` with which the label begins."""
    return _styles(labels, SETTINGS)


def model_styles(models: Sequence[str]) -> dict[str, Style]:
    """{model: the style of its lines}."""
    return _styles(models, MODELS)


def dotted(style: Style) -> Style:
    """A line's style for single points; a white edge separates filled points that touch."""
    edge = {} if "markerfacecolor" in style else {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return {**style, "linestyle": "none", "markersize": 5, **edge}


def _styles(labels: Sequence[str], table: Mapping[str, Style]) -> dict[str, Style]:
    styles: dict[str, Style] = {}
    spare = 0
    for label in labels:
        names = [name for name in table if label == name or label.startswith(f"{name}, ")]
        styles[label] = table[max(names, key=len)] if names else SPARE[spare % len(SPARE)]
        spare += not names
    return styles
