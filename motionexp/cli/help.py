"""What `--help` and `list` print: settings, options, references and words. Imports no torch."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import MISSING as REQUIRED
from rich.console import Console

from motionexp.cli.commands import COMMANDS, OF_CLIPS, Command
from motionexp.config.checks import vocabulary
from motionexp.config.command_line import CONFIG_DIR, override_key, selection
from motionexp.config.compose import load
from motionexp.config.launcher import BASIC, GROUP, KINDS, PREFIX, Launcher
from motionexp.config.metrics import measurable
from motionexp.config.options import CONF, EXPERIMENTS, GROUPS, SCHEMAS, options
from motionexp.config.schema import JobConfig, ModelConfig, TrainerConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import settings_in
from motionexp.config.yaml_file import read_yaml
from motionexp.data.select import make_reader
from motionexp.errors import InputError, one_of
from motionexp.files import user_path
from motionexp.jobs.results_folder import ResultsFolder
from motionexp.results.runs import print_runs

WIDTH = 80
USAGE = [
    ("", "one reference, its edits, the default window"),
    ("-m tau=0,650,1000", "a sweep: a job for each value or combination; one table"),
    ("experiment=NAME", "the sweep of experiments/NAME.yaml, its tables; NAME or a path"),
    ("adapter=FOLDER edits='[\"...\"]'", "new captions with a saved adapter"),
    ('video=FILE caption="..." edits=\'["..."]\' model=latte', "your own clip"),
    ("plugins=[PACKAGE] method._target_=PACKAGE.MODULE.CLASS", "a tuning method of your own package"),
    *(line for command in COMMANDS.values() for line in command.usage.items()),
    ("COMMAND --help", "the settings of one of these commands"),
    ("--cfg job", "print the resolved settings; run nothing"),
    ("dry_run=true", "print what would run, its output paths and its cost"),
]


def wrapped(text: str) -> str:
    """A text in lines of `WIDTH` characters; a command in backquotes stays whole."""
    whole = re.sub(r"`[^`\n]*`", lambda command: command[0].replace(" ", "\0"), text)
    lines = [
        textwrap.fill(line, WIDTH, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False)
        for line in whole.splitlines()
    ]
    return "\n".join(lines).replace("\0", " ")


HYDRA_FLAGS = [
    ("-m, --multirun", "a sweep: every job is checked before the first starts"),
    ("--config-dir DIR", "options of your own: DIR/model/mine.yaml is then model=mine (docs/usage.md)"),
    ("--version", "this program's version"),
    ("--cfg job", "print the resolved settings"),
    ("--shell-completion install=bash", "a script for bash, which completes words (docs/usage.md)"),
    ("--hydra-help", "sweepers and everything else of Hydra"),
]


def help_text(command: str = "") -> str:
    """Every choice with a line of explanation; of a command its settings alone."""
    if command:
        return _command_text(command, COMMANDS[command])
    groups = {group: settings_in(JobConfig)[group].help for group in GROUPS}
    usage = [(f"python run.py {words}", meaning) for words, meaning in USAGE]
    parts = [_section("Transfer the motion of one video to new captions", usage, 34)]
    parts += [_section(meaning, _option_lines(group)) for group, meaning in groups.items()]
    launchers = [(f"{GROUP}={BASIC}", "this process, one job after the other (the default)")]
    launchers += [
        (f"{GROUP}={option}", first_comment(CONF / GROUP / f"{option}.yaml")) for option in options(GROUP)
    ]
    parts.append(_section("who runs a sweep (docs/clusters.md)", launchers, 32))
    files = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if _has_sweep(path)]
    experiments = [(f"experiment={path.stem}", first_comment(path)) for path in files]
    parts += [
        _section("sweeps with their tables", experiments),
        _section("settings, with their defaults", _lines(JobConfig)),
        _section(
            "what a model's file contains", [(f"model.{left}", right) for left, right in _lines(ModelConfig)]
        ),
        _section(
            settings_in(JobConfig)["trainer"].help,
            [(f"trainer.{left}", right) for left, right in _lines(TrainerConfig)],
        ),
        _section(
            "models behind scores", [(f"scoring.{left}", right) for left, right in _lines(ScoringConfig)]
        ),
        _section("metrics", [(spec.name, spec.question) for spec in measurable()]),
        _section(f"settings of every {GROUP}= but {BASIC}", _launcher_lines(Launcher)),
        *(_section(f"settings of {GROUP}={kind.name}", _launcher_lines(kind)) for kind in KINDS.values()),
        _section("flags", HYDRA_FLAGS),
    ]
    return "\n".join(parts)


def _command_text(name: str, command: Command) -> str:
    """What a command does, and its settings."""
    usage = [(f"python run.py {words}", meaning) for words, meaning in command.usage.items()]
    lines = [] if command.settings is None else _lines(command.settings)
    # A group has no default in its schema: its file in conf/ says which option holds unless one is named.
    defaults = _default_options(CONF / ("score.yaml" if name == "score" else "config.yaml"))
    of_jobs = dict(_lines(JobConfig))
    names = command.of_jobs or [group for group in GROUPS if group in settings_in(command.settings)]
    for setting in names:
        if setting in GROUPS:
            left = setting if setting in command.meanings else f"{setting}={defaults[setting]}"
            right = f"{settings_in(JobConfig)[setting].help}: {', '.join(options(setting))}"
        else:
            left, right = next(line for line in of_jobs.items() if line[0].partition("=")[0] == setting)
        lines.append((left, command.meanings.get(setting, right)))
    if "scoring" in names:
        lines += [(f"scoring.{left}", right) for left, right in _lines(ScoringConfig)]
    parts = [_section(name, usage, 34), _section("settings, with their defaults", lines)]
    if command.flags:
        parts.append(_section("flags", command.flags.items()))
    if command.selects:
        parts.append("Other words NAME=VALUE select samples by their rows, as tau=0,700 model=latte.\n")
    return "\n".join(parts)


def _default_options(file: Path) -> dict[str, str]:
    """{group: the option that holds unless another is named} of a file of `conf/`."""
    defaults = (read_yaml(file) or {})["defaults"]
    return {
        str(group): option for entry in defaults if isinstance(entry, dict) for group, option in entry.items()
    }


def _option_lines(group: str) -> list[tuple[str, str]]:
    """The options of a group of `conf/`; the default says so."""
    default = _default_options(CONF / "config.yaml")[group]
    return [
        (
            f"{group}={option}",
            first_comment(CONF / group / f"{option}.yaml") + " (the default)" * (option == default),
        )
        for option in options(group)
    ]


def _has_sweep(experiment: Path) -> bool:
    """Whether an experiment's file has jobs to run; its layout is checked when it is run."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return bool(yaml.load(experiment.read_text(), Loader=loader).get("sweep"))


