"""One colour has one meaning, for colour-blind readers and in grey too."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from motionexp.results.figures import colours
from motionexp.results.figures.colours import MODELS, SETTINGS, model_styles, setting_styles

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
MEANINGS = {
    "window": colours.WINDOW, "all timesteps": colours.ALL, "matched steps": colours.MATCHED,
    "different windows": colours.DIFFERENT, "nothing tuned": colours.UNTUNED, "neutral": colours.NEUTRAL,
    "motion": colours.MOTION["color"], "appearance": colours.APPEARANCE["color"],
    **{model: style["color"] for model, style in MODELS.items()},
    "latents": colours.LATENTS, "early": colours.EARLY, "middle": colours.MIDDLE, "late": colours.LATE,
    "pair": colours.PAIR_OF_THE_PAPER,
}  # fmt: skip
# What stands in one panel together.
TOGETHER = (
    ("window", "all timesteps", "matched steps", "different windows", "nothing tuned", "neutral"),
    ("motion", "appearance", "neutral"),
    tuple(MODELS),
    ("latents", "early", "middle", "late"),  # the neutral observer is a thick line without markers
    ("pair", "nothing tuned", "neutral"),
)


def seen(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as a reader sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.asarray(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_no_two_meanings_have_one_colour():
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    spare = {style["color"] for style in colours.SPARE}
    assert not spare & set(MEANINGS.values())


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_one_panel_are_told_apart(vision):
    for names in TOGETHER:
        for first, second in combinations(names, 2):
            distance = np.linalg.norm(seen(MEANINGS[first], vision) - seen(MEANINGS[second], vision))
            assert distance > 10, f"{first} and {second}, {vision}: {distance:.0f}"


@pytest.mark.parametrize("table", [SETTINGS, MODELS])
def test_lines_differ_without_colour(table):
    looks = [(style["marker"], style["linestyle"], style.get("markerfacecolor")) for style in table.values()]
    grey = [seen(style["color"], "full")[0] for style in table.values()]
    for (look, light), (other_look, other_light) in combinations(zip(looks, grey, strict=True), 2):
        assert look != other_look or abs(light - other_light) > 15


def test_a_label_has_the_colour_of_its_meaning_and_other_labels_have_their_own():
    styles = setting_styles(["window, τ = 700", "window, soft", "all timesteps", "windowless", "mine"])
    assert styles["window, τ = 700"] == SETTINGS["window"]
    assert styles["window, soft"] == SETTINGS["window, soft"]
    assert styles["windowless"] != styles["mine"]
    assert model_styles(["latte", "tiny_latte"])["tiny_latte"] == model_styles(["tiny_latte"])["tiny_latte"]
