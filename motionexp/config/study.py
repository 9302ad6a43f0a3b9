"""The checked settings of `python run.py study`. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from motionexp.config.checks import unwritable
from motionexp.config.commands import command_settings
from motionexp.config.settings import setting
from motionexp.errors import InputError
from motionexp.files import user_path

PICKS, RATINGS = ("picks",), ("ditflow", "vmc")
"""Forms in which people pick the best method, and in which they rate every video."""


# fmt: off
@dataclass
class StudyConfig:
    """Every setting of `python run.py study`; `--help` prints this list."""

    folder: str = setting(MISSING, "new folder of the study, which is written to", text=True)
    output: str = setting("outputs", "folder of the finished samples", text=True)
    form: str = setting(
        "picks", "pick the best method, or rate each video as in a paper", choices=(*PICKS, *RATINGS))
    by: str | None = setting(None, "settings that tell methods apart; null: those that differ", text=True)
    base_model: bool = setting(False, "whether the base model is one of the methods")
    people: int = setting(30, "questionnaires", low=1, high=1000)
    pages: int = setting(10, "pages of a questionnaire; a page is a reference with an edit", low=1, high=200)
    pairs: int | None = setting(
        None, "pairs of reference and edit that all questionnaires draw from: of fewer pairs each is seen by"
        " more people; null: all", low=1)
    checks: int = setting(1, "further pages of a questionnaire, which test attention", low=0, high=10)
    seed: int = setting(0, "of all draws", low=0)
    contact: str = setting("", "where participants send their answers; they read it", text=True)
    url: str = setting("", "web address of the study's site/; empty: links to this disk", text=True)
# fmt: on


def load_study(words: Sequence[str]) -> tuple[StudyConfig, dict[str, str]]:
    """The checked settings of `python run.py study WORDS`, and the words that select samples by their rows.

    Raises:
        InputError: a word is no NAME=VALUE, a value is none of its setting, or the folder cannot be used.
    """
    cfg, select = command_settings("study", StudyConfig, words, selects=True)
    if (path := user_path(cfg.folder)).exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"folder={cfg.folder}: it is not empty; name a new folder (output= is that of finished samples)"
        )
    if problem := unwritable(path):
        raise InputError(f"folder={cfg.folder}: {problem}; name a folder that can be written")
    return cfg, select