def _lines(schema: Any) -> list[tuple[str, str]]:
    """The settings of a schema with their defaults and meanings; a group is explained by its options."""
    about = settings_in(schema)
    return [
        (f"{line.name}{_default(line)}", about[line.name].help)
        for line in fields(schema)
        if line.name not in (*GROUPS, *SCHEMAS)
    ]


def _launcher_lines(kind: type[Launcher]) -> list[tuple[str, str]]:
    """The settings of a launcher that not all have."""
    shared = () if kind is Launcher else _lines(Launcher)
    return [(f"{PREFIX}{left}", right) for left, right in _lines(kind) if (left, right) not in shared]


def first_comment(path: Path) -> str:
    """The first comment of a YAML file, without the line that Hydra reads: what the file is for."""
    comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# ")]
    return next(line for line in comments if not line.startswith("@package"))


def _default(line: "Field[Any]") -> str:
    value = line.default_factory() if line.default_factory is not MISSING else line.default
    if value == REQUIRED:
        return ""
    if isinstance(value, str) and "${" in value:
        return "=(the model's)"
    if isinstance(value, list):
        return f"=[{','.join(value)}]"
    if isinstance(value, dict):
        return "={}"
    return "=null" if value is None else f"={str(value).lower()}"


def _section(title: str, lines: Iterable[tuple[str, str]], column: int = 26) -> str:
    """A title and its lines: on the left what one types, and on the right from a column on what it means."""
    shown = []
    for left, right in lines:
        # What one types stays whole, to be copied; if it is long, its meaning begins below it.
        indent = " " * (column + 3)
        start = f"  {left:<{column}} " if len(left) <= column else f"  {left}\n{indent}"
        text = textwrap.wrap(right, WIDTH - len(indent), break_on_hyphens=False)
        shown.append(start + f"\n{indent}".join(text))
    return "\n".join([f"{title}:", *shown, ""])


def _check_listed(command: str, overrides: Sequence[str], groups: Sequence[str]) -> None:
    """Raises InputError for a setting on which a list does not depend."""
    groups = (*groups, "plugins", CONFIG_DIR.rstrip("="))
    for override in overrides:
        if (name := override_key(override)).partition(".")[0] not in groups:
            raise InputError(f"list {command} does not depend on {name}=: leave it out")


def listed(arguments: Sequence[str]) -> str:
    """What `list references`, `list words` or `list runs` prints; overrides choose data, model or output.

    Raises:
        InputError: another word than those three, or wrong overrides.
    """
    match arguments:
        case ["references", *overrides]:
            _check_listed("references", overrides, ("data", *OF_CLIPS))
            cfg = load(overrides)
            reader = make_reader(cfg.data)
            lines = []
            for name in reader.names():
                described = reader.describe(name)
                lines += [
                    f"{name}: {described.caption}",
                    *(f"    {edit.kind}: {edit.caption}" for edit in described.edits),
                ]
            return "\n".join(lines)
        case ["runs", *overrides]:
            select = selection("list runs", overrides)
            results = ResultsFolder(user_path(select.pop("output", "outputs")))
            console = Console()
            with console.capture() as capture:
                print_runs(console, results.output, select, results.cells() if results.is_sweep else None)
            return capture.get().rstrip()
        case ["words", *overrides]:
            _check_listed("words", overrides, ("model",))
            return "\n".join(vocabulary(load(overrides).model))
        case _:
            choices = one_of(" ".join(arguments[:1]), ("references", "words", "runs"))
            raise InputError(f"{' '.join(['list', *arguments])}: {choices}")
