"""The flags of the command, which are Hydra's. Imports no torch."""

from collections.abc import Sequence

from motionexp.config.command_line import CONFIG_DIR
from motionexp.errors import InputError, one_of

PARTS = ("job", "hydra", "all")
INFORMATION = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS = ("-m", "--multirun", "--resolve", "--hydra-help", "--help", "-h", "--version")
FLAGS_WITH_VALUE = {
    "--config-dir": "a folder with options of your own",
    "-cd": "a folder with options of your own",
    **dict.fromkeys(("--cfg", "-c"), f"one of {', '.join(PARTS)}"),
    "--package": "a part of the settings, with --cfg",
    "-p": "a part of the settings, with --cfg",
    **dict.fromkeys(("--info", "-i"), f"one of {', '.join(INFORMATION)}"),
}
CHOICES = {"--cfg": PARTS, "-c": PARTS, "--info": INFORMATION, "-i": INFORMATION}


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and all else, where a folder of options is `--config-dir=DIR`.

    Raises:
        InputError: a flag that this command does not have, or one without its value.
    """
    flags, words, rest = list[str](), list[str](), list(arguments)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if not word.startswith("-"):
            words.append(word)
        elif name in FLAGS and not sign:
            flags.append(word)
        elif name in FLAGS_WITH_VALUE:
            if not sign and not rest:
                raise InputError(f"{word} needs a value: {FLAGS_WITH_VALUE[name]}")
            value = value if sign else rest.pop(0)
            if value not in CHOICES.get(name, (value,)):
                raise InputError(f"{name} {value}: {FLAGS_WITH_VALUE[name]}")
            if name in ("--config-dir", "-cd"):
                words.append(CONFIG_DIR + value)
            else:
                flags += [name, value]
        else:
            raise InputError(f"{word}: there is no such flag; {one_of(name, [*FLAGS, *FLAGS_WITH_VALUE])}")
    return flags, words
