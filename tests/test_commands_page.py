"""The table of all commands in docs/usage.md."""

import re
from pathlib import Path

from motionexp.cli.commands import COMMANDS
from motionexp.config.command_line import override_key

PAGE = (Path(__file__).parents[1] / "docs" / "usage.md").read_text(encoding="utf-8")
HEAD, _, *LINES = re.search(r"\| command \|(?:.*\n)(?:\|.*\n)+", PAGE)[0].splitlines()
TABLE = {
    cells[1].strip(" `"): dict(zip(HEAD.split("|"), cells, strict=True))
    for cells in (line.split("|") for line in LINES)
}


def test_it_has_every_command_and_says_whether_words_select():
    assert TABLE.keys() == {*COMMANDS, "(none)"}
    selects = {name for name, cells in TABLE.items() if cells[" words select "].strip()}
    assert selects == {name for name, command in COMMANDS.items() if command.selects} | {"list"}


def test_the_settings_of_its_examples_are_those_of_the_commands():
    for name, command in COMMANDS.items():
        start, *words = re.search(r"`python run\.py (.*)`", TABLE[name][" example "])[1].split()
        assert start == name
        names = {override_key(word) for word in words if "=" in word}
        settings = {*(command.settings.__dataclass_fields__ if command.settings else ()), *command.of_jobs}
        assert command.selects or name == "list" or {key.partition(".")[0] for key in names} <= settings
