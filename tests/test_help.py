"""What `--help` prints."""

import pytest

from motionexp.cli import main
from motionexp.cli.commands import COMMANDS
from motionexp.cli.help import USAGE, WIDTH, help_text, wrapped
from motionexp.config import command_line
from motionexp.config.schema import JobConfig, TrainerConfig
from motionexp.config.settings import settings_in


def test_it_fits_80_columns_and_names_every_setting():
    lines = help_text().splitlines()
    words = {line.split()[0].partition("=")[0] for line in lines if line.startswith("  ")}
    assert max(map(len, lines)) <= WIDTH == 80
    assert {*settings_in(JobConfig)} - {"model", "method", "data", "scoring", "trainer"} <= words
    assert {f"trainer.{name}" for name in settings_in(TrainerConfig)} <= words
    # What one copies is whole.
    assert all(any(f"python run.py {command}".rstrip() in line for line in lines) for command, _ in USAGE)


def test_a_text_is_wrapped_between_words_and_its_commands_are_whole():
    command = "`python run.py model=latte dry_run=true data=tgve data.path=DIR output=FOLDER references=76`"
    lines = wrapped(f"{'word ' * 30}{command} {'word ' * 30}").splitlines()
    assert any(command in line for line in lines)
    assert all(len(line) <= WIDTH or line.strip() == command for line in lines)


def test_it_says_which_options_of_groups_are_the_default():
    defaults = [
        line.split()[0]
        for line in help_text().replace("\n   ", "   ").splitlines()
        if "(the default)" in line
    ]
    assert defaults[:4] == ["model=tiny_latte", "method=lora", "data=shapes", "scoring=auto"]


def test_every_command_has_a_help():
    assert sorted(COMMANDS) == sorted(command_line.COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_its_settings_alone(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    lines = text.partition("settings, with their defaults:\n")[2].partition("\n\n")[0].splitlines()
    names = {line.split()[0].partition("=")[0] for line in lines if line[2] != " "}
    command = COMMANDS[name]
    of_command = settings_in(command.settings) if command.settings else {}
    assert {name for name in names if not name.startswith("scoring.")} == {*of_command, *command.of_jobs}
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(f"python run.py {words}" in text for words in command.usage)
