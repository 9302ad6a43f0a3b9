"""Overrides as they are typed, in the form that Hydra reads: one way for single runs, sweeps and files.

Free text (a caption, a path) is taken letter by letter. Hydra and OmegaConf give a meaning to commas, quotes,
brackets and `${`; in free text these are ordinary characters. Two forms are special: `null`, and with `-m`
`caption='choice("first text","second text")'`, a sweep over texts.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import HydraException

from motionexp.config.config_dir import search_path
from motionexp.config.options import (
    GIVEN_BY_PROGRAM,
    GROUPS,
    SCHEMAS,
    options,
    parameters_of,
)
from motionexp.config.schema import JobConfig, ScoreConfig
from motionexp.config.settings import names_in, settings_in
from motionexp.config.targets import has_type
from motionexp.errors import InputError, nearest
from motionexp.files import MOST_CHARACTERS

CONFIG_DIR = "--config-dir="
COMMANDS = (
    "card",
    "dashboard",
    "export",
    "list",
    "predict",
    "report",
    "score",
    "status",
    "study",
    "submission",
    "table",
    "ui",
)
LISTS_OF_TEXT = ("edits",)
PATHS = ("output", "folder", "samples", "video", "image", "adapter", "--config-dir")
# Hydra's own settings that suit this command: how jobs of a sweep are launched, and with which values.
OF_HYDRA = re.compile(r"hydra/(launcher|sweeper)|hydra\.(launcher|sweeper)(\.[A-Za-z]\w*)+|hydra\.verbose")
PARAMS = "hydra.sweeper.params."
DOUBLE = '"'
TEXT = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
CHOICE = re.compile(rf"choice\(\s*{TEXT}(?:\s*,\s*{TEXT})*\s*\)", re.DOTALL)


def override_key(override: str) -> str:
    """The name of the setting in an override such as `+method.strength=2`."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def prepared(words: Sequence[str]) -> list[str]:
    """Overrides in Hydra's form: free text in quotes, `data=clip` with a video, own folders of options.

    Call this once: the quotes of a result would be text the second time.

    Raises:
        InputError: a word is no override, or one for Hydra itself; a group is removed; a video is given with
            other data.
    """
    folders = [word.removeprefix(CONFIG_DIR) for word in words if word.startswith(CONFIG_DIR)]
    overrides = [word for word in words if not word.startswith(CONFIG_DIR)]
    for override in overrides:
        _check_override(override)
    ready = [_quoted(override) for override in overrides]
    video = next((override for override in ready[::-1] if override_key(override) == "video"), "video=null")
    if not video.endswith("=null"):
        if source := next((word for word in overrides if _is_other_data(word)), None):
            raise InputError(f"video= and {source}: both say where the references come from; leave out one")
        ready += [] if any(override_key(override) == "data" for override in ready) else ["data=clip"]
    return [*ready, *map(search_path, folders)]


def values_of(word: str, parser: OverridesParser) -> list[str]:
    """The words of the single values of a sweep over a setting, as a user would type each; else the word.

    Args:
        word: as it was typed.
        parser: knows the options of groups where `*` stands for them.
    """
    key, _, value = word.partition("=")
    if is_text(override_key(word)) and override_key(word) not in LISTS_OF_TEXT:
        return [_typed_text(key, text) for text in _texts_of(value)] if CHOICE.fullmatch(value) else [word]
    override = parser.parse_override(word)
    if not override.is_discrete_sweep():
        return [word]
    if override_key(word) in LISTS_OF_TEXT and isinstance(override._value, ChoiceSweep):
        return [f"{key}={_items_in_quotes(texts, _escaped)}" for texts in override._value.list]
    return [f"{key}={text}" for text in override.sweep_string_iterator()]


def swept(words: Sequence[str]) -> str:
    """The word of a sweep over the values of several words for one setting; of one word, that word."""
    key = words[0].partition("=")[0]
    if len(words) == 1:
        return words[0]
    values = [word.partition("=")[2] for word in words]
    if is_text(override_key(words[0])) and override_key(words[0]) not in LISTS_OF_TEXT:
        texts = [_texts_of(value)[0] if CHOICE.fullmatch(value) else value for value in values]
        return f"{key}=choice({','.join(map(_in_double_quotes, texts))})"
    return f"{key}={','.join(values)}"


def named(key: str, names: Sequence[str]) -> str:
    """The word that gives a list of names out of data, as in `references=[a,b]`."""
    plain = [
        name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) and not _is_value(name) else in_quotes(name)
        for name in names
    ]
    return f"{key}=[{','.join(plain)}]"


