"""`python run.py card`: the model card of an adapter. Imports torch only if the settings are right."""

from collections.abc import Sequence

from motionexp.config.card import load_card
from motionexp.jobs.waiting import loading_libraries


def card(words: Sequence[str]) -> None:
    """`python run.py card adapter=FOLDER ...`. Raises InputError as `load_card` and `write_card`."""
    cfg, select = load_card(words)
    with loading_libraries():
        from motionexp.jobs.card_folder import write_card
    write_card(cfg, select)
