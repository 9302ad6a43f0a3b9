"""What completes a line of the shell that begins with a command; Hydra completes those of jobs. No torch."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import chain

from hydra.plugins.completion_plugin import CompletionPlugin

from motionexp.cli.commands import COMMANDS
from motionexp.config.options import GROUPS, options

FLAGS = frozenset({"-sc", "--shell-completion"})


def completions(line: str) -> tuple[list[str], bool]:
    """The words that a line may go on with, and whether its first word is a command.

    Args:
        line: all that was typed, as the shell hands it over.
    """
    text = CompletionPlugin.strip_python_or_app_name(line)
    words = text.split()
    if not text or not text[-1].isspace():
        *words, typed = words or [""]
    else:
        typed = ""
    if not words:
        return [name for name in COMMANDS if name.startswith(typed)], False
    if words[0] not in COMMANDS:
        return [], False
    return [word for word in _words_of(words[0], typed) if word.startswith(typed)], True


def _words_of(name: str, typed: str) -> Sequence[str]:
    """The settings and flags of a command; of a group that was typed its options."""
    command, (group, sign, _) = COMMANDS[name], typed.partition("=")
    settings = [line.name for line in fields(command.settings)] if command.settings else []
    names = dict.fromkeys([*settings, *command.of_jobs])
    if sign and group in names and group in GROUPS:
        return [f"{group}={option}" for option in options(group)]
    seconds = (words.split()[1] for words in command.usage)
    return [
        *chain((f"{name}=" for name in names), command.flags, ["--help"]),
        *(word for word in seconds if word.isalpha()),
    ]