def listed_texts(key: str, texts: Sequence[str]) -> str:
    """The word that gives a list of free texts, as in `edits=["a dog, running","a cat"]`."""
    # The shell's quotes around the word are single ones.
    return f"{key}={_items_in_quotes(list(texts), partial(_escaped, quote=DOUBLE))}"


def _is_value(name: str) -> bool:
    """Whether Hydra reads a word as something else than text."""
    if name.lower() in ("null", "true", "false"):
        return True
    try:
        float(name)
    except ValueError:
        return False
    return True


def _typed_text(key: str, text: str) -> str:
    """A word with free text; a text that alone would have a meaning stands in a choice of one."""
    if text == "null" or CHOICE.fullmatch(text):
        return f"{key}=choice({_in_double_quotes(text)})"
    return f"{key}={text}"


def _texts_of(choice: str) -> list[str]:
    """The texts of `choice("A","B")`."""
    return [
        re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) for text in re.findall(TEXT, choice, re.DOTALL)
    ]


def _in_double_quotes(text: str) -> str:
    return '"' + re.sub(r'([\\"])', r"\\\1", text) + '"'


def choice_hint(name: str, value: str) -> str:
    """For an error about a text with a comma: how several texts are swept; else empty."""
    texts = ",".join(_in_double_quotes(text.strip()) for text in value.split(","))
    return f"; a sweep over several is -m {name}='choice({texts})'" if "," in value else ""


def check_once(words: Sequence[str]) -> None:
    """Raises InputError for a setting that is given more than once: only the last would have an effect."""
    counts = Counter(map(override_key, words))
    for key, count in counts.items():
        if count > 1:
            values = ", ".join(word for word in words if override_key(word) == key)
            raise InputError(f"{key}= is given {count} times ({values}); give it once")


def check_not_empty(words: Sequence[str]) -> None:
    """Raises InputError for a path without a letter, which would be the folder that one works in."""
    for word in words:
        key, sign, value = word.partition("=")
        if sign and not value.strip() and key in PATHS:
            raise InputError(f"{word}: the path is empty; {key}=. is the folder that you are in")


def selection(command: str, words: Sequence[str]) -> dict[str, str]:
    """{name: value} of the words after a command that selects rows. Raises InputError for another word."""
    select = {key: value for key, sign, value in (word.partition("=") for word in words) if sign}
    if len(select) != len(words):
        wrong = next(word for word in words if "=" not in word)
        raise InputError(f"{wrong}: {command} takes output=FOLDER, and NAME=VALUE to select rows")
    return select


def no_such_command(word: str) -> InputError:
    """The error about a word that is neither a command nor a setting with its value."""
    if word in COMMANDS:
        return InputError(f"{word}: a command is the first word: python run.py {word} ...")
    if near := nearest(word, [*COMMANDS, "experiment", *settings_in(JobConfig)]):
        right = near if near in COMMANDS else f"{near}=VALUE"
        return InputError(f"{word}: there is no such command; did you mean {right}?")
    return InputError(
        f"{word if word.strip() else repr(word)}: no command ({', '.join(COMMANDS)}), and no setting, which"
        " is KEY=VALUE"
    )


def _check_override(override: str) -> None:
    key, sign, _ = override.partition("=")
    name = override_key(override)
    if sign and not name.strip():
        raise InputError(f"{override}: the setting's name is missing before the equals sign")
    if override.startswith("-"):
        raise InputError(f"{override}: a flag has no place here (`python run.py --help` lists the flags)")
    if not sign and not override.startswith("~"):
        raise no_such_command(override)
    if name.partition(".")[0].partition("/")[0].strip() == "hydra" and not OF_HYDRA.fullmatch(name):
        raise InputError(
            f"{override}: of Hydra's own settings only hydra/launcher, hydra/sweeper, what is in them, and"
            " hydra.verbose can be set; output= is the folder of results"
        )
    if name.startswith(PARAMS) and is_text(name.removeprefix(PARAMS)):
        raise InputError(
            f'{override}: free text is swept with {name.removeprefix(PARAMS)}=\'choice("A","B")\''
        )
    _check_for_hydra(override, name)
    if "@" in key:
        raise InputError(f"{override}: a setting has no @PACKAGE here; write {name}=VALUE")
    if name in GROUPS and (override.startswith("~") or override == f"{name}=null"):
        raise InputError(f"{name}: one of {', '.join(options(name))}")
    if override.startswith("~") and (name in settings_in(JobConfig) or name.partition(".")[0] in SCHEMAS):
        raise InputError(f"{override}: a setting cannot be removed; leave it out for its default")


