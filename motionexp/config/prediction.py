"""The checked settings of `python run.py predict`. Imports no torch."""

from collections.abc import Sequence

from motionexp.config.checks import check_device
from motionexp.config.command_line import CONFIG_DIR, override_key
from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError

SETTINGS = ("model", "data", "references", "frames", "fit", "probe_steps", "device", "output", "plugins")
"""The settings on which a prediction depends."""


def load_prediction(words: Sequence[str]) -> JobConfig:
    """The checked settings of `python run.py predict WORDS`.

    Raises:
        InputError: a clip of `video=`, a setting without effect, or what `load` finds.
    """
    for word in words:
        name = override_key(word).partition(".")[0]
        if name == "video":
            raise InputError(
                f"{word}: one clip; the interval of a prediction needs three: put them into a folder with a"
                " captions.csv, and name it by data=folder data.path=DIR"
            )
        if name not in SETTINGS and not word.startswith(CONFIG_DIR):
            raise InputError(
                f"predict does not depend on {name}=: leave it out; it takes {', '.join(SETTINGS)}"
            )
    cfg = load(words)
    if cfg.data["_target_"].endswith(".Clip"):
        raise InputError("data=clip: one clip; put three or more into a folder (data=folder data.path=DIR)")
    check_device(cfg.device)
    return cfg
