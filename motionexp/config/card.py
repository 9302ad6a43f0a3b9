"""The checked settings of `python run.py card`. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from motionexp.config.adapter_files import adapter_file
from motionexp.config.checks import unwritable
from motionexp.config.commands import command_settings
from motionexp.config.settings import setting
from motionexp.errors import InputError
from motionexp.files import user_path

REPOSITORY = r"[A-Za-z0-9][\w.-]{0,94}/[A-Za-z0-9][\w.-]{0,94}"


@dataclass
class CardConfig:
    """Every setting of `python run.py card`; `--help` prints this list."""

    adapter: str = setting(MISSING, "folder or file of an adapter of motionexp", text=True)
    folder: str | None = setting(None, "of the card and its files; null: card/ in the cell", text=True)
    reference_video: bool = setting(False, "include the reference's video: you may publish it")
    push: str | None = setting(None, "USER/NAME: upload to this repository of the hub", pattern=REPOSITORY)
    private: bool = setting(True, "make a new repository private")

    @property
    def target(self) -> Path:
        """The folder that the card is written to."""
        if self.folder is not None:
            return user_path(self.folder)
        file = adapter_file(self.adapter)
        return (file.parents[1] if file.parent.name == "adapter" else file.parent) / "card"


def load_card(words: Sequence[str]) -> tuple[CardConfig, dict[str, str]]:
    """The checked settings of `python run.py card WORDS`, and the words that select samples by their rows.

    Raises:
        InputError: a word is no NAME=VALUE, there is no such adapter, or the folder cannot be written.
    """
    cfg, select = command_settings("card", CardConfig, words, selects=True)
    adapter_file(cfg.adapter)
    if problem := unwritable(cfg.target):
        raise InputError(f"folder={cfg.target}: {problem}; name a folder that can be written")
    return cfg, select