def _check_for_hydra(override: str, name: str) -> None:
    """Raises InputError for an override on which Hydra fails with an error of its own code."""
    root, dot, _ = name.partition(".")
    if dot and root in {*settings_in(JobConfig), *settings_in(ScoreConfig)} - {*GROUPS, *SCHEMAS}:
        raise InputError(f"{override:.200}: {root} has no settings within it; write {root}=VALUE")
    if len(name) > MOST_CHARACTERS or (name in GROUPS and len(override) > 2000):
        raise InputError(f"{override:.60}...: there is no setting or option of so long a name")
    if not is_text(name) and re.search(r"\d{1000}", override):
        raise InputError(f"{override:.60}...: a number of more than a thousand digits")
    if name in GROUPS and not override.startswith("~") and not _names_options(override):
        raise InputError(f"{override:.200}: one of {', '.join(options(name))}")


def _names_options(override: str) -> bool:
    """Whether the value of a group is a name or a sweep over names; Hydra takes it for a file's path."""
    value = _parsed(override)._value
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    texts = [value.text if isinstance(value, QuotedString) else value for value in values]
    return all("/" not in text if isinstance(text, str) else isinstance(text, Glob | None) for text in texts)


def _parsed(override: str) -> Override:
    """The override as Hydra reads it. Raises InputError."""
    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, ValueError) as error:  # a ValueError for a number of thousands of digits
        raise InputError(unreadable(override)) from error


def _is_other_data(override: str) -> bool:
    """Whether an override selects or describes references that are not the clip of `video=`."""
    key, _, value = override.partition("=")
    name = key.lstrip("+~")
    if name == "data":
        return value != "clip"
    return (
        name.startswith("data.") and name != "data._target_" and name[5:] not in parameters_of("data", "clip")
    )


def _quoted(override: str) -> str:
    key, _, value = override.partition("=")
    name = override_key(override)
    if override.startswith("~") or value == "null":
        return override
    if name in LISTS_OF_TEXT:
        return _with_quoted_items(override)
    if not is_text(name):
        return override
    if value == "???":
        raise InputError(f"{key}=???: Hydra takes ??? for a missing value; write other text")
    if CHOICE.fullmatch(value):
        return f"{key}={','.join(map(in_quotes, _texts_of(value)))}"
    return f"{key}={in_quotes(value)}"


def _with_quoted_items(override: str) -> str:
    """A list of texts, or a sweep over such lists, with `${` in them as ordinary characters."""
    key, value = override.partition("=")[0], _parsed(override)._value
    if isinstance(value, ChoiceSweep):
        # Without choice(), from which Hydra writes texts without their quotes.
        return f"{key}={','.join(_items_in_quotes(texts, in_quotes) for texts in value.list)}"
    return f"{key}={_items_in_quotes(value, in_quotes)}"


def _items_in_quotes(value: Any, quoted: Callable[[str], str]) -> str:
    if isinstance(value, list):
        return f"[{','.join(_items_in_quotes(item, quoted) for item in value)}]"
    text = value.text if isinstance(value, QuotedString) else value
    return quoted(text) if isinstance(text, str) else "null" if text is None else str(text).lower()


def in_quotes(text: str) -> str:
    """A text as Hydra and OmegaConf read it back letter by letter."""
    return _escaped(as_value(text))


def _escaped(text: str, quote: str = "'") -> str:
    """A text in the quotes of Hydra's grammar, which reads a backslash as itself except before a quote."""
    escaped = re.sub(
        rf"(\\*)({quote}|$)", lambda match: match[1] * 2 + (f"\\{quote}" if match[2] else ""), text
    )
    return f"{quote}{escaped}{quote}"


def as_value(text: str) -> str:
    """A text as OmegaConf reads it back letter by letter: `${` is no reference to another setting."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)


def as_values(value: Any) -> Any:
    """As `as_value`, of every text in lists and dicts."""
    if isinstance(value, dict):
        return {key: as_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_values(item) for item in value]
    return as_value(value) if isinstance(value, str) else value


def unreadable(override: str) -> str:
    """The error about an override that Hydra's grammar does not take."""
    example = "edits='[\"a dog, running\"]'"
    return f"cannot read {override!r}: key=value, with signs in text in quotes, as in {example}"


def is_text(key: str) -> bool:
    """Whether a setting is free text: its line says so, its class takes a path, or it is a list of texts."""
    if key in LISTS_OF_TEXT:
        return True
    group, _, name = key.rpartition(".")
    if group in GIVEN_BY_PROGRAM:
        classes = [parameters_of(group, option) for option in options(group)]
        return any(name in types and has_type(types[name], "Path") for types in classes)
    if group in SCHEMAS:
        return name in names_in(SCHEMAS[group], lambda about: about.text)
    return any(key in names_in(schema, lambda about: about.text) for schema in (JobConfig, ScoreConfig))
