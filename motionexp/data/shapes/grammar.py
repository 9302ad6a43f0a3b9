"""Words of the bundled world: attributes, captioned motions, and the captions made of them.

A caption is ``a COLOUR SURFACE SHAPE [MOTION PHRASE] on BACKGROUND [CAMERA PHRASE]``. Two objects are joined
by "and". The caption of an appearance-dominant video begins with "a poster of". The caption of a single frame
has no phrase. A motion that no pretraining caption names is only called "is moving".
"""

import hashlib

COLOURS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "pink")
SURFACES = ("plain", "striped", "checked", "ringed")
SHAPES = ("circle", "square", "triangle", "star", "cross", "moon")
BACKGROUNDS = ("brick", "sand", "grass", "ice", "water", "heather")
CONTRASTS = ("motion-dominant", "appearance-dominant")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "surface": SURFACES,
    "shape": SHAPES,
    "background": BACKGROUNDS,
}

OBJECT_PHRASES = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "arc_left": "arcs left",
    "arc_right": "arcs right",
    "circle_clockwise": "circles clockwise",
    "circle_counterclockwise": "circles counterclockwise",
    "grow": "grows",
    "shrink": "shrinks",
    "spin": "spins",
    "bounce": "bounces",
    "sway": "sways",
}
CAMERA_PHRASES = {
    "pan_left": "as the camera pans left",
    "pan_right": "as the camera pans right",
    "zoom_in": "as the camera zooms in",
    "zoom_out": "as the camera zooms out",
}
GENERIC_PHRASE = "is moving"
CAPTIONED = (*OBJECT_PHRASES, *CAMERA_PHRASES)
UNCAPTIONED = ("wander",)
"""Pretraining shows it, but its captions only say that something is moving."""
OUT_OF_DISTRIBUTION = ("zigzag", "hop", "stop_and_go")
"""Pretraining never shows them."""
MOTIONS = (*CAPTIONED, *UNCAPTIONED, *OUT_OF_DISTRIBUTION)
STRATA = {"captioned": CAPTIONED, "uncaptioned": UNCAPTIONED, "out-of-distribution": OUT_OF_DISTRIBUTION}

MANNERS = {
    "circle": "bounce",
    "square": "left",
    "triangle": "up",
    "star": "circle_clockwise",
    "cross": "spin",
    "moon": "sway",
}
"""The motion that a shape prefers: pretraining shows it with probability ``COUPLING``."""
COUPLING = 0.5


def motion_stratum(motion: str) -> str:
    """Name the stratum of a motion: ``captioned``, ``uncaptioned`` or ``out-of-distribution``."""
    return next(stratum for stratum, motions in STRATA.items() if motion in motions)


UNNAMED = ("", "colour", "appearance")
"""What captions may leave out: nothing, the words for colours of objects, or all appearance but the shape."""


def object_phrase(colour: str, surface: str, shape: str) -> str:
    """Return e.g. "an orange striped star"; without a colour "a striped star"."""
    words = [word for word in (colour, surface, shape) if word]
    return " ".join(["an" if words[0][:1] in [*"aeiou"] else "a", *words])


def caption(
    things: list[dict[str, str]], background: str, contrast: str, *, still: bool = False, unnamed: str = ""
) -> str:
    """Return the caption of one or two objects on a background.

    Args:
        things: for each object a dictionary with ``colour``, ``surface``, ``shape`` and ``motion``.
        background: one of ``BACKGROUNDS``.
        contrast: one of ``CONTRASTS``.
        still: leave every motion out, as the caption of a single frame does.
        unnamed: one of ``UNNAMED``.
    """
    clauses, camera = [], ""
    for thing in things:
        colour = "" if unnamed else thing["colour"]
        surface = "" if unnamed == "appearance" else thing["surface"]
        words = [object_phrase(colour, surface, thing["shape"])]
        if not still:
            # One camera moves for both objects, so that its phrase comes once, at the end.
            camera = camera or CAMERA_PHRASES.get(thing["motion"], "")
            if thing["motion"] not in CAMERA_PHRASES:
                words.append(OBJECT_PHRASES.get(thing["motion"], GENERIC_PHRASE))
        clauses.append(" ".join(words))
    poster = "a poster of" if contrast == "appearance-dominant" else ""
    ground = f"on {background}"
    if unnamed == "appearance":
        poster = ground = ""
    return " ".join(filter(None, (poster, " and ".join(clauses), ground, camera)))


def vocabulary() -> list[str]:
    """Return every word that a caption of this world can hold, sorted."""
    phrases = [*OBJECT_PHRASES.values(), *CAMERA_PHRASES.values(), GENERIC_PHRASE, "a poster of an and on"]
    return sorted(set(" ".join(phrases).split()).union(*ATTRIBUTES.values()))


def is_held_out(colour: str, surface: str, shape: str, background: str) -> bool:
    """Return whether pretraining never shows this combination of attributes (a tenth of all)."""
    # A hash and not a generator: the answer depends on no order of calls.
    digest = hashlib.sha256("/".join((colour, surface, shape, background)).encode()).digest()
    return digest[0] % 10 == 0


def is_visible(shape: str, motion: str) -> bool:
    """Return whether the motion can be seen well; a spinning circle only shows it by its surface."""
    return motion != "spin" or shape != "circle"
